"""Export a trained student: to ONNX, safetensors or BasicSR's .pth, by the ending of --out.

mipkd export -opt experiments/demo_mipkd/mipkd.yml --weights experiments/demo_mipkd/models/net_g_best.pth \\
    --out student.onnx
mipkd export --scale 4 --out student_x4.onnx    # a student that comes with the package

ONNX and safetensors need `pip install 'mipkd_sr[export]'`.
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_student_arguments, student_of
from mipkd_sr.runtime.errors import RunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_student_arguments(parser)
    parser.add_argument('--out', type=Path, required=True, help='file to write: .onnx, .safetensors or .pth')
    parser.add_argument(
        '--layout',
        choices=('basicsr', 'authors', 'spandrel'),
        default='basicsr',
        help="names of the weights in .safetensors and .pth: BasicSR's, the network's authors', or what spandrel reads",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mipkd_sr.deploy.export import export

    try:
        print(export(student_of(args), args.out, args.layout))
    except ModuleNotFoundError as error:
        raise RunError(f"{error.name} is not installed; pip install 'mipkd_sr[export]'.") from None
    return 0
