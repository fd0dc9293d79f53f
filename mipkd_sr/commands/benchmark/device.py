"""Milliseconds, peak memory and size of a student's files in every runtime that is installed, beside bicubic.

mipkd benchmark device --scale 2
mipkd benchmark device --scale 2 --size 360x640 --threads 2 --json device.json --figure device.png \\
    --also int8/x2.onnx int8/x2.tflite --psnr fp32=37.09 int8=37.03 bicubic=33.69

Each file is opened and run in a process of its own. Beside it, in PyTorch, are bicubic and networks of published shape.
These have weights of no use, so no PSNR. The figure is PSNR, as `mipkd test` gives it, against milliseconds.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipkd_sr.commands.benchmark.own_process import measure_apart
from mipkd_sr.commands.command_line import add_student_arguments, at_least, student_of
from mipkd_sr.commands.export import image_size
from mipkd_sr.runtime.errors import OptionError, RunError

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_student_arguments(parser)
    _add_frames(parser)
    parser.add_argument('--fp16', action='store_true', help='files of half precision')
    parser.add_argument('--also', nargs='+', default=[], type=Path, metavar='FILE', help='files in int8/ or fp16/')
    parser.add_argument('--psnr', nargs='+', default=[], metavar='NAME=DB', help='fp32=, int8=, bicubic=; for --figure')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    parser.add_argument('--figure', type=Path, help='also draw PSNR against milliseconds')


def _add_frames(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--size', type=image_size, default=(360, 640), metavar='HxW', help='LR frame; default: 360x640')
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads; default: 1')
    parser.add_argument('--repeats', type=at_least(2), default=9, help='frames to take the median of; default: 9')


def run(args: argparse.Namespace) -> None:
    """Export, and run each file in a process of its own; lines are printed as there are any."""
    import torch

    from mipkd_sr.archs.exported_arch import open_exported
    from mipkd_sr.deploy.exporting import FORMATS, export
    from mipkd_sr.deploy.shapes import channels_of, limits_of
    from mipkd_sr.evaluation.results import markdown_row

    psnr = _numbers(args.psnr)
    if args.figure and not psnr:
        raise OptionError('--psnr', 'is missing, without which --figure has nothing to draw; give fp32=37.09.')
    for option, out in (('--json', args.json), ('--figure', args.figure)):
        if out and not out.parent.is_dir():
            raise OptionError(option, f'there is no folder {out.parent} to write {out.name} to; make it.')
    if args.figure and args.figure.suffix not in ('.png', '.pdf', '.svg'):
        raise OptionError('--figure', f'{args.figure} ends in none of .png, .pdf, .svg; name it so.')
    for file in args.also:
        open_exported(file)
    net = student_of(args)
    scale, precision = limits_of(net).scale, 'fp16' if args.fp16 else 'fp32'
    size = f'{args.size[0]}x{args.size[1]}'
    found: list[dict[str, Any]] = []
    print(f'| runtime | precision | ms a frame of {size} | peak memory, MiB | file, kB |')
    print('|---|---|--:|--:|--:|', flush=True)

    def measure(name: str, kind: str, file: Path, channels: int = channels_of(net)) -> None:
        common = ['--size', size, '--threads', str(args.threads), '--repeats', str(args.repeats)]
        text, failure = measure_apart(['device-once', str(file), str(channels), *common])
        ms, memory = json.loads(text) if text else (None, None)
        parts = () if file.suffix == '.whole' else {file, file.with_suffix('.bin')}
        kb = round(sum(part.stat().st_size for part in parts if part.exists()) / 1000, 1)
        row = {'runtime': name, 'precision': kind, 'ms': ms, 'peak_memory_mib': memory, 'file_kb': kb or None}
        found.append(row | ({'failure': failure} if failure else {}))
        print(markdown_row((name, kind, failure or ms, memory or '-', kb or '-')), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for name, module in {**shapes(scale), 'PyTorch': net}.items():
            torch.save(module, Path(folder, f'{name}.whole'))
            measure(name, 'fp32', Path(folder, f'{name}.whole'), channels_of(module))
        for name, form in FORMATS.items():
            if form.run:
                try:
                    list(export(net, Path(folder, 'net'), [name], args.size, args.fp16))
                except (OptionError, RunError) as error:  # one that is not installed, or that cannot
                    print(markdown_row((name, precision, error, '-', '-')), flush=True)
                    continue
                measure(name, precision, Path(folder, f'net{form.ending}'))
        for file in args.also:
            runtime = next((name for name, form in FORMATS.items() if file.name.endswith(form.ending)), file.name)
            measure(runtime, next((kind for kind in ('int8', 'fp16') if kind in str(file)), ''), file)
    print(f'\nx{scale}, {args.threads} thread(s), the median of {args.repeats} frames; memory is of the whole process.')
    if args.json:
        args.json.write_text(json.dumps({'size': args.size, 'threads': args.threads, 'rows': found}, indent=1) + '\n')
    if args.figure:
        _draw(found, psnr, args.figure)


def shapes(scale: int) -> 'dict[str, nn.Module]':
    """Bicubic, and networks of RGB images of published shape, as they are on a device, their weights random.

    FSRCNN: https://arxiv.org/abs/1608.00367, d 56, s 12, m 4. SESR-M5: https://arxiv.org/abs/2103.09404, ECBSR-M4C16:
    https://doi.org/10.1145/3474085.3475291, their convolutions fused. All three were published for the Y channel.
    """
    from torch import nn

    from mipkd_sr.archs.bicubic_arch import Bicubic
    from mipkd_sr.archs.reparam_arch import ReparamSR

    layers: list[nn.Module] = []
    for wide, narrow, side in ((3, 56, 5), (56, 12, 1), *[(12, 12, 3)] * 4, (12, 56, 1)):
        layers += [nn.Conv2d(wide, narrow, side, padding=side // 2), nn.PReLU(narrow)]
    return {
        'bicubic': Bicubic(scale),
        'FSRCNN': nn.Sequential(*layers, nn.ConvTranspose2d(56, 3, 9, scale, 4, output_padding=scale - 1)),
        'ECBSR-M4C16': ReparamSR(num_block=4, upscale=scale, fused=True),
        'SESR-M5': ReparamSR(num_block=5, upscale=scale, end_kernel=5, long_skip=True, fused=True),
    }


def _numbers(texts: list[str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, _, value in (text.partition('=') for text in texts)}
    except ValueError:
        raise OptionError('--psnr', f'{" ".join(texts)}: give names and numbers, fp32=37.09 int8=37.03.') from None


def _draw(found: list[dict[str, Any]], psnr: dict[str, float], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout='constrained')
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for row in found:
        shape = row['file_kb'] is None and row['runtime'] not in ('bicubic', 'PyTorch')
        value = None if shape else psnr.get('bicubic' if row['runtime'] == 'bicubic' else row['precision'])
        if value is not None and row['ms'] is not None:
            colour = colours.setdefault(row['runtime'], f'C{len(colours)}')
            marker = {'fp16': 's', 'int8': '^'}.get(row['precision'], 'o')
            axes.plot(row['ms'], value, marker, color=colour, label=f'{row["runtime"]}, {row["precision"]}')
    axes.set(xlabel='ms a frame', ylabel='PSNR, dB', xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right upper', fontsize=8)
    figure.savefig(file)


def add_arguments_of_once(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('file', type=Path)
    parser.add_argument('channels', type=int)
    _add_frames(parser)


def run_once(args: argparse.Namespace) -> None:
    """One measurement; prints milliseconds and MiB, as JSON."""
    import statistics

    import torch

    from mipkd_sr.archs.exported_arch import Exported
    from mipkd_sr.evaluation.complexity import seconds_of

    torch.set_num_threads(args.threads)
    whole = args.file.suffix == '.whole'  # written by this command itself, for this process
    net = torch.load(args.file, weights_only=False) if whole else Exported(str(args.file), threads=args.threads)
    lq = torch.rand(1, args.channels, *args.size)
    with torch.no_grad():
        seconds = [seconds_of(lambda: net.eval()(lq), torch.device('cpu')) for _ in range(args.repeats + 2)][2:]
    status = Path('/proc/self/status')  # what getrusage says is its parent's, too
    lines = status.read_text().splitlines() if status.exists() else []
    memory = next((int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')), None)
    print(json.dumps([round(1000 * statistics.median(seconds), 1), memory]))
