"""The methods whose cost is compared, and one training step of each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mipkd_sr.data import lq_patch_size
from mipkd_sr.models import build_model
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.runtime.ranks import rank_and_size

KD = {'kd_opt': {'type': 'LogitsKDLoss'}}
DCKD = {**KD, 'dcl_opt': {'type': 'DynamicContrastiveLoss'}, 'dm_opt': {'type': 'DistributionMappingLoss'}}
METHODS: dict[str, dict[str, Any]] = {
    'scratch': {},
    'KD': KD,
    'RKD': {'rkd_opt': {'type': 'RKDLoss'}},
    'AT': {'at_opt': {'type': 'ATLoss'}},
    'FitNet': {'fitnet_opt': {'type': 'FitNetLoss'}},
    'CrossKD': {'crosskd_opt': {'type': 'CrossKDLoss'}},
    'FAKD': {**KD, 'fakd_opt': {'type': 'FAKDLoss'}},
    'CSD': {'csd_opt': {'type': 'CSDLoss'}},
    'wavelet': {'wavelet_opt': {'type': 'WaveletLoss'}},
    'ECO': {'pixel_opt': None, 'eco_opt': {'type': 'ECOLoss'}},
    'DCKD': DCKD,
    'DUKD': {**KD, 'dukd_opt': {'type': 'DUKDLoss'}},
    'DCKD + DUKD': {**DCKD, 'dukd_opt': {'type': 'DUKDLoss'}},
    'MiPKD': {**KD, 'mipkd_opt': {'type': 'MiPKDLoss'}},
    'MiPKD + DUKD': {**KD, 'mipkd_opt': {'type': 'MiPKDLoss'}, 'dukd_opt': {'type': 'DUKDLoss'}},
}
"""The methods that are compared, by the losses that they add to the pixel loss; all with their defaults."""


def model_for(opt: TrainingOptions, method: str, **changes: Any) -> DistillModel:
    """The model of a method, for the networks, scale, patches and optimizer of a training run, with random weights.

    ``opt`` is as ``load_options`` completes it, of a run under a teacher; ``changes`` are further entries of ``train``.
    Where torch.distributed is initialized the model is wrapped for it.
    """
    own: dict[str, Any] = deepcopy(dict(opt))
    rank, world_size = rank_and_size()
    own.update(model_type='DistillModel', rank=rank, world_size=world_size, dist=torch.distributed.is_initialized())
    own['path']['pretrain_network_t'] = own['path']['pretrain_network_g'] = None
    losses = {key for key in own['train'] if key.endswith('_opt')} - {'pixel_opt'}
    for key in losses:
        del own['train'][key]
    own['train'] |= deepcopy(METHODS[method]) | changes
    if method == 'scratch':
        del own['network_t']
    torch.manual_seed(0)
    return build_model(cast(TrainingOptions, own))


def batch_for(opt: TrainingOptions, device: torch.device) -> dict[str, Tensor]:
    """A batch of noise of the run's size."""
    side, batch = lq_patch_size(opt), opt['datasets']['train']['batch_size_per_gpu']
    generator = torch.Generator().manual_seed(0)
    lq = torch.rand(batch, 3, side, side, generator=generator)
    gt = torch.rand(batch, 3, side * opt['scale'], side * opt['scale'], generator=generator)
    return {'lq': lq.to(device), 'gt': gt.to(device)}


def floor_of_kd(model: DistillModel, batch: Mapping[str, Tensor]) -> Callable[[int], None]:
    """The arithmetic that no distillation can do without: the teacher's forward, the student's forward and backward."""

    def work(iteration: int) -> None:
        if model.net_t is not None:
            with torch.no_grad():
                model.net_t(batch['lq'])
        model.net_g.zero_grad()
        F.l1_loss(model.net_g(batch['lq']), batch['gt']).backward()

    return work


def first_step(opt: TrainingOptions) -> int:
    """The iteration at which measuring begins: the middle of the training, where MiPKD's l_ae has ended."""
    return round(0.5 * opt['train']['total_iter'])


@contextmanager
def uncompiled(model: DistillModel) -> Iterator[None]:
    """A context in which steps run every operator by itself, as counting needs it."""
    before, model.compiled = model.compiled, 'false'
    try:
        yield
    finally:
        model.compiled = before


def take_step(model: DistillModel, batch: Mapping[str, Tensor], iteration: int) -> None:
    """One step of the training loop, without the reading of data and the logging."""
    model.feed_data(batch)
    model.optimize_parameters(iteration)
