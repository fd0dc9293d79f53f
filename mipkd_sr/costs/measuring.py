"""The device that commands run on, and what it is called."""

import torch


def this_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_name(device: torch.device) -> str:
    """What a device is called in a table."""
    return torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {torch.get_num_threads()} thread(s)'
