"""Milliseconds, peak memory and size of a student's files in every runtime that is installed, beside bicubic.

mipkd benchmark device --scale 2
mipkd benchmark device --scale 2 --size 360x640 --threads 2 --json device.json --figure device.png \\
    --also student_x2_int8.onnx student_x2_int8.tflite --psnr fp32=37.09 int8=37.03

Each file is opened and run in a process of its own. The figure is PSNR, as `mipkd test` gives it, against milliseconds.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from mipkd_sr.commands.benchmark.own_process import measure_apart
from mipkd_sr.commands.command_line import add_student_arguments, at_least, student_of
from mipkd_sr.commands.export import image_size
from mipkd_sr.runtime.errors import OptionError, RunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the measurement takes."""
    add_student_arguments(parser)
    parser.add_argument('--size', type=image_size, default=(360, 640), metavar='HxW', help='LR frame; default: 360x640')
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads; default: 1')
    parser.add_argument('--repeats', type=at_least(2), default=9, help='frames to take the median of; default: 9')
    parser.add_argument('--fp16', action='store_true', help='files of half precision')
    parser.add_argument('--also', nargs='+', default=[], type=Path, metavar='FILE', help='exported files, as of 8 bits')
    parser.add_argument('--psnr', nargs='+', default=[], metavar='NAME=DB', help='fp32=, int8=, bicubic=; for --figure')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    parser.add_argument('--figure', type=Path, help='also draw PSNR against milliseconds')


def run(args: argparse.Namespace) -> None:
    """Export, and run each file in a process of its own; lines are printed as there are any."""
    import torch

    from mipkd_sr.archs.bicubic_arch import Bicubic
    from mipkd_sr.deploy.export import FORMATS, export, fused
    from mipkd_sr.deploy.shapes import limits_of

    psnr = _numbers(args.psnr)
    net = fused(student_of(args))
    scale, precision = limits_of(net).scale, 'fp16' if args.fp16 else 'fp32'
    common = [
        '--size',
        f'{args.size[0]}x{args.size[1]}',
        '--threads',
        str(args.threads),
        '--repeats',
        str(args.repeats),
    ]
    found: list[dict[str, Any]] = []
    print(f'| runtime | precision | ms a frame of {args.size[0]} x {args.size[1]} | peak memory, MiB | file, kB |')
    print('|---|---|--:|--:|--:|', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work: list[tuple[str, str, Path]] = []
        for name, module in (('bicubic', Bicubic(scale)), ('PyTorch', net)):
            torch.save(module, Path(folder, f'{name}.whole'))
            work.append((name, 'fp32', Path(folder, f'{name}.whole')))
        for name, form in FORMATS.items():
            if form.run:
                try:
                    list(export(net, Path(folder, 'net'), [name], args.size, args.fp16))
                except (OptionError, RunError) as error:
                    print(f'| {name} | {precision} | {error} | - | - |', flush=True)
                    continue
                work.append((name, precision, Path(folder, f'net{form.ending}')))
        work += [(file.suffix.lstrip('.'), 'int8' if 'int8' in file.name else '', file) for file in args.also]
        for name, kind, file in work:
            text, failure = measure_apart(['device-once', str(file), *common])
            ms, memory = json.loads(text) if text else (failure, '-')
            size = sum(part.stat().st_size for part in {file, file.with_suffix('.bin')} if part.exists()) / 1000
            found.append({'runtime': name, 'precision': kind, 'ms': ms, 'peak_memory_mib': memory, 'file_kb': size})
            print(
                f'| {name} | {kind} | {ms} | {memory} | {"-" if file.suffix == ".whole" else f"{size:.0f}"} |',
                flush=True,
            )
    print(f'\nx{scale}, {args.threads} thread(s), the median of {args.repeats} frames; memory is of the whole process.')
    if args.json:
        args.json.write_text(json.dumps({'size': args.size, 'threads': args.threads, 'rows': found}, indent=1) + '\n')
    if args.figure:
        _draw(found, psnr, args.figure)


def _numbers(texts: list[str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, _, value in (text.partition('=') for text in texts)}
    except ValueError:
        raise OptionError('--psnr', f'{" ".join(texts)}: give names and numbers, fp32=37.09 int8=37.03.') from None


def _draw(found: list[dict[str, Any]], psnr: dict[str, float], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for row in found:
        value = psnr.get('bicubic' if row['runtime'] == 'bicubic' else row['precision'])
        if value is not None and isinstance(row['ms'], float):
            axes.plot(row['ms'], value, 'o', color='tab:blue')
            axes.annotate(f'{row["runtime"]} {row["precision"]}', (row['ms'], value), fontsize=8, rotation=20)
    axes.set(xlabel='ms a frame', ylabel='PSNR, dB', xscale='log')
    figure.savefig(file)


def add_arguments_of_once(parser: argparse.ArgumentParser) -> None:
    """What one measurement takes."""
    parser.add_argument('file', type=Path)
    parser.add_argument('--size', type=image_size, required=True)
    parser.add_argument('--threads', type=int, required=True)
    parser.add_argument('--repeats', type=int, required=True)


def run_once(args: argparse.Namespace) -> None:
    """One measurement; prints milliseconds and MiB, as JSON."""
    import statistics

    import torch

    from mipkd_sr.archs.exported_arch import Exported
    from mipkd_sr.evaluation.complexity import seconds_of

    torch.set_num_threads(args.threads)
    whole = args.file.suffix == '.whole'  # written by this command itself, for this process
    net = torch.load(args.file, weights_only=False) if whole else Exported(str(args.file), threads=args.threads)
    lq = torch.rand(1, 3, *args.size)
    with torch.no_grad():
        seconds = [seconds_of(lambda: net(lq), torch.device('cpu')) for _ in range(args.repeats + 2)][2:]
    status = Path('/proc/self/status')  # what getrusage says is its parent's, too
    lines = status.read_text().splitlines() if status.exists() else []
    memory = next((int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')), None)
    print(json.dumps([round(1000 * statistics.median(seconds), 1), memory]))
