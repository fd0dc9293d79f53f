"""The repairs that BasicSR 1.4.2 needs on today's Python stack.

Whatever imports ``basicsr`` imports this module first, itself or by its folder's ``__init__.py``. Installed files are
not touched: what is missing is put into ``sys.modules``, and one method of BasicSR is replaced. A repair does nothing
where it is not needed: an older stack, or a repaired BasicSR, is left alone.
"""

import importlib
import importlib.util
import sys
import types

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.torch_version import TorchVersion


def _provide(name: str, **attributes: object) -> None:
    """Put a module called ``name`` that holds ``attributes`` where ``import`` finds it."""
    module = types.ModuleType(name, 'Provided by mipkd_sr.compat for BasicSR 1.4.2.')
    vars(module).update(attributes)
    sys.modules[name] = module
    parent_name, _, child_name = name.rpartition('.')
    if parent_name in sys.modules:
        setattr(sys.modules[parent_name], child_name, module)


def _is_missing(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:  # its parent is missing
        return True


def _repair_torchvision() -> None:
    """basicsr.data.degradations imports a private torchvision module that left in torchvision 0.17."""
    name = 'torchvision.transforms.functional_tensor'
    if _is_missing(name):
        functional = importlib.import_module('torchvision.transforms.functional')
        _provide(name, rgb_to_grayscale=functional.rgb_to_grayscale)


def _repair_distutils() -> None:
    """basicsr.archs.arch_util compares torchvision's version by distutils, which left Python's library in 3.12."""
    if _is_missing('distutils.version'):
        if _is_missing('distutils'):
            _provide('distutils')
        _provide('distutils.version', LooseVersion=TorchVersion)


def _repair_scipy() -> None:
    """basicsr.metrics.niqe imports scipy.ndimage.filters: deprecated, noisy, and gone in SciPy 2.0."""
    ndimage = importlib.import_module('scipy.ndimage')
    sys.modules.pop('scipy.ndimage.filters', None)
    _provide('scipy.ndimage.filters', convolve=ndimage.convolve)


def _repair_model_to_device() -> None:
    """BaseModel.model_to_device asks CUDA for its current device, which fails where there is none.

    BasicSR also turns to DataParallel when num_gpu > 1 without a launcher; that choice is refused when the options
    are checked, so it needs no branch here.
    """
    base_model = importlib.import_module('basicsr.models.base_model')

    def model_to_device(self, net: torch.nn.Module) -> torch.nn.Module:  # type: ignore[no-untyped-def]
        """Move ``net`` to the model's device and, in distributed training, wrap it in DistributedDataParallel."""
        net = net.to(self.device)
        if not self.opt['dist']:
            return net
        return DistributedDataParallel(
            net,
            device_ids=[torch.cuda.current_device()] if self.device.type == 'cuda' else None,
            find_unused_parameters=self.opt.get('find_unused_parameters', False),
        )

    base_model.BaseModel.model_to_device = model_to_device


def apply() -> None:
    """Repair what BasicSR needs before it can be imported, import it, and repair the rest."""
    _repair_torchvision()
    _repair_distutils()
    _repair_scipy()
    _repair_model_to_device()


apply()
