"""The checkpoints that the authors of EDSR, RCAN and SwinIR distribute, under BasicSR's names.

EDSR's and RCAN's PyTorch programs (sanghyun-son/EDSR-PyTorch, yulunzhang/RCAN) name the same layers differently; the
tables below say how. Their mean-shift layers (``sub_mean``, ``add_mean``) have no weights in BasicSR's networks, which
do the same arithmetic, with the same mean, on images in [0, 1]. SwinIR's authors use BasicSR's names, under ``params``.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

EDSR = (
    ('head.0.', 'conv_first.'),
    ('body.#.body.0.', 'body.#.conv1.'),
    ('body.#.body.2.', 'body.#.conv2.'),
    ('body.units.', 'conv_after_body.'),
    ('tail.0.#.', 'upsample.#.'),
    ('tail.1.', 'conv_last.'),
)
RCAN = (
    ('head.0.', 'conv_first.'),
    ('body.#.body.#.body.3.conv_du.0.', 'body.#.residual_group.#.rcab.3.attention.1.'),
    ('body.#.body.#.body.3.conv_du.2.', 'body.#.residual_group.#.rcab.3.attention.3.'),
    ('body.#.body.#.body.#.', 'body.#.residual_group.#.rcab.#.'),
    ('body.#.body.blocks.', 'body.#.conv.'),
    ('body.units.', 'conv_after_body.'),
    ('tail.0.#.', 'upsample.#.'),
    ('tail.1.', 'conv_last.'),
)
"""Beginnings of the official names, and of BasicSR's; the first that fits is taken. ``#`` is a number, ``units`` and
``blocks`` are the number of units, and of blocks in a unit."""

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
    table = RCAN if any('.residual_group.' in name for name in weights) else EDSR
    units = 1 + max(int(name.split('.')[1]) for name in weights if name.startswith('body.'))
    blocks = 1 + max((int(name.split('.')[3]) for name in weights if '.residual_group.' in name), default=0)
    back = [(new, old) for old, new in table]
    found = {_renamed(name, back, str(units), str(blocks)): value for name, value in weights.items()}
    for layer, sign in zip(MEAN_SHIFTS, (-1, 1), strict=True):
        found[f'{layer}weight'] = torch.eye(3).view(3, 3, 1, 1)
        found[f'{layer}bias'] = sign * 255 * mean.flatten()
    return found


def _renamed(name: str, table: Iterable[tuple[str, str]], units: str = '', blocks: str = '') -> str:
    for old, new in table:
        pattern = re.escape(old).replace(r'\#', r'(\d+)')
        counted = re.sub('units|blocks', r'\\d+', pattern)
        if found := re.match(counted if counted == pattern else f'{counted}(?=weight|bias)', name):
            beginning = new.replace('#', '%s') % found.groups()
            beginning = beginning.replace('units', units).replace('blocks', blocks)
            return beginning + name[found.end() :]
    return name
