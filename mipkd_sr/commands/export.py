"""Export a trained student: to the format that --out's ending names, or to several by --to.

mipkd export --run demo_mipkd --out student.onnx    # the student of a run of yours
mipkd export --scale 4 --out student_x4.onnx    # a student that comes with the package
mipkd export --scale 2 --to onnx openvino ncnn litert coreml safetensors --size 360x640 --out phone/student_x2

Each file is run by its runtime on a photograph, and stays if it computes what PyTorch does. ONNX and safetensors need
`pip install 'mipkd_sr[export]'`, the others `pip install 'mipkd_sr[device]'`.
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_student_arguments, student_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_student_arguments(parser)
    parser.add_argument('--out', type=Path, required=True, help='file to write; with --to its name without ending')
    parser.add_argument(
        '--to',
        nargs='+',
        default=[],
        metavar='FORMAT',
        help='onnx, openvino, ncnn, litert, coreml, safetensors, pth: one or several',
    )
    parser.add_argument(
        '--size', type=image_size, metavar='HxW', help='for LR images of one size alone, 360x640; default: any size'
    )
    parser.add_argument('--fp16', action='store_true', help='half precision')
    parser.add_argument(
        '--layout',
        choices=('basicsr', 'authors', 'spandrel'),
        default='basicsr',
        help="names of the weights in .safetensors and .pth: BasicSR's, the network's authors', or what spandrel reads",
    )


def image_size(text: str) -> tuple[int, int]:
    """The type of an argument that is a size, height first: ``360x640``."""
    height, _, width = text.partition('x')
    try:
        size = int(height), int(width)
    except ValueError:
        size = 0, 0
    if not all(0 < side < 2**15 for side in size):
        raise argparse.ArgumentTypeError(f"'{text}' is no size; give height and width, 360x640")
    return size


def run(args: argparse.Namespace) -> int:
    from mipkd_sr.deploy.exporting import export

    for line in export(student_of(args), args.out, args.to, args.size, args.fp16, args.layout):
        print(line, flush=True)
    return 0
