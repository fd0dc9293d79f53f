"""What a test measures: networks with their weights; and the pictures that it draws. All is checked before anything
runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import tensor2img
from torch import nn
from torch.utils.data import Dataset

from mipkd_sr.archs.loading import NetworkOptions
from mipkd_sr.data import file_of, metrics_of
from mipkd_sr.evaluation.figures import check_box, comparison_figure, measure_in_box, telling_box
from mipkd_sr.evaluation.inference import Network, device_of, prepare_network
from mipkd_sr.evaluation.results import ENSEMBLE, Row, format_metrics
from mipkd_sr.imresize import imresize
from mipkd_sr.metrics import least_side
from mipkd_sr.option_types import TestingOptions
from mipkd_sr.runtime.errors import OptionError, shown


def network_entries(opt: TestingOptions) -> dict[str, NetworkOptions]:
    """The networks to test, by name: ``networks``, and BasicSR's single ``network_g`` under the run's name.

    Raises:
        OptionError: If there is none, two have one name, or the teacher is none of them.
    """
    entries = {
        name: NetworkOptions(
            entry['network'],
            entry['path'],
            entry['param_key'],
            f'networks:{name}:network',
            f'networks:{name}:path',
            needs_file=True,
        )
        for name, entry in opt.get('networks', {}).items()
    }
    if 'network_g' in opt:
        path, name = opt['path'], opt['name']
        if name in entries:
            raise OptionError(f'networks:{name}', 'is the name of the run, and so of network_g, too; give another.')
        entries[name] = NetworkOptions(
            opt['network_g'],
            path['pretrain_network_g'],
            path['param_key_g'],
            'network_g',
            'path:pretrain_network_g',
            needs_file=True,
        )
    if not entries:
        raise OptionError('networks', 'is missing; name the networks to test, or give network_g.')
    if opt['teacher'] not in (None, *entries):
        raise OptionError('teacher', f"'{opt['teacher']}' is none of the networks; there are: {', '.join(entries)}.")
    return entries


def find_image(name: str, datasets: Mapping[str, Dataset]) -> tuple[str, int] | None:
    """The first test set, and the index in it, of an image by its name without ending; None if there is none."""
    for set_name, dataset in datasets.items():
        for index, path in enumerate(getattr(dataset, 'paths', ())):
            if Path(file_of(path)).stem == name:
                return set_name, index
    return None


def figures_of(opt: TestingOptions, datasets: Mapping[str, Dataset]) -> list[tuple[str, str, int]]:
    """The pictures that ``figure`` asks for: an image's name, its test set, and its index there.

    Raises:
        OptionError: If an image is not in the test sets (unless what is missing is to be skipped), or the box not in an
            image, or too small to be measured, or without HR to be measured against.
    """
    if (figure := opt.get('figure')) is None:
        return []
    names = [figure['image']] if isinstance(figure['image'], str) else figure['image']
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError('figure:image', f"must be an image's name, or a list of names, not {shown(names)}.")
    pictures = []
    for name in names:
        if (found := find_image(name, datasets)) is not None:
            pictures.append((name, *found))
        elif not opt['skip_missing']:
            raise OptionError('figure:image', f"there is no image '{name}' in the test sets.")
    box, is_crop = figure['box'], figure['caption'] == 'crop'
    for _, set_name, index in pictures:
        sample = datasets[set_name][index]
        if is_crop and 'gt' not in sample:
            raise OptionError('figure:caption', f'crop is measured against HR, which {set_name} has not; leave it out.')
        size = sample['gt'].shape[-2:] if 'gt' in sample else [opt['scale'] * side for side in sample['lq'].shape[-2:]]
        try:
            check_box(size, box or (0, 0, 1))
        except ValueError as error:
            raise OptionError('figure:box', f'{error}.') from None
    metrics = metrics_of(opt).values()
    least = max((least_side({**metric, 'crop_border': 0}) for metric in metrics), default=1)
    if is_crop and box and box[2] < least:
        raise OptionError('figure:box', f'has a side of {box[2]}, but a crop that is measured needs {least} at least.')
    return pictures


def runs_of(nets: Mapping[str, nn.Module], opt: TestingOptions) -> dict[str, tuple[str, Network]]:
    """What to run for each row, by the row's name: the network's name, and how it is run."""
    val_opt, runs = opt['val'], {}
    for ensemble in {False: [False], True: [True], 'both': [False, True]}[val_opt['self_ensemble']]:
        for name, net in nets.items():
            row_name = f'{name}{ENSEMBLE}' if ensemble and val_opt['self_ensemble'] == 'both' else name
            runs[row_name] = name, prepare_network(net, ensemble, val_opt['tile'], val_opt['tile_overlap'])
    return runs


def draw_figure(
    nets: Mapping[str, nn.Module],
    rows: Sequence[Row],
    set_name: str,
    sample: Mapping[str, Any],
    opt: TestingOptions,
    stem: Path,
) -> list[Path]:
    """Draw ``sample`` of the test set ``set_name`` as ``stem``.png and .pdf; bicubic's output stands for absent HR."""
    with torch.no_grad():
        images = {
            row_name: tensor2img(network(sample['lq'][None].to(device_of(nets[name]))))
            for row_name, (name, network) in runs_of(nets, opt).items()
            if not row_name.endswith(ENSEMBLE)  # too alike to be told apart
        }
    hr, figure, metrics = (tensor2img(sample['gt']) if 'gt' in sample else None), opt['figure'], metrics_of(opt)
    if hr is None:
        images = {'bicubic': tensor2img(imresize(sample['lq'], opt['scale'])), **images}
    top, left, side = figure['box'] or telling_box([*([] if hr is None else [hr]), *images.values()])
    box = (top, left, side)
    captions = {}
    for row in rows:
        values = row.images[set_name].get(Path(file_of(sample)).stem, {})
        captions[row.name] = format_metrics({name: values[name] for name in metrics if name in values})
    if figure['caption'] == 'crop' and hr is not None:
        measured = {name: measure_in_box(metrics, sr, hr, box) for name, sr in images.items()}
        captions = {name: format_metrics(values) for name, values in measured.items()}
    return comparison_figure(hr, images, captions, box, stem)
