"""LPIPS and DISTS, by piq: how different two images look to a network that was trained to recognise things.

Papers: LPIPS, https://arxiv.org/abs/1801.03924; DISTS, https://arxiv.org/abs/2004.07728. Lower is better: give
``better: lower`` beside the type. Both need ``pip install mipkd_sr[metrics]``, and download their weights once.
"""

from functools import lru_cache
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor, nn


@METRIC_REGISTRY.register()
def calculate_lpips(img: np.ndarray, img2: np.ndarray, crop_border: int = 0) -> float:
    """LPIPS of two images, H x W x 3, BGR, 8 bits each, without ``crop_border`` pixels at each edge; 0 is best."""
    return _measured('LPIPS', img, img2, crop_border)


@METRIC_REGISTRY.register()
def calculate_dists(img: np.ndarray, img2: np.ndarray, crop_border: int = 0) -> float:
    """DISTS of two images, as ``calculate_lpips``."""
    return _measured('DISTS', img, img2, crop_border)


@torch.no_grad()
def _measured(name: str, img: np.ndarray, img2: np.ndarray, crop_border: int) -> float:
    return float(_network(name)(_inside(img, crop_border), _inside(img2, crop_border)))


def _inside(image: np.ndarray, border: int) -> Tensor:
    """1 x 3 x h x w, RGB, values in [0, 1]."""
    height, width = image.shape[:2]
    inside = image[border : height - border, border : width - border, ::-1]
    return torch.from_numpy(inside.copy()).permute(2, 0, 1)[None].float() / 255


@lru_cache
def _network(name: str) -> nn.Module:
    try:
        import piq  # an optional dependency: mipkd_sr[metrics]
    except ImportError:
        raise ValueError(f'{name} needs piq: pip install mipkd_sr[metrics].') from None
    try:
        network: Any = getattr(piq, name)()
    except (URLError, OSError, RuntimeError) as error:
        folder = torch.hub.get_dir()
        raise ValueError(
            f"{name}'s weights cannot be downloaded ({error}); measure once where there is a "
            f'network, and copy {folder}/checkpoints from there.'
        ) from None
    return network.eval()
