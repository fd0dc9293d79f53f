"""Measure time and memory of what the methods are made of.

python scripts/benchmark.py views     # what it saves that LR patch and zoom-in share a call (DUKD)
python scripts/benchmark.py fakd      # peak memory of FAKD's affinity loss at patches of 48, 96 and 192
python scripts/benchmark.py loader    # training patches a second from 2K images, as PNG files and as arrays
python scripts/benchmark.py metrics   # PSNR and SSIM of a 2K image, here and in BasicSR
python scripts/benchmark.py complexity -opt options/test/papers_x4.yml    # parameters, multiply-adds, speed, memory
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch

import mipkd_sr  # isort: skip  # noqa: F401  (repairs BasicSR before anything imports it)

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.metrics import calculate_psnr, calculate_ssim

from mipkd_sr.archs import build_network
from mipkd_sr.data import PairedPatchDataset
from mipkd_sr.data.pairs import STORES, read_image, write_pairs
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.engine.complexity import count_multiply_adds, count_parameters, measure_speed
from mipkd_sr.engine.options import read_options
from mipkd_sr.engine.report import markdown_table
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.fakd_loss import affinity_distance
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.metrics import psnr, ssim

REPEATS = 15


def median_seconds(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Median and interquartile range of the seconds that ``work`` takes, after three times for warming up."""
    seconds = []
    for number in range(REPEATS + 3):
        start = time.perf_counter()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    quartiles = statistics.quantiles(seconds, n=4)
    return quartiles[1], quartiles[2] - quartiles[0]


def views(args: argparse.Namespace) -> None:
    """Time a step of KD + DUKD with one call for LR patch and zoom-in, and with two."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    lq, gt = (
        torch.rand(args.batch, 3, args.patch, args.patch),
        torch.rand(args.batch, 3, 2 * args.patch, 2 * args.patch),
    )
    lq, gt = lq.to(device), gt.to(device)
    rows = []
    for together in (True, False):
        torch.manual_seed(0)
        student = build_network({'type': 'StagedEDSR', 'num_feat': 16, 'num_block': 4, 'upscale': 2}).to(device)
        teacher = build_network({'type': 'StagedEDSR', 'num_feat': 32, 'num_block': 10, 'upscale': 2}).to(device)
        objectives = {'kd': LogitsKDLoss(), 'dukd': DUKDLoss()}
        for objective in objectives.values():
            objective.attach(student, teacher, args.patch, 2)
        step = DistillStep(student, FrozenTeacher(teacher), objectives, 1, 0, batch_views=together)

        def work(step: DistillStep = step) -> None:
            step.zero_grad()
            torch.stack(list(step(lq, gt, 1).losses.values())).sum().backward()

        median, spread = median_seconds(work, device)
        rows.append(['one call' if together else 'two calls', f'{1000 * median:.1f}', f'{1000 * spread:.1f}'])
    print(f'KD + DUKD, EDSR 16/4 under 32/10 at x2, {args.batch} patches of {args.patch} x {args.patch}, on {device}')
    print(markdown_table(['LR patch and zoom-in', 'ms a step (median)', 'interquartile range'], rows))


def whole_affinity_distance(feature_s: torch.Tensor, feature_t: torch.Tensor) -> torch.Tensor:
    """The same loss with the whole matrices, as FAKD's paper writes it."""
    flat_s, flat_t = (torch.nn.functional.normalize(feature.flatten(2), dim=1) for feature in (feature_s, feature_t))
    return (flat_s.mT @ flat_s - flat_t.mT @ flat_t).abs().mean()


def fakd(args: argparse.Namespace) -> None:
    """Measure, each in a process of its own, the memory that the loss and its gradient need above their inputs."""
    rows = []
    for size in (48, 96, 192):
        cells = [f'{size} x {size}']
        for way in ('pieces', 'whole'):
            command = [sys.executable, '-W', 'ignore', __file__, 'fakd-once', way, str(size)]
            done = subprocess.run(command, capture_output=True, text=True)
            cells.append(done.stdout.strip() if done.returncode == 0 else 'does not fit')
        rows.append(cells)
    print('One image, 64 channels, loss and gradient on the CPU: peak memory above the inputs, MiB')
    print(markdown_table(['feature map', 'in pieces', 'whole matrices'], rows))


def loader(args: argparse.Namespace) -> None:
    """Time the reading of patches of 48 x 48 LR pixels at x2, in this one process, from images of 2040 x 1356 pixels.

    The images are photographs that scikit-image ships, enlarged to that size and made as rough as a photograph of that
    size is by a little noise.
    """
    rng = np.random.default_rng(0)
    names = ('astronaut.png', 'coffee.png', 'chelsea.png', 'rocket.jpg')
    rows, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            image = cv2.resize(read_image(Path(skimage.__file__).parent / 'data' / name), (2040, 1356))
            image = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).round().astype(np.uint8)
            for store in STORES:
                write_pairs([(name[:-4], image)], Path(folder, store), [2], store=store)
        for kind, store in ((PairedImageDataset, 'png'), (PairedPatchDataset, 'npy')):
            roots = {'dataroot_gt': f'{folder}/{store}/HR', 'dataroot_lq': f'{folder}/{store}/LR_x2'}
            opt = {**roots, 'io_backend': {'type': 'disk'}, 'scale': 2, 'phase': 'train', 'gt_size': 96}
            dataset = kind({**opt, 'use_hflip': True, 'use_rot': True})
            count = args.patches if store == 'npy' else max(1, args.patches // 20)
            for index in range(len(dataset)):
                dataset[index]
            start = time.process_time()
            for index in range(count):
                dataset[index % len(dataset)]
            rates.append(count / (time.process_time() - start))
            size = sum(file.stat().st_size for file in Path(folder, store).rglob('*.*')) / 2**20
            rows.append([f'{kind.__name__}, {store}', f'{rates[-1]:,.0f}', f'{size:,.0f}'])
    print(markdown_table(['data set', 'patches a second of one core', 'MiB on the disk'], rows))
    print(f'{rates[1] / rates[0]:.1f} times')


def metrics(args: argparse.Namespace) -> None:
    """Time PSNR plus SSIM on an image of 2040 x 1356 pixels."""
    hr = cv2.resize(read_image(Path(skimage.__file__).parent / 'data' / 'astronaut.png'), (2040, 1356))
    noise = np.random.default_rng(0).normal(0, 6, hr.shape)
    sr = np.clip(hr + noise, 0, 255).round().astype(np.uint8)
    rows = []
    for y_channel in (True, False):

        def ours(y: bool = y_channel) -> None:
            psnr(sr, hr, 4, y)
            ssim(sr, hr, 4, y)

        def theirs(y: bool = y_channel) -> None:
            calculate_psnr(sr, hr, 4, test_y_channel=y)
            calculate_ssim(sr, hr, 4, test_y_channel=y)

        seconds = [median_seconds(work, torch.device('cpu'))[0] for work in (ours, theirs)]
        cells = [f'{1000 * value:.0f}' for value in seconds]
        rows.append(['Y' if y_channel else 'RGB', *cells, f'{seconds[1] / seconds[0]:.1f}'])
    print(markdown_table(['PSNR and SSIM of', 'ms here', 'ms in BasicSR', 'times as fast'], rows))


def complexity(args: argparse.Namespace) -> None:
    """A table of the networks of a test's option file; each is run in a process of its own."""
    networks = read_options(args.opt).data['networks']
    rows = []
    for name, entry in networks.items():
        net = build_network(entry['network'])
        cells = [name, f'{count_parameters(net) / 1e6:.3f}', f'{count_multiply_adds(net, args.size) / 1e9:.2f}']
        if args.repeats:
            arguments = ['complexity-once', '-opt', str(args.opt), '--network', name]
            command = [sys.executable, '-W', 'ignore', __file__, *arguments]
            sizes = ['--size', str(args.size), '--repeats', str(args.repeats)]
            done = subprocess.run([*command, *sizes], capture_output=True, text=True)
            cells += done.stdout.split() if done.returncode == 0 else ['does not fit', '-']
        rows.append(cells)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} thread(s)'
    measured = [f'images a second ({device})', 'peak memory, MiB'] if args.repeats else []
    print(markdown_table(['network', 'parameters, M', 'multiply-adds, G', *measured], rows))
    print(f'\nFor one LR image of {args.size} x {args.size} pixels, in single precision.')


def complexity_once(args: argparse.Namespace) -> None:
    """One measurement of ``complexity``; prints images a second and MiB."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    net = build_network(read_options(args.opt).data['networks'][args.network]['network'])
    rate, memory = measure_speed(net, args.size, device, args.repeats)
    print(f'{rate:.3g} {memory:,.0f}')


def fakd_once(args: argparse.Namespace) -> None:
    """One measurement of ``fakd``; prints MiB."""
    feature_s = torch.randn(1, 64, args.size, args.size, requires_grad=True)
    feature_t = torch.randn(1, 64, args.size, args.size)
    torch.randn(64, 64, requires_grad=True).square().sum().backward()  # what autograd itself needs is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    distance = affinity_distance if args.way == 'pieces' else whole_affinity_distance
    distance(feature_s, feature_t).backward()
    print(f'{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:,.0f}')


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser('views')
    command.add_argument('--batch', type=int, default=8, help='patches a step')
    command.add_argument('--patch', type=int, default=24, help='side of the LR patches')
    command.set_defaults(run=views)
    command = commands.add_parser('fakd')
    command.set_defaults(run=fakd)
    command = commands.add_parser('loader')
    command.add_argument('--patches', type=int, default=4000, help='patches to read from arrays')
    command.set_defaults(run=loader)
    command = commands.add_parser('metrics')
    command.set_defaults(run=metrics)
    for name, run in (('complexity', complexity), ('complexity-once', complexity_once)):
        command = commands.add_parser(name)
        command.add_argument('-opt', required=True, help='option file of a test, for its networks')
        command.add_argument('--size', type=int, default=256, help='side of the LR image')
        command.add_argument('--repeats', type=int, default=3, help='runs to take the median of; 0 to count alone')
        if run is complexity_once:
            command.add_argument('--network', help='its name')
        command.set_defaults(run=run)
    command = commands.add_parser('fakd-once')
    command.add_argument('way', choices=['pieces', 'whole'])
    command.add_argument('size', type=int)
    command.set_defaults(run=fakd_once)
    args = parser.parse_args()
    args.run(args)


if __name__ == '__main__':
    main()
