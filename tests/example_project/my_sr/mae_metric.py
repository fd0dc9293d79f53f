"""A metric: the mean absolute difference of two images, in grey levels."""

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY


@METRIC_REGISTRY.register()
def calculate_mae(img, img2, crop_border: int = 0):
    """H x W x 3, BGR, 8 bits, each; BasicSR's names of the two arguments."""
    height, width = img.shape[:2]
    inside = np.s_[crop_border : height - crop_border, crop_border : width - crop_border]
    return float(np.abs(img[inside].astype(float) - img2[inside]).mean())
