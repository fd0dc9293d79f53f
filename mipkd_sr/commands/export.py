"""Export a trained student: to ONNX, safetensors or BasicSR's .pth, by the ending of --out.

mipkd export -opt experiments/demo_mipkd/mipkd.yml --weights experiments/demo_mipkd/models/net_g_best.pth \\
    --out student.onnx

ONNX and safetensors need `pip install 'mipkd_sr[export]'`.
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_import_argument
from mipkd_sr.runtime.errors import RunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file that has the student as network_g')
    parser.add_argument('--weights', required=True, help="the student's checkpoint; EDSR's and RCAN's own ones, too")
    parser.add_argument('--out', type=Path, required=True, help='file to write: .onnx, .safetensors or .pth')
    parser.add_argument(
        '--layout',
        choices=('basicsr', 'authors', 'spandrel'),
        default='basicsr',
        help="names of the weights in .safetensors and .pth: BasicSR's, the network's authors', or what spandrel reads",
    )
    add_import_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mipkd_sr.deploy.export import export
    from mipkd_sr.deploy.student import load_student

    try:
        print(export(load_student(args.opt, args.weights), args.out, args.layout))
    except ModuleNotFoundError as error:
        raise RunError(f"{error.name} is not installed; pip install 'mipkd_sr[export]'.") from None
    return 0
