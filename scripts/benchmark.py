"""Measure time and memory of what the methods are made of.

python scripts/benchmark.py views     # what it saves that LR patch and zoom-in share a call (DUKD)
python scripts/benchmark.py fakd      # peak memory of FAKD's affinity loss at patches of 48, 96 and 192
python scripts/benchmark.py loader    # training patches a second from 2K images, as PNG files and as arrays
python scripts/benchmark.py metrics   # PSNR and SSIM of a 2K image, here and in BasicSR
python scripts/benchmark.py complexity -opt options/test/papers_x4.yml    # parameters, multiply-adds, speed, memory
python scripts/benchmark.py step      # a training step of each method, as ratios to KD's and to its own arithmetic
python scripts/benchmark.py step -opt options/train/mipkd/edsr_x4.yml     # the same for another pair (wants a GPU)
python scripts/benchmark.py teacher   # the teacher's forward in other arithmetic: time, and how far its output moves
python scripts/benchmark.py sizes     # a step's time and memory against batch, patch, teacher's width, K, world size
python scripts/benchmark.py plan -opt options/train/mipkd/edsr_x4.yml --gpu V100 --gpus 4    # hours, memory
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage
import torch
import torchvision

import mipkd_sr  # isort: skip  # noqa: F401  (repairs BasicSR before anything imports it)

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.metrics import calculate_psnr, calculate_ssim

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.costs.counting import count_floor, count_needed
from mipkd_sr.costs.memory import held_memory, measure_memory
from mipkd_sr.costs.methods import METHODS, batch_for, first_step, floor_of_kd, model_for, take_step
from mipkd_sr.costs.planner import plan_step
from mipkd_sr.data import PairedPatchDataset, build_dataset, lq_patch_size
from mipkd_sr.data.pairs import STORES, read_image, write_pairs
from mipkd_sr.data.stream import single_images
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters, measure_speed, seconds_of
from mipkd_sr.evaluation.figures import sizes_figure
from mipkd_sr.evaluation.tables import markdown_table
from mipkd_sr.losses import csd_loss
from mipkd_sr.losses.dukd_loss import DUKDLoss
from mipkd_sr.losses.fakd_loss import affinity_distance
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.metrics import psnr, ssim
from mipkd_sr.options.loading import load_options, missing_paths
from mipkd_sr.options.reading import read_options
from mipkd_sr.runtime import distributed
from mipkd_sr.runtime.errors import OptionError

REPEATS = 15


def this_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_name(device: torch.device) -> str:
    """What a device is called in a table."""
    return torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {torch.get_num_threads()} thread(s)'


def median_seconds(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Median and interquartile range of the seconds that ``work`` takes, after three times for warming up."""
    seconds = [seconds_of(work, device) for _ in range(REPEATS + 3)][3:]
    quartiles = statistics.quantiles(seconds, n=4)
    return quartiles[1], quartiles[2] - quartiles[0]


def views(args: argparse.Namespace) -> None:
    """Time a step of KD + DUKD with one call for LR patch and zoom-in, and with two."""
    device = this_device()
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
    measured = [f'images a second ({device_name(this_device())})', 'peak memory, MiB'] if args.repeats else []
    print(markdown_table(['network', 'parameters, M', 'multiply-adds, G', *measured], rows))
    print(f'\nFor one LR image of {args.size} x {args.size} pixels, in single precision.')


def complexity_once(args: argparse.Namespace) -> None:
    """One measurement of ``complexity``; prints images a second and MiB."""
    device = this_device()
    net = build_network(read_options(args.opt).data['networks'][args.network]['network'])
    rate, memory = measure_speed(net, args.size, device, args.repeats)
    print(f'{rate:.3g} {memory:,.0f}')


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a training run, with the batch and patch that the command line asks for."""
    force = list(args.force)
    if args.batch:
        force.append(f'datasets:train:batch_size_per_gpu={args.batch}')
    opt = load_options(args.opt, True, force=force).data
    if args.patch:
        opt['datasets']['train']['gt_size'] = args.patch * opt['scale']
    opt['num_gpu'] = min(1, torch.cuda.device_count())
    return opt


def random_vgg(file: str | None) -> torch.nn.Sequential:
    """VGG19 with random weights, for CSD: they cost as much as the trained ones, and need no download."""
    return torchvision.models.vgg19(weights=None).features[: max(csd_loss.LAYERS) + 1]


def step(args: argparse.Namespace) -> None:
    """Time a step of each method, in turn, so that whatever else the machine does falls on all alike.

    The floor of KD is the teacher's forward and the student's forward and backward alone, timed in the same turn, and
    that of scratch the latter. Another method's own floor is KD's multiplied with how much more arithmetic the method
    needs in that step; what MiPKD computes again to save memory is not counted. Memory is that of the tensors alive at
    a time.
    """
    opt, device = run_options(args), this_device()
    csd_loss.vgg19_features = random_vgg  # type: ignore[assignment]
    models, batch, notes = {}, batch_for(opt, device), []
    for method in dict.fromkeys(['KD', *(args.methods or METHODS)]):
        try:
            models[method] = model_for(opt, method)
        except OptionError as error:
            notes.append(f'{method} is left out: {error.message}')
    first = first_step(opt)
    floors = {f'floor of {method}': models[method] for method in ('KD', 'scratch') if method in models}
    names = [*floors, *models]
    work: dict[str, Callable[[int], None]] = {name: floor_of_kd(model, batch) for name, model in floors.items()}
    work |= {name: partial(take_step, model, batch) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = dict.fromkeys(models, 0.0)
    for number in range(-2, args.repeats):
        for name in names:
            if device.type == 'cuda':
                torch.cuda.reset_peak_memory_stats()
                others = torch.cuda.memory_allocated() - held_memory(models.get(name, models['KD']))
            taken = seconds_of(partial(work[name], first + number), device)
            if number >= 0:
                seconds[name].append(taken)
            if device.type == 'cuda' and name in memory:
                memory[name] = max(memory[name], torch.cuda.max_memory_allocated() - others)
    arithmetic = {name: [count_floor(model, batch)] * args.repeats for name, model in floors.items()}
    for name, model in models.items():
        steps = range(first, first + (args.repeats if name.startswith('MiPKD') else 1))  # whose paths are drawn
        if device.type == 'cpu':
            memory[name] = max(measure_memory(model, batch, number).peak for number in steps)
        adds = [count_needed(model, batch, number) for number in steps]
        arithmetic[name] = adds * (args.repeats // len(adds))
    rows, figures = [], {}
    for name in names:
        floor = 'floor of scratch' if name.endswith('scratch') else 'floor of KD'
        more = [adds / arithmetic[floor][0] for adds in arithmetic[name]]
        kd = statistics.median(a / b for a, b in zip(seconds[name], seconds['KD'], strict=True))
        ratios = (a / b / c for a, b, c in zip(seconds[name], seconds[floor], more, strict=True))
        quartiles = statistics.quantiles(seconds[name], n=4)
        figures[name] = {
            'seconds': quartiles[1],
            'interquartile_range': quartiles[2] - quartiles[0],
            'mean_seconds': statistics.mean(seconds[name]),
            'times_kd': kd,
            'mean_times_kd': statistics.mean(seconds[name]) / statistics.mean(seconds['KD']),
            'arithmetic_times_floor': statistics.mean(arithmetic[name]) / arithmetic['floor of KD'][0],
            'times_own_floor': statistics.median(ratios),
            'peak_memory_mib': memory[name] / 2**20 if name in memory else None,
        }
        values = figures[name]
        cells = [name, f'{1000 * quartiles[1]:.1f} ± {1000 * (quartiles[2] - quartiles[0]):.1f}']
        cells += [f'{values[key]:.2f}' for key in ('mean_times_kd', 'arithmetic_times_floor', 'times_own_floor')]
        cells.append(f'{memory[name] / 2**20:,.0f}' if name in memory else '-')
        rows.append(cells)
    header = ['', 'ms a step (median ± IQR)', 'times KD (means)', "arithmetic, times KD's floor", 'times own floor']
    where = device_name(device)
    print(markdown_table([*header, 'peak memory, MiB'], rows))
    batch_size, side = batch['lq'].shape[0], batch['lq'].shape[-1]
    print(f'\n{args.opt}, {batch_size} patches of {side} x {side}, {args.repeats} steps of each in turn, {where}.')
    print('\n'.join(notes))
    if args.json:
        found = {'device': where, 'batch': batch_size, 'patch': side, 'steps': figures}
        args.json.write_text(json.dumps(found, indent=1) + '\n')
    if args.profile:
        profile(work, first, device)


def run_all(network: Callable[[torch.Tensor], object], images: Sequence[torch.Tensor]) -> None:
    """Run a network on each image."""
    for image in images:
        network(image)


def teacher(args: argparse.Namespace) -> None:
    """What cheaper arithmetic of a run's trained teacher saves, and changes: its output on the validation images."""
    options = load_options(args.opt, True, force=args.force)
    if missing := missing_paths(options.data):
        sys.exit(f'error: {options.explain(missing[0])}')
    opt, device = options.data, this_device()
    opt['num_gpu'], path = int(device.type == 'cuda'), opt['path']
    net = build_network(opt['network_t'])
    load_weights(net, path['pretrain_network_t'], path['param_key_t'])
    lqs = [sample['lq'].to(device) for sample in single_images(build_dataset(opt, 'val'))]
    expected: list[torch.Tensor] = []
    rows = []
    for name, precision, memory_format in (
        ('fp32', torch.float32, torch.contiguous_format),
        ('fp32, channels last', torch.float32, torch.channels_last),
        ('bf16', torch.bfloat16, torch.contiguous_format),
        ('bf16, channels last', torch.bfloat16, torch.channels_last),
        ('fp16', torch.float16, torch.contiguous_format),
    ):
        frozen = FrozenTeacher(deepcopy(net).to(device).to(memory_format=memory_format), precision)
        inputs = [lq.contiguous(memory_format=memory_format) for lq in lqs]
        timed = device.type == 'cuda' or precision is not torch.float16  # which a CPU takes minutes for
        median = 1000 * median_seconds(partial(run_all, frozen, inputs), device)[0] if timed else None
        outputs = [frozen(lq).sr.double() for lq in inputs]
        expected = expected or outputs
        errors = [(sr - reference).square().mean() for sr, reference in zip(outputs, expected, strict=True)]
        psnrs = [-10 * error.log10().item() for error in errors if error > 0]
        rows.append([name, f'{median:.0f}' if median else '-', f'{statistics.mean(psnrs):.1f}' if psnrs else '-'])
    print(markdown_table(['arithmetic of the teacher', 'ms', "PSNR to fp32's output, dB"], rows))
    print(f'\n{args.opt}, {len(lqs)} images, {device_name(device)}. Rounding an image to 8 bits leaves 58.9 dB.')


def profile(work: Mapping[str, Callable[[int], None]], iteration: int, device: torch.device) -> None:
    """Print where a step's time goes, for each method."""
    for name, take in work.items():
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == 'cuda':
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as found:
            take(iteration)
        key = 'self_cuda_time_total' if device.type == 'cuda' else 'self_cpu_time_total'
        print(f'\n== {name}\n{found.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=45)}')


SIZES: dict[str, dict[int, list[str]]] = {
    'batch': {value: [f'datasets:train:batch_size_per_gpu={value}'] for value in (2, 4, 8, 16)},
    'patch': {value: [f'datasets:train:gt_size={2 * value}'] for value in (16, 24, 32, 48)},
    "teacher's width": {value: [f'network_t:num_feat={value}'] for value in (16, 32, 64, 128)},
    'positions K': {value: [f'train:mipkd_opt:positions={value}'] for value in (1, 2, 3, 4)},
    'world size': {1: [], 2: []},
}
"""What is varied about the demo's pair, one thing at a time; the rest is as in its option file.

The world size is that of processes with the same batch each: with a GPU each, or one thread of a CPU each."""


def sizes(args: argparse.Namespace) -> None:
    """Measure a step of KD and of MiPKD at several sizes, each in a process of its own, and what a plan expects."""
    found: list[dict[str, Any]] = []
    for what, values in SIZES.items():
        for value, force in values.items():
            environment, launcher = dict(os.environ), []
            if what == 'world size':
                if torch.cuda.is_available() and value > torch.cuda.device_count():
                    continue
                launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={value}']
                environment['OMP_NUM_THREADS'] = '1'
            for method in ('KD', 'MiPKD'):
                arguments = ['sizes-once', '--method', method, '-opt', args.opt, '--force', *force]
                command = [sys.executable, '-W', 'ignore', *launcher, __file__, *arguments]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
                found.append({'varied': what, 'value': value, 'method': method, **json.loads(done.stdout)})
    text = report_sizes(found)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'sizes.json').write_text(json.dumps(found, indent=1) + '\n')
        (args.out / 'sizes.md').write_text(f'{text}\n')
        sizes_figure(found, args.out / 'sizes')


def own_losses(opt: dict[str, Any], method: str) -> dict[str, Any]:
    """MiPKD's options as the option file has them, in place of its defaults."""
    return {'mipkd_opt': opt['train']['mipkd_opt']} if method == 'MiPKD' else {}


def report_sizes(found: Sequence[Mapping[str, Any]]) -> str:
    """The table of ``sizes``."""
    rows = []
    for entry in found:
        cells = [entry['varied'], str(entry['value']), entry['method']]
        rows.append([*cells, *(f'{entry[key]:.1f}' for key in ('ms', 'expected_ms', 'mib', 'expected_mib'))])
    table = markdown_table(['varied', 'value', 'method', 'ms a step', 'ms, planned', 'MiB', 'MiB, planned'], rows)
    lines = [f'{found[0]["gflops"]:,.0f} GFLOP/s and {found[0]["gb_s"]:,.1f} GB/s in the first process.']
    for key, what in (('ms', 'time'), ('mib', 'memory')):
        ratios = [entry[f'expected_{key}'] / entry[key] for entry in found]
        spread = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
        lines.append(f'Planned {what} by measured: {spread}, the median and the range.')
    return f'{table}\n\n{" ".join(lines)}'


def sizes_once(args: argparse.Namespace) -> None:
    """One measurement of ``sizes``, and the plan for it at the speed of this process, as JSON."""
    opt, device = run_options(args), this_device()
    speed, own = device_speed(device), own_losses(opt, args.method)
    expected = plan_step(opt, args.method, *speed, steps=args.repeats, **own)
    if 'RANK' in os.environ:
        distributed.start('pytorch', opt)
    model, batch = model_for(opt, args.method, **own), batch_for(opt, device)
    first = first_step(opt)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()  # of what measuring the device's speed took
    steps = range(first, first + args.repeats + 2)
    seconds = [seconds_of(partial(take_step, model, batch, number), device) for number in steps]
    if device.type == 'cuda':
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = max(measure_memory(model, batch, first + number).peak for number in range(args.repeats))
    found = {'ms': 1000 * statistics.mean(seconds[2:]), 'mib': memory / 2**20}
    found |= {'expected_ms': 1000 * expected.seconds, 'expected_mib': expected.memory / 2**20}
    found |= {'gflops': speed[0] / 1e9, 'gb_s': speed[1] / 1e9}
    if opt.get('rank', 0) == 0:
        print(json.dumps(found))
    distributed.stop()


def device_speed(device: torch.device) -> tuple[float, float]:
    """The operations a second of a large matrix product, and the bytes a second of copying a large tensor."""
    size = 8192 if device.type == 'cuda' else 2048
    matrix = torch.rand(size, size, device=device)
    large = torch.rand(2**26, device=device)
    multiply, _ = median_seconds(lambda: matrix @ matrix, device)
    copy, _ = median_seconds(large.clone, device)
    return 2 * size**3 / multiply, 2 * large.nbytes / copy


def plan(args: argparse.Namespace) -> None:
    """Say what hours and memory a recipe is expected to take on a kind of GPU, for KD, DUKD and MiPKD."""
    opt = run_options(args)
    flops, bandwidth, memory = GPUS[args.gpu] if args.gpu else (1e12 * args.tflops, 1e9 * args.bandwidth, 0)
    total, rows = opt['train']['total_iter'], []
    for method in ('scratch', 'KD', 'DUKD', 'MiPKD', 'MiPKD + DUKD'):
        try:
            expected = plan_step(opt, method, flops, bandwidth, utilisation=args.utilisation)
        except OptionError as error:
            print(f'{method} is left out: {error.message}')
            continue
        cells = [method, f'{expected.seconds:.3f}', f'{total * expected.seconds / 3600:,.1f}']
        rows.append([*cells, f'{expected.memory / 2**30:.1f}'])
    print(markdown_table(['method', 's a step', 'hours', 'GiB a GPU'], rows))
    batch, patch = opt['datasets']['train']['batch_size_per_gpu'], lq_patch_size(opt)
    where = args.gpu or f'{args.tflops} TFLOP/s, {args.bandwidth} GB/s'
    print(
        f'\n{total:,} steps of {batch} patches of {patch} x {patch} on each of {args.gpus} x {where}'
        f'{f" ({memory} GB)" if memory else ""}, {args.utilisation:.0%} of its roofline in fp32; '
        f'{args.gpus * batch} patches a step in all. The gradients of the student, {args.gpus} x, are sent meanwhile.'
    )


GPUS = {
    'V100': (15.7e12, 900e9, 32),
    'A100': (19.5e12, 1555e9, 40),
    'A100-TF32': (156e12, 1555e9, 40),
    'H100': (67e12, 3350e9, 80),
    'H200': (67e12, 4800e9, 141),
    'RTX4090': (82.6e12, 1008e9, 24),
}
"""Operations a second in single precision, bytes a second of the memory, and GB of it, from the makers' data sheets."""


def fakd_once(args: argparse.Namespace) -> None:
    """One measurement of ``fakd``; prints MiB."""
    feature_s = torch.randn(1, 64, args.size, args.size, requires_grad=True)
    feature_t = torch.randn(1, 64, args.size, args.size)
    torch.randn(64, 64, requires_grad=True).square().sum().backward()  # what autograd itself needs is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    distance = affinity_distance if args.way == 'pieces' else whole_affinity_distance
    distance(feature_s, feature_t).backward()
    print(f'{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:,.0f}')


def main(argv: Sequence[str] | None = None) -> None:
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
    command = commands.add_parser('step')
    command.add_argument('-opt', default='options/train/demo/mipkd.yml', help='training options, for pair and patches')
    command.add_argument('--force', nargs='+', default=[], metavar='KEY=VALUE', help="as train.py's --force_yml")
    command.add_argument('--methods', nargs='+', choices=list(METHODS), help='default: all; KD is always needed')
    command.add_argument('--batch', type=int, help='patches a step')
    command.add_argument('--patch', type=int, help='side of the LR patches')
    command.add_argument('--repeats', type=int, default=30, help='steps of each method')
    command.add_argument('--profile', action='store_true', help="also where a step's time goes")
    command.add_argument('--json', type=Path, help='also write the figures to this file')
    command.set_defaults(run=step)
    command = commands.add_parser('teacher')
    command.add_argument('-opt', default='options/train/demo/mipkd.yml', help='training options: teacher, images')
    command.add_argument('--force', nargs='+', default=[], metavar='KEY=VALUE', help="as train.py's --force_yml")
    command.set_defaults(run=teacher)
    command = commands.add_parser('sizes')
    command.add_argument('-opt', default='options/train/demo/mipkd.yml', help='training options')
    command.add_argument('--out', type=Path, help='folder for the table, the figures and the raw numbers')
    command.set_defaults(run=sizes)
    command = commands.add_parser('sizes-once')
    command.add_argument('-opt')
    command.add_argument('--method')
    command.add_argument('--force', nargs='*', default=[])
    command.add_argument('--repeats', type=int, default=16)
    command.set_defaults(run=sizes_once, batch=None, patch=None)
    command = commands.add_parser('plan')
    command.add_argument('-opt', required=True, help='training options: the recipe')
    command.add_argument('--force', nargs='+', default=[], metavar='KEY=VALUE', help="as train.py's --force_yml")
    command.add_argument('--batch', type=int, help='patches a step and GPU')
    command.add_argument('--patch', type=int, help='side of the LR patches')
    command.add_argument('--gpu', choices=list(GPUS), help='a kind of GPU; or give --tflops and --bandwidth')
    command.add_argument('--tflops', type=float, default=10.0, help='10^12 operations a second')
    command.add_argument('--bandwidth', type=float, default=500.0, help='GB a second')
    command.add_argument('--gpus', type=int, default=1, help='how many')
    command.add_argument('--utilisation', type=float, default=0.5, help='part of the roofline that is reached')
    command.set_defaults(run=plan)
    command = commands.add_parser('fakd-once')
    command.add_argument('way', choices=['pieces', 'whole'])
    command.add_argument('size', type=int)
    command.set_defaults(run=fakd_once)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == '__main__':
    main()
