"""The shipped recipes over tiny data, with tiny networks: what the adversary changes."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mipkd_sr.register  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

import torch
import yaml
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.data.pairs import STORES, write_pairs
from mipkd_sr.losses import csd_loss
from mipkd_sr.options.reading import read_options
from tests.conftest import ROOT, smooth_image

LQ_SIZE, HR_SIZE, IMAGES = 12, 48, 3
NETWORKS, SETS = 5, 2
"""As many of a test's networks and test sets are kept."""
Recipe = dict[str, Any]


def recipe_files() -> list[Path]:
    """Every shipped option file but the bases, every table, and the studies."""
    files = sorted(file for kind in ('train', 'test', 'tables') for file in (ROOT / 'options' / kind).rglob('*.yml'))
    files += sorted(ROOT.glob('experiments/studies/*/study.yml'))
    kept = [file for file in files if not any(part.startswith('_') for part in file.relative_to(ROOT).parts)]
    return [file for file in kept if not file.stem.endswith('_miniature')]  # the same tables again


def small(network: dict[str, Any]) -> dict[str, Any]:
    """A network of the same kind and in about the same proportion to others, that takes a millisecond."""
    network = dict(network)
    for name, factor, least in (
        ('num_feat', 32, 4),
        ('num_block', 8, 3),
        ('embed_dim', 30, 2),
        ('feature_channels', 8, 4),
    ):
        if name in network:
            network[name] = max(least, network[name] // factor)
    if network['type'] == 'StagedRCAN':
        network.update(num_group=3, num_block=1, squeeze_factor=2)
    if network['type'] == 'StagedSwinIR':
        units = len(network['depths'])
        network.update(depths=[1] * units, num_heads=[2] * units, img_size=LQ_SIZE, window_size=3)
    return network


class World:
    """Images and weights for recipes, in a folder.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for store in STORES:
            images = ((f'wave{i}', smooth_image(HR_SIZE, HR_SIZE, i)) for i in range(IMAGES))
            write_pairs(images, folder / store, [2, 3, 4], store=store)

    def weights(self, network: dict[str, Any]) -> str:
        """A checkpoint of a network."""
        name = ''.join(c if c.isalnum() else '-' for c in json.dumps(network))[:200]
        file = self.folder / f'{name}.pth'
        if not file.exists():
            torch.save({'params': build_network(network).state_dict()}, file)
        return str(file)

    def recipe(self, file: Path) -> Recipe:
        """An option file's options, over this world."""
        opt = read_options(file).data
        if 'rows' in opt:
            return _table(opt, file.parent) | {'test': str(self._test_of_tables(file.parent / opt['test']))}
        if 'variants' in opt:
            return self._study(opt)
        for phase in opt['datasets'].values():
            images = self.folder / ('npy' if phase.get('type') == 'PairedPatchDataset' else 'png')
            paths = {'dataroot_gt': images / 'HR', 'dataroot_lq': images / f'LR_x{opt["scale"]}'}
            phase.update({key: str(path) for key, path in paths.items() if key in phase})  # some sets have one alone
        return self._training(opt) if 'train' in opt else self._test(opt)

    def _test_of_tables(self, source: Path) -> Path:
        file = self.folder / f'table_{source.name}'
        if not file.exists():
            opt, images = read_options(source).data, self.folder / 'png'
            for phase in opt['datasets'].values():
                phase.update(dataroot_gt=str(images / 'HR'), dataroot_lq=f'{images}/LR_x{{scale}}')
            file.write_text(yaml.safe_dump(opt))
        return file

    def _study(self, opt: Recipe) -> Recipe:
        """Its first variants, and one that there always is, of the demo's recipe."""
        recipe, test = self.folder / 'study_recipe.yml', self.folder / 'study_test.yml'
        for file, source in ((recipe, 'train/demo/mipkd.yml'), (test, 'test/demo.yml')):
            if not file.exists():
                file.write_text(yaml.safe_dump(self.recipe(ROOT / 'options' / source)))
        variants = [name for name, variant in opt['variants'].items() if not (variant or {}).get('recipe')]
        kept = {name: opt['variants'][name] for name in variants[:2]} | {'as it is': {}}
        files = {'recipe': str(recipe), 'test': str(test)}
        return files | {'seeds': [0, 1], 'report_at': [2], 'baseline': next(iter(kept)), 'variants': kept}

    def _training(self, opt: Recipe) -> Recipe:
        opt['num_gpu'] = 0
        opt['network_g'] = small(opt['network_g'])
        if 'type' in (opt.get('network_t') or {}):
            opt['network_t'] = small(opt['network_t'])
            opt['path']['pretrain_network_t'] = self.weights(opt['network_t'])
        elif opt.get('network_t'):  # several
            opt['network_t'] = {name: small(network) for name, network in opt['network_t'].items()}
            files = {name: self.weights(network) for name, network in opt['network_t'].items()}
            opt['path']['pretrain_network_t'] = files
        opt['datasets']['train'].update(gt_size=LQ_SIZE * opt['scale'], batch_size_per_gpu=2, num_worker_per_gpu=0)
        opt['train']['total_iter'] = 2
        if 'val' in opt:
            opt['val']['val_freq'] = 2
        opt['logger'].update(print_freq=1, save_checkpoint_freq=2)
        if 'csd_opt' in opt['train']:
            opt['train']['csd_opt']['vgg_file'] = None
        return opt

    def _test(self, opt: Recipe) -> Recipe:
        kept = [*dict.fromkeys([*filter(None, [opt.get('teacher')]), *opt['networks']])][:NETWORKS]
        opt['networks'] = {name: entry for name, entry in opt['networks'].items() if name in kept}
        opt['datasets'] = dict(list(opt['datasets'].items())[:SETS])
        for entry in opt['networks'].values():
            entry['network'] = small(entry['network'])
            if entry.get('path'):
                entry['path'] = self.weights(entry['network'])
        if 'figure' in opt:
            opt['figure'] = {'image': 'wave0', 'box': [2, 3, 20]}
        return opt


def _table(opt: Recipe, folder: Path) -> Recipe:
    """A table that can lie anywhere, with at most three rows."""

    def absolute(names: list[str]) -> list[str]:
        return [
            str((folder / (name if name.endswith('.yml') else f'../train/_base/{name}.yml')).resolve())
            for name in names
        ]

    rows = dict(list(opt['rows'].items())[:3])
    for row in filter(None, rows.values()):
        if 'bases' in row:
            row['bases'] = absolute(row['bases'])
    return opt | {'rows': rows, 'bases': absolute(opt.get('bases', []))}


def small_vgg() -> None:
    """Let CSD have a small network of VGG19's form where no file is named, in place of a download."""
    real = csd_loss.vgg19_features

    def features(file: str | None) -> nn.Sequential:
        if file is not None:
            return real(file)
        widths = [3, *[4] * 14]
        convolutions = (nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        layers: Iterator[nn.Module] = (layer for conv in convolutions for layer in (conv, nn.ReLU()))
        kept = [*layers, nn.Identity()]
        return nn.Sequential(*kept, *[nn.ReLU() for _ in range(max(csd_loss.LAYERS) + 1 - len(kept))])

    csd_loss.vgg19_features = features
