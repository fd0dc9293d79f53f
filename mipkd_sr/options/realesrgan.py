"""Option files of BasicSR's RealESRNetModel and RealESRGANModel, whose degradation stands at the top level."""

import inspect
from typing import Any

from mipkd_sr.data.degradations import RealESRGANDegradation

SHARPENED = {'l1_gt_usm': 'pixel_opt', 'percep_gt_usm': 'perceptual_opt', 'gan_gt_usm': 'gan_opt'}
"""BasicSR's keys for what each term compares with; true where they are absent from a file that has one of them."""
NOT_NEEDED = ('queue_size', 'high_order_degradation')
"""Of the pool, see ``RealESRGANDegradation``; and whether to degrade at all."""


def adopt_realesrgan(opt: dict[str, Any]) -> None:
    """Bring the keys of these models to where they stand here, in place; other files are left alone.

    ``gt_usm`` (RealESRNet) sharpens HR before it is degraded, and what the student is compared with.
    """
    names = inspect.signature(RealESRGANDegradation).parameters
    found = {name: opt.pop(name) for name in names if name in opt}
    wanted = opt.get('high_order_degradation', True)
    for name in NOT_NEEDED if found or opt.get('model_type') in ('RealESRGANModel', 'RealESRNetModel') else ():
        opt.pop(name, None)
    if not found or 'degradation' in opt:
        opt.update(found)  # to be refused
        return
    whole, train = opt.pop('gt_usm', None), opt.get('train')
    if wanted:
        opt['degradation'] = {'type': 'RealESRGANDegradation', **found, 'sharpen': whole is not False}
    size, datasets = opt.pop('gt_size', None), opt.get('datasets')
    if isinstance(datasets, dict) and isinstance(datasets.get('train'), dict) and size is not None:
        datasets['train'].setdefault('gt_size', size)
    for key, term in SHARPENED.items():
        sharpen = opt.pop(key, whole is None or whole)
        if isinstance(train, dict) and isinstance(train.get(term), dict):
            train[term].setdefault('sharpen', sharpen)
