"""Loading a trained student."""

import os

from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.options.checking import check_network
from mipkd_sr.options.reading import read_options
from mipkd_sr.runtime.errors import OptionError, blamed_on


def load_student(option_file: str | os.PathLike[str], weights: str | os.PathLike[str]) -> nn.Module:
    """The student (``network_g``) of an option file, with its weights: the moving average where the file has it.

    Args:
        option_file: An option file; that of a run is kept in its experiment's folder.
        weights: The student's checkpoint.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        OptionError: If the option file has no such network, or the checkpoint is not its.
    """
    options = read_options(option_file)
    with options.explaining():
        check_network(options.data.get('network_g'), 'network_g')
        with blamed_on('network_g'):
            net = build_network(options.data['network_g'])
    try:
        load_weights(net, weights, 'params_ema')
    except ValueError as error:
        raise OptionError('--weights', f'{error}; give the file of the student of {options.file}.') from None
    return net.eval()
