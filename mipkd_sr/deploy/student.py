"""Loading a trained student: one of your own, or one that comes with the package."""

import os

from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import fuse, load_weights
from mipkd_sr.options.checking import check_network
from mipkd_sr.options.reading import Options, force_options, read_options
from mipkd_sr.options.recipes import SHIPPED_NETWORKS, STUDENT_RECIPE, require_recipe
from mipkd_sr.runtime.errors import OptionError, blamed_on


def load_student(option_file: str | os.PathLike[str], weights: str | os.PathLike[str]) -> nn.Module:
    """The student (``network_g``) of an option file, with its weights: the moving average where the file has it.

    Args:
        option_file: An option file; that of a run is kept in its experiment's folder.
        weights: The student's checkpoint.

    Returns:
        The network, on the CPU, in evaluation mode; convolutions that train as several are the one that they run as.

    Raises:
        OptionError: If the option file has no such network, or the checkpoint is not its.
    """
    return _load(read_options(option_file), weights)


def shipped_student(scale: int) -> nn.Module:
    """The student for ``scale`` that comes with the package; experiments/pretrained_models/README.md is its card.

    Args:
        scale: 2, 3 or 4.

    Returns:
        The network, on the CPU, in evaluation mode.
    """
    options = read_options(require_recipe(STUDENT_RECIPE))
    force_options(options, [f'scale={scale}'])
    return _load(options, SHIPPED_NETWORKS / f'student_x{scale}.pth')


def _load(options: Options, weights: str | os.PathLike[str]) -> nn.Module:
    with options.explaining():
        check_network(options.data.get('network_g'), 'network_g')
        with blamed_on('network_g'):
            net = build_network(options.data['network_g'])
    try:
        load_weights(net, weights, 'params_ema')
    except ValueError as error:
        raise OptionError('--weights', f'{error}; give the file of the student of {options.file}.') from None
    return fuse(net.eval())
