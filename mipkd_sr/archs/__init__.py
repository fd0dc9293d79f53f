"""Networks as head, body and tail. ``build_network`` is the one way the package makes a network from options."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from mipkd_sr.archs import (
    bicubic_arch,
    bsrn_arch,
    edsr_arch,
    exported_arch,
    quantized_arch,
    rcan_arch,
    reparam_arch,
    span_arch,
    spandrel_arch,
    swinir_arch,
)
from mipkd_sr.archs.probing import feature_shapes
from mipkd_sr.archs.staged import StagedNetwork, is_staged, run_with_features
from mipkd_sr.archs.staged_check import check_output, check_staged

__all__ = [
    'STAGED',
    'StagedNetwork',
    'bicubic_arch',
    'bsrn_arch',
    'build_network',
    'check_output',
    'check_staged',
    'edsr_arch',
    'exported_arch',
    'feature_shapes',
    'is_staged',
    'network_class',
    'quantized_arch',
    'rcan_arch',
    'reparam_arch',
    'run_with_features',
    'span_arch',
    'spandrel_arch',
    'swinir_arch',
]

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
