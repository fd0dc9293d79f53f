"""Export a trained student: to ONNX, safetensors or BasicSR's .pth, by the ending of --out.

    python scripts/export.py -opt experiments/demo_mipkd/mipkd.yml \\
        --weights experiments/demo_mipkd/models/net_g_best.pth --out student.onnx

ONNX and safetensors need `pip install 'mipkd_sr[export]'`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import mipkd_sr  # noqa: F401  (repairs BasicSR before anything needs it)
from mipkd_sr.deploy.export import export
from mipkd_sr.deploy.student import load_student
from mipkd_sr.runtime.errors import OptionError, RunError


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', required=True, help='option file that has the student as network_g')
    parser.add_argument('--weights', required=True, help="the student's checkpoint; EDSR's and RCAN's own ones, too")
    parser.add_argument('--out', type=Path, required=True, help='file to write: .onnx, .safetensors or .pth')
    parser.add_argument('--size', type=int, default=64, help="side of SwinIR's input in ONNX, where it is fixed")
    args = parser.parse_args(argv)
    try:
        print(export(load_student(args.opt, args.weights), args.out, args.size))
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; pip install 'mipkd_sr[export]'")
    except (OptionError, RunError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
