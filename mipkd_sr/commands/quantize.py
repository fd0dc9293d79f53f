"""Make a student's arithmetic one of 8 bits, and write it as ONNX and LiteRT files, or as what training begins with.

mipkd quantize --scale 2 --images photos --out student_x2_int8.onnx student_x2_int8.tflite --size 360x640
mipkd quantize --scale 2 --images photos --out student_x2_int8.pth    # then train: docs/on_a_device.md

The images, 16 to 64 of the student's later inputs (small ones, not their enlargements), show what range each operator
gives; a student that was trained at 8 bits knows its ranges. Needs `pip install 'mipkd_sr[device]'`.
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_student_arguments, at_least, student_of
from mipkd_sr.commands.export import image_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_student_arguments(parser)
    parser.add_argument('--out', type=Path, nargs='+', required=True, help='files to write: .onnx, .tflite, .pth')
    parser.add_argument('--images', type=Path, nargs='+', default=[], help='images to calibrate by, or folders of them')
    parser.add_argument('--most', type=at_least(1), default=32, help='how many of them are taken; default: 32')
    parser.add_argument('--size', type=image_size, metavar='HxW', help='for LR images of one size alone, 360x640')


def run(args: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from mipkd_sr.data.images import SUFFIXES, read_image
    from mipkd_sr.deploy.quantising import quantize
    from mipkd_sr.runtime.errors import OptionError

    images: list[torch.Tensor] = []
    for path in args.images:
        if not path.exists():
            raise OptionError('--images', f'there is no {path}; give images, or folders of them.')
        files = sorted(path.rglob('*')) if path.is_dir() else [path]
        for file in [file for file in files if file.suffix.lower() in SUFFIXES][: args.most - len(images)]:
            try:
                image = read_image(file)
            except ValueError as error:
                raise OptionError('--images', f'{error}.') from None
            if min(image.shape[:2]) < 32:
                raise OptionError('--images', f'{file} is no image of at least 32 x 32 pixels; take it out.')
            planes = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
            images.append(torch.from_numpy(planes)[None] / 255)
    for line in quantize(student_of(args), images, args.out, args.size):
        print(line, flush=True)
    return 0
