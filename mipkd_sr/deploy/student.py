"""Loading a trained student."""

import os

from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.archs.weights import load_weights
from mipkd_sr.options.reading import read_options
from mipkd_sr.runtime.errors import OptionError, sentence


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
    opt = read_options(option_file).data
    try:
        net = build_network(opt['network_g'])
        load_weights(net, weights, 'params_ema')
    except KeyError as error:
        raise OptionError(
            'network_g',
            f'is missing in {option_file}, or there is no {error}; give another -opt, or add import: [your_package].',
        ) from None
    except (ValueError, TypeError, AssertionError) as error:
        raise OptionError('network_g', sentence(error)) from None
    return net.eval()
