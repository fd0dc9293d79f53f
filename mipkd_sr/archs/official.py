"""The checkpoints that the authors of EDSR, RCAN and SwinIR distribute, under BasicSR's names.

EDSR's and RCAN's PyTorch programs (sanghyun-son/EDSR-PyTorch, yulunzhang/RCAN) name the same layers differently; the
tables below say how. Their mean-shift layers (``sub_mean``, ``add_mean``) have no weights in BasicSR's networks, which
do the same arithmetic, with the same mean, on images in [0, 1]. SwinIR's authors use BasicSR's names, under ``params``.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

EDSR = (
    (r'head\.0\.', 'conv_first.'),
    (r'body\.(\d+)\.body\.0\.', r'body.\1.conv1.'),
    (r'body\.(\d+)\.body\.2\.', r'body.\1.conv2.'),
    (r'body\.\d+\.(?=weight|bias)', 'conv_after_body.'),
    (r'tail\.0\.(\d+)\.', r'upsample.\1.'),
    (r'tail\.1\.', 'conv_last.'),
)
RCAN = (
    (r'head\.0\.', 'conv_first.'),
    (r'body\.(\d+)\.body\.(\d+)\.body\.([02])\.', r'body.\1.residual_group.\2.rcab.\3.'),
    (r'body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0\.', r'body.\1.residual_group.\2.rcab.3.attention.1.'),
    (r'body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2\.', r'body.\1.residual_group.\2.rcab.3.attention.3.'),
    (r'body\.(\d+)\.body\.\d+\.(?=weight|bias)', r'body.\1.conv.'),
    (r'body\.\d+\.(?=weight|bias)', 'conv_after_body.'),
    (r'tail\.0\.(\d+)\.', r'upsample.\1.'),
    (r'tail\.1\.', 'conv_last.'),
)
"""Beginnings of the official names (regular expressions), and what they become; the first that fits is taken."""

EDSR_BACK = (
    (r'conv_first\.', 'head.0.'),
    (r'body\.(\d+)\.conv1\.', r'body.\1.body.0.'),
    (r'body\.(\d+)\.conv2\.', r'body.\1.body.2.'),
    (r'conv_after_body\.', 'body.{units}.'),
    (r'upsample\.(\d+)\.', r'tail.0.\1.'),
    (r'conv_last\.', 'tail.1.'),
)
RCAN_BACK = (
    (r'conv_first\.', 'head.0.'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.([02])\.', r'body.\1.body.\2.body.\3.'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.1\.', r'body.\1.body.\2.body.3.conv_du.0.'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.3\.', r'body.\1.body.\2.body.3.conv_du.2.'),
    (r'body\.(\d+)\.conv\.', r'body.\1.body.{blocks}.'),
    (r'conv_after_body\.', 'body.{units}.'),
    (r'upsample\.(\d+)\.', r'tail.0.\1.'),
    (r'conv_last\.', 'tail.1.'),
)
"""The same the other way; ``{units}`` and ``{blocks}`` are the number of units, and of blocks in a unit."""

MEAN_SHIFTS = ('sub_mean.', 'add_mean.')
DERIVED = ('attn_mask', 'relative_position_index')
"""Endings of SwinIR's buffers that follow from its options, and are of another size for another ``img_size``."""


def to_basicsr(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under BasicSR's names; those that are not in an official layout of EDSR or RCAN stay as they are."""
    if 'head.0.weight' not in weights or 'tail.1.weight' not in weights:
        return dict(weights)
    table = RCAN if 'body.0.body.0.body.0.weight' in weights else EDSR
    return {_renamed(name, table): value for name, value in weights.items() if not name.startswith(MEAN_SHIFTS)}


def to_official(weights: Mapping[str, Tensor], mean: Tensor) -> dict[str, Tensor]:
    """BasicSR's weights of EDSR or RCAN in their authors' layout, with its mean-shift layers, for images in [0, 255].

    Args:
        weights: The weights under BasicSR's names.
        mean: Mean of the training images, three values in [0, 1].
    """
    table = RCAN_BACK if any('.residual_group.' in name for name in weights) else EDSR_BACK
    counts = {
        'units': 1 + max(int(name.split('.')[1]) for name in weights if name.startswith('body.')),
        'blocks': 1 + max((int(name.split('.')[3]) for name in weights if '.residual_group.' in name), default=0),
    }
    found = {_renamed(name, table).format(**counts): value for name, value in weights.items()}
    for layer, sign in zip(MEAN_SHIFTS, (-1, 1), strict=True):
        found[f'{layer}weight'] = torch.eye(3).view(3, 3, 1, 1)
        found[f'{layer}bias'] = sign * 255 * mean.flatten()
    return found


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in table:
        renamed, count = re.subn(f'^{pattern}', new, name)
        if count:
            return renamed
    return name
