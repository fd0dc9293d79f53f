"""Networks as head, body and tail. ``build_network`` is the one way the package makes a network from options."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from mipkd_sr.archs import bicubic_arch as bicubic_arch  # `as`: others have them from here
from mipkd_sr.archs import bsrn_arch as bsrn_arch
from mipkd_sr.archs import edsr_arch as edsr_arch
from mipkd_sr.archs import exported_arch as exported_arch
from mipkd_sr.archs import quantized_arch as quantized_arch
from mipkd_sr.archs import rcan_arch as rcan_arch
from mipkd_sr.archs import reparam_arch as reparam_arch
from mipkd_sr.archs import span_arch as span_arch
from mipkd_sr.archs import spandrel_arch as spandrel_arch
from mipkd_sr.archs import swinir_arch as swinir_arch
from mipkd_sr.archs.probing import feature_shapes as feature_shapes
from mipkd_sr.archs.staged import StagedNetwork as StagedNetwork
from mipkd_sr.archs.staged import is_staged as is_staged
from mipkd_sr.archs.staged import run_with_features as run_with_features
from mipkd_sr.archs.staged_check import check_output as check_output
from mipkd_sr.archs.staged_check import check_staged as check_staged

STAGED = {'EDSR': 'StagedEDSR', 'RCAN': 'StagedRCAN', 'SwinIR': 'StagedSwinIR'}
"""BasicSR's networks, and the registered names under which they are here as head, body and tail."""


def network_class(name: str) -> type[nn.Module]:
    """The registered architecture ``name``; BasicSR's EDSR, RCAN and SwinIR come as head, body and tail.

    Raises:
        KeyError: If there is none.
    """
    name = STAGED.get(name, name)
    for known in (name, f'{name}_basicsr'):  # the suffix of projects that register a class of BasicSR's name
        if known in ARCH_REGISTRY:
            return ARCH_REGISTRY.get(known)
    raise KeyError(name)


def build_network(opt: Mapping[str, Any]) -> nn.Module:
    """Build a network from its options: ``type``, and what its class takes; an argument may be a network itself."""
    arguments: dict[str, Any] = {
        name: build_network(value) if isinstance(value, Mapping) and 'type' in value else value
        for name, value in opt.items()
    }
    return network_class(arguments.pop('type'))(**arguments)
