"""Test networks: ``mipkd-test -opt FILE``, or ``python mipkd_sr/test.py -opt FILE``.

An option file names one network (BasicSR's ``network_g``) or several (``networks``), and test sets. The result is one
table, printed and written to results/<name>/ with every image's values, and, where ``figure`` asks for it, a picture of
the same crop from each network.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: Python put mipkd_sr/ itself on the path, where its folder above belongs
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import mipkd_sr  # isort: skip  # noqa: F401  (repairs BasicSR before anything imports it)

import numpy as np
import torch
from basicsr.utils import imwrite, tensor2img
from torch.utils.data import DataLoader
from tqdm import tqdm

from mipkd_sr.archs import build_network
from mipkd_sr.data import build_dataset
from mipkd_sr.data.stream import single_images
from mipkd_sr.engine import distributed
from mipkd_sr.engine.checkpoint import load_weights
from mipkd_sr.engine.cli import fail, parse_arguments, set_aside
from mipkd_sr.engine.dry_run import count_parameters, describe_testing
from mipkd_sr.engine.errors import OptionError, sentence
from mipkd_sr.engine.evaluate import evaluate
from mipkd_sr.engine.figures import comparison_figure
from mipkd_sr.engine.options import Options, dump_options, load_options, missing_paths
from mipkd_sr.engine.report import Row, format_metrics, results_table, write_results
from mipkd_sr.engine.reporter import run_log


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code: 0 done, 2 wrong options, 3 dry run with data missing."""
    args = parse_arguments('Test super-resolution networks.', argv)
    options = None
    try:
        options = load_options(args.opt, False, args.root, args.force_yml, args.debug)
        distributed.start(args.launcher, options.data)
        entries = network_entries(options.data)
        if args.dry_run:
            return describe_testing(options, entries)
        return run(options, entries)
    except OptionError as error:
        return fail(options.explain(error) if options else str(error))
    finally:
        distributed.stop()


def network_entries(opt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The networks to test, by name: ``networks``, and BasicSR's single ``network_g`` under the run's name.

    Raises:
        OptionError: If there is none.
    """
    entries = dict(opt.get('networks', {}))
    if 'network_g' in opt:
        path = opt['path']
        entries[opt['name']] = {
            'network': opt['network_g'],
            'path': path['pretrain_network_g'],
            'param_key': path['param_key_g'],
        }
    if not entries:
        raise OptionError('networks', 'is missing; name the networks to test, or give network_g.')
    return entries


def load_entry(name: str, entry: dict[str, Any], scale: int) -> torch.nn.Module:
    """Build a network of the option file and load its weights.

    Raises:
        OptionError: If its weights are absent, or another network's, or its scale is not the run's.
    """
    try:
        net = build_network(entry['network'])
    except (ValueError, TypeError, AssertionError) as error:
        raise OptionError(f'networks:{name}:network', sentence(error)) from error
    if entry['network'].get('upscale', scale) != scale:
        raise OptionError(f'networks:{name}:network:upscale', f'differs from scale, {scale}; make them the same.')
    if not entry['path']:
        if count_parameters(net):
            raise OptionError(f'networks:{name}:path', 'is missing: the file of its weights.')
        return net
    try:
        load_weights(net, entry['path'], entry['param_key'])
    except ValueError as error:
        raise OptionError(f'networks:{name}:path', f'{error}; give the file of this network.') from None
    return net


def run(options: Options, entries: dict[str, dict[str, Any]]) -> int:
    """Load everything, create the results' folder, and test."""
    opt = options.data
    if missing := missing_paths(opt):
        raise missing[0]
    if opt['rank'] != 0:
        return 0  # the work is not shared yet: the first process does it
    nets = {name: load_entry(name, entry, opt['scale']) for name, entry in entries.items()}
    loaders = {dataset['name']: single_images(build_dataset(opt, phase)) for phase, dataset in opt['datasets'].items()}
    folder = Path(opt['path']['results_root'])
    set_aside(folder)
    folder.mkdir(parents=True)
    (folder / options.file.name).write_text(dump_options(opt), encoding='utf-8')
    with run_log(str(folder), f'test_{opt["name"]}', 0) as logger:
        logger.info(f'Testing {len(nets)} network(s); results: {folder}')
        rows = [test_network(name, net, loaders, opt) for name, net in nets.items()]
        if opt['val'].get('metrics'):
            table = results_table(rows, protocol(opt))
            write_results(rows, table, folder)
            logger.info(f'Results\n\n{table}\n')
        if opt.get('figure'):
            draw_figure(nets, rows, loaders, opt, folder / 'figure.png')
            logger.info(f'Picture: {folder / "figure.png"}')
    return 0


def device_of(opt: dict[str, Any]) -> torch.device:
    """Where the networks run."""
    return torch.device('cuda' if opt['num_gpu'] else 'cpu')


def test_network(name: str, net: torch.nn.Module, loaders: dict[str, DataLoader], opt: dict[str, Any]) -> Row:
    """Measure one network on every test set."""
    device = device_of(opt)
    net.to(device)
    row = Row(name, count_parameters(net))
    save_img = opt['val']['save_img'] or opt['save_img']
    for set_name, loader in loaders.items():
        images = Path(opt['path']['visualization'], set_name)

        def save(image_name: str, image: np.ndarray, images: Path = images) -> None:
            imwrite(image, str(images / f'{image_name}_{opt["val"]["suffix"] or opt["suffix"] or name}.png'))

        bar = tqdm(loader, desc=f'{name} on {set_name}', unit='image', disable=None)
        row.images[set_name] = evaluate(net, bar, opt['val'].get('metrics', {}), device, save if save_img else None)
    return row


def protocol(opt: dict[str, Any]) -> str:
    """How the table's values were measured, in words."""
    parts = [
        f'{name}: {"Y channel" if metric.get("test_y_channel") else "RGB"}, '
        f'border of {metric.get("crop_border", 0)} pixels cut off'
        for name, metric in opt['val']['metrics'].items()
    ]
    return f'x{opt["scale"]}, means over images, output rounded to 8 bits, no self-ensemble; {"; ".join(parts)}.'


def draw_figure(
    nets: dict[str, torch.nn.Module],
    rows: Sequence[Row],
    loaders: dict[str, DataLoader],
    opt: dict[str, Any],
    file: Path,
) -> None:
    """Draw the picture that ``figure`` asks for.

    Raises:
        OptionError: If its image is not in the test sets, or its box not in the image.
    """
    figure = opt['figure']
    for set_name, loader in loaders.items():
        for batch in loader:
            if Path(batch['lq_path'][0]).stem != figure['image']:
                continue
            lq, hr = batch['lq'].to(device_of(opt)), tensor2img(batch['gt'])
            with torch.no_grad():
                images = {name: tensor2img(net.eval()(lq)) for name, net in nets.items()}
            captions = {row.name: format_metrics(row.images[set_name][figure['image']]) for row in rows}
            try:
                comparison_figure(hr, images, captions, tuple(figure['box']), file)
            except ValueError as error:
                raise OptionError('figure:box', f'{error}.') from None
            return
    raise OptionError('figure:image', f"there is no image '{figure['image']}' in the test sets.")


if __name__ == '__main__':
    sys.exit(main())
