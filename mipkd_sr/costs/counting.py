"""The multiply-adds of a training step."""

from collections.abc import Mapping

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mipkd_sr.costs.methods import floor_of_kd, take_step, uncompiled
from mipkd_sr.distill.block_prior_mixer import BlockPriorMixer
from mipkd_sr.models.distill_model import DistillModel


def count_needed(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> int:
    """Multiply-adds of a step, but for what MiPKD computes again to save memory; the step is taken."""
    mixers = [module for module in model.step.modules() if isinstance(module, BlockPriorMixer)]
    parts = [mixer.teacher_parts for mixer in mixers]
    for mixer in mixers:
        mixer.teacher_parts = 0
    try:
        with uncompiled(model), FlopCounterMode(display=False) as flops:
            take_step(model, batch, iteration)
        return flops.get_total_flops() // 2
    finally:
        for mixer, before in zip(mixers, parts, strict=True):
            mixer.teacher_parts = before


def count_floor(model: DistillModel, batch: Mapping[str, Tensor]) -> int:
    """Multiply-adds of ``floor_of_kd``."""
    with FlopCounterMode(display=False) as flops:
        floor_of_kd(model, batch)(1)
    return flops.get_total_flops() // 2
