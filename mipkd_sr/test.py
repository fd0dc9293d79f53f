"""Test networks: ``mipkd test -opt FILE``, or ``python mipkd_sr/test.py -opt FILE``, or under torchrun.

An option file names one network (BasicSR's ``network_g``) or several (``networks``), and test sets. The result is one
table, printed and written to results/<name>/ with every image's values, and, where ``figure`` asks for it, a picture of
the same crop from each network.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from mipkd_sr.commands.command_line import TESTING, add_test_arguments, import_packages, run_command, run_program

if __name__ == '__main__':  # before the imports below, so that a Ctrl-C in them is no traceback
    sys.exit(run_program('mipkd_sr.test', TESTING, add_test_arguments))

import mipkd_sr.register  # isort: skip  # noqa: F401  (before anything imports basicsr, which it repairs)

import numpy as np
import torch
from basicsr.utils import imwrite
from torch import nn
from torch.utils.data import Dataset

from mipkd_sr.archs.exported_arch import Exported
from mipkd_sr.archs.loading import NetworkOptions, load_trained
from mipkd_sr.commands.dry_run import describe_testing
from mipkd_sr.data import build_dataset, metrics_of, not_looked_at
from mipkd_sr.data.stream import single_images
from mipkd_sr.evaluation.complexity import count_parameters
from mipkd_sr.evaluation.evaluate import evaluate
from mipkd_sr.evaluation.published import published_rows
from mipkd_sr.evaluation.results import Row, protocol, results_table, write_results
from mipkd_sr.evaluation.tested import draw_figure, figures_of, network_entries, runs_of
from mipkd_sr.option_types import TestingOptions
from mipkd_sr.options.reading import Options, dump_options
from mipkd_sr.runs.folder_lock import TESTING_MARKS, own_folder
from mipkd_sr.runs.run import find_run
from mipkd_sr.runs.run_options import leave_out_missing, load_options, missing_paths
from mipkd_sr.runtime import distributed
from mipkd_sr.runtime.log import run_log
from mipkd_sr.runtime.long_work import told
from mipkd_sr.runtime.ranks import failing_together


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see ``run_command``."""
    return run_program('mipkd_sr.test', TESTING, add_test_arguments, argv)


def start(args: argparse.Namespace) -> int:
    """Test, or, with ``--dry_run``, say what would be done; returns the exit code."""
    try:
        return run_command(follow, args)
    finally:
        distributed.stop()  # when it has been said what ended the run, as the others may not answer any more


def follow(args: argparse.Namespace) -> int:
    """Do what the arguments ask for."""
    import_packages(args)
    run_tested = find_run(args.run, Path(args.root) if args.root else None) if args.run else None
    options = load_options(args.opt, False, args.root, args.force_yml, args.debug, run_tested)
    with options.explaining(), distributed.in_touch(options.testing):
        distributed.start(args.launcher, options.testing)
        left_out = leave_out_missing(options.data)
        if options.data['rank'] == 0:
            print(*left_out, sep='\n', end='\n' if left_out else '')
        entries = network_entries(options.testing)
        if args.dry_run:
            return describe_testing(options, entries)
        return run(options, entries)


def run(options: Options, entries: Mapping[str, NetworkOptions]) -> int:
    """Load everything, create the results' folder, and test."""
    opt = options.testing
    if missing := missing_paths(options.data):
        raise missing[0]
    device = torch.device('cuda' if opt['num_gpu'] else 'cpu')
    nets = {name: load_trained(entry, opt['scale']).to(device) for name, entry in entries.items()}
    datasets = {dataset['name']: build_dataset(opt, phase) for phase, dataset in opt['datasets'].items()}
    published = published_rows(opt) if opt.get('published') else []
    pictures = figures_of(opt, datasets)
    folder = Path(opt['path']['results_root'])
    with ExitStack() as stack:
        with failing_together():  # and no rank writes before the folder is there
            if opt['rank'] == 0:
                stack.enter_context(own_folder(folder, TESTING_MARKS, anew=True))
                (folder / options.file.name).write_text(dump_options(opt), encoding='utf-8')
        logger = stack.enter_context(run_log(str(folder), f'test_{opt["name"]}', opt['rank']))
        logger.info(f'Testing {len(nets)} network(s); results: {folder}')
        for note in not_looked_at(opt):
            logger.info(note)
        rows = test_networks(nets, datasets, opt, device)
        if opt['rank'] != 0:
            return 0
        if metrics_of(opt):
            table = results_table([*rows, *published], protocol(opt))
            write_results(rows, table, folder)
            print(f'\n{table}\n', flush=True)
            logger.info(f'Results: {folder}/table.md')
        for image, set_name, index in pictures:
            stem = folder / ('figure' if opt['figure']['image'] == image else f'figure_{image}')
            files = draw_figure(nets, rows, set_name, datasets[set_name][index], opt, stem)
            logger.info(f'Picture: {" ".join(map(str, files))}')
    return 0


def test_networks(
    nets: Mapping[str, nn.Module], datasets: Mapping[str, Dataset], opt: TestingOptions, device: torch.device
) -> list[Row]:
    """Measure the networks on every test set. Every rank must call it; each does its share."""
    runs = runs_of(nets, opt)
    sizes = {name: None if isinstance(net, Exported) else count_parameters(net) for name, net in nets.items()}
    rows = {row_name: Row(row_name, sizes[name]) for row_name, (name, _) in runs.items()}
    networks = {row_name: network for row_name, (_, network) in runs.items()}
    teacher = opt['teacher'] if opt['teacher'] in networks else None
    for set_name, dataset in datasets.items():
        images = Path(opt['path']['visualization'], set_name)

        def save(network: str, image_name: str, image: np.ndarray, images: Path = images) -> None:
            suffix = (opt['val']['suffix'] or opt['suffix']) if len(networks) == 1 else None
            imwrite(image, str(images / f'{image_name}_{suffix or network}.png'))

        loader = single_images(dataset)
        bar = told(loader, len(loader), set_name, silent=opt['rank'] != 0)
        on_image = save if opt['val']['save_img'] or opt['save_img'] else None
        metrics = metrics_of(opt)
        found = evaluate(networks, bar, metrics, device, on_image, teacher, opt['val']['grey'])
        for row_name, row in rows.items():
            row.images[set_name] = found[row_name]
    return list(rows.values())
