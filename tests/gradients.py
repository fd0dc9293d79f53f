"""Gradients of every method in double precision: on one process, or, under torchrun, on its share of the same batch.

python -m tests.gradients FILE    # writes a mapping from the case to the gradient of every parameter
"""

import sys

import mipkd_sr.register  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mipkd_sr.archs import build_network
from mipkd_sr.archs.vqgan import VQGAN
from mipkd_sr.distill.objective import ImageObjective, Objective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.distill.weight_schedule import Schedule
from mipkd_sr.losses import csd_loss, dckd_loss
from mipkd_sr.losses.at_loss import ATLoss
from mipkd_sr.losses.crosskd_loss import CrossKDLoss
from mipkd_sr.losses.csd_loss import CSDLoss
from mipkd_sr.losses.dckd_loss import DistributionMappingLoss, DynamicContrastiveLoss
from mipkd_sr.losses.dukd_loss import AugmentationLoss, DUKDLoss
from mipkd_sr.losses.eco_loss import ECOLoss
from mipkd_sr.losses.fakd_loss import FAKDLoss
from mipkd_sr.losses.fitnet_loss import FitNetLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.losses.mipkd_loss import MiPKDLoss
from mipkd_sr.losses.rkd_loss import RKDLoss
from mipkd_sr.losses.wavelet_loss import WaveletLoss
from mipkd_sr.runtime.ranks import rank_and_size

from .conftest import NETWORKS

BATCH, SIZE, SCALE = 4, 16, 2
WITHOUT_HR = {
    'one of each': [True, False, False, True],
    'one': [True, True, True, False],
    'half': [False, False, True, True],
}


def mipkd(**options: object) -> MiPKDLoss:
    return MiPKDLoss(**{'positions': 2, 'drop_probability': 0.0, 'ae_until': 1.0} | options)  # type: ignore[arg-type]


def cases() -> dict[str, tuple[str, dict[str, Objective]]]:
    """For each case the kind of the networks, and the objectives."""
    edsr: dict[str, dict[str, Objective]] = {
        'plain': {'pix': ImageObjective('l_pix', nn.L1Loss())},
        'kd': {'kd': LogitsKDLoss()},
        'mipkd through the student': {'mipkd': mipkd(student_probability=1.0)},
        'mipkd through the teacher': {'mipkd': mipkd(student_probability=0.0)},
        'mipkd resampled': {'mipkd': mipkd(path='resampled', positions=3)},
        'mipkd with drops': {'mipkd': mipkd(drop_probability=0.5)},
        'mipkd grid': {'mipkd': mipkd(mask='grid')},
        'mipkd cosine': {'mipkd': mipkd(mask='cosine')},
        'mipkd cka': {'mipkd': mipkd(mask='cka', distance='l2')},
        'mipkd as it is': {'mipkd': mipkd(normalize=False, encoder='shared')},
        'dukd': {'kd': LogitsKDLoss(), 'dukd': DUKDLoss(augment=['zoom_in', 'zoom_out'], label_weight=1.0)},
        'dukd hardest': {'dukd': DUKDLoss(crop='hardest')},
        'augmentation': {'augmentation': AugmentationLoss()},
        'mipkd and dukd': {'kd': LogitsKDLoss(), 'mipkd': mipkd(), 'dukd': DUKDLoss(crops=2)},
        'rkd': {'rkd': RKDLoss(positions=2)},
        'at': {'at': ATLoss(positions=2)},
        'fitnet': {'fitnet': FitNetLoss(positions=2)},
        'fakd': {'fakd': FAKDLoss(positions=2)},
        'crosskd': {'crosskd': CrossKDLoss()},
        'csd': {'csd': CSDLoss(negatives=2)},
        'dckd': {'dcl': DynamicContrastiveLoss(negatives=2), 'dm': DistributionMappingLoss()},
        'wavelet': {'wavelet': WaveletLoss()},
        'eco': {'eco': ECOLoss()},
        'eco of the target alone': {'eco': ECOLoss(mix_input=False)},
        'gated and scheduled': {'kd': having(LogitsKDLoss(), gate=4, schedule=Schedule('cosine', 0, 1, 0, 0.5))},
        **{
            f'some without HR, {which}': {
                'pix': ImageObjective('l_pix', nn.L1Loss()),
                'kd': LogitsKDLoss(),
                'dukd': DUKDLoss(),
                'mipkd': mipkd(),
                'augmentation': AugmentationLoss(),
            }
            for which in WITHOUT_HR
        },
        'two teachers': {
            'kd': LogitsKDLoss(),
            'mipkd': having(mipkd(), listens_to={'second': 1.0}),
            'dukd': having(DUKDLoss(crop='hardest'), listens_to={'teacher': 1.0}),
            'wavelet': having(WaveletLoss(), listens_to={'teacher': 0.25, 'second': 0.75}),
        },
    }
    found = {f'EDSR, {name}': ('EDSR', objectives) for name, objectives in edsr.items()}
    for kind in ('RCAN', 'SwinIR'):
        found[f'{kind}, mipkd and dukd'] = kind, {'kd': LogitsKDLoss(), 'mipkd': mipkd(), 'dukd': DUKDLoss()}
    return found


def having(objective: Objective, **options: object) -> Objective:
    """The objective with what an option file may say of any."""
    for name, value in options.items():
        setattr(objective, name, value)
    return objective


def tiny_vqgan(file: str | None) -> VQGAN:
    """Stands in for VQGAN: as many levels, few channels."""
    return VQGAN(8, latent=6, embed_dim=5, words=7).eval().requires_grad_(False)


def tiny_vgg(file: str | None) -> nn.Sequential:
    """Stands in for VGG19: convolutions and ReLUs at the places where its features are taken."""
    layers: list[nn.Module] = []
    for index in range(max(csd_loss.LAYERS) + 1):
        layers.append(nn.ReLU() if index in csd_loss.LAYERS else nn.Identity())
    width = 3
    for index in csd_loss.LAYERS:
        layers[index - 1] = nn.Conv2d(width, 6, 3, padding=1)
        width = 6
    return nn.Sequential(*layers)


def gradients(case: str, kind: str, objectives: dict[str, Objective]) -> dict[str, Tensor]:
    """The gradient of one step, averaged over ranks."""
    torch.manual_seed(0)
    opt = {'type': kind, **NETWORKS[kind], 'upscale': SCALE} | ({'drop_path_rate': 0.0} if kind == 'SwinIR' else {})
    width = 'embed_dim' if kind == 'SwinIR' else 'num_feat'
    student, teachers = build_network(opt), {'teacher': FrozenTeacher(build_network(opt | {width: opt[width] + 4}))}
    if 'two teachers' in case:
        teachers['second'] = FrozenTeacher(build_network(opt))
    for objective in objectives.values():
        name = next(iter(objective.listens_to), 'teacher')
        objective.attach(student, teachers[name].net, SIZE, SCALE)
    step: nn.Module = DistillStep(student, teachers, objectives, 10, 5)
    rank, size = rank_and_size()
    if size > 1:
        step = DistributedDataParallel(step)
    lq, gt = torch.rand(BATCH, 3, SIZE, SIZE), torch.rand(BATCH, 3, SIZE * SCALE, SIZE * SCALE)
    has_gt = next((found for which, found in WITHOUT_HR.items() if case.endswith(f'HR, {which}')), None)
    if has_gt:
        gt[~torch.tensor(has_gt)] = torch.nan
        has_gt = has_gt[rank * BATCH // size :][: BATCH // size]
    losses = step(lq.chunk(size)[rank], gt.chunk(size)[rank], 1, has_gt=has_gt)[0]
    torch.stack(list(losses.values())).sum().backward()
    return {name.removeprefix('module.'): p.grad for name, p in step.named_parameters() if p.grad is not None}


def all_gradients() -> dict[str, dict[str, Tensor]]:
    """Every case's gradients."""
    usual, csd_loss.vgg19_features = csd_loss.vgg19_features, tiny_vgg
    usual_vqgan, dckd_loss.load_vqgan = dckd_loss.load_vqgan, tiny_vqgan
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(1)
        return {case: gradients(case, *what) for case, what in cases().items()}
    finally:
        torch.set_default_dtype(torch.float32)
        csd_loss.vgg19_features = usual
        dckd_loss.load_vqgan = usual_vqgan


if __name__ == '__main__':
    torch.distributed.init_process_group('gloo')
    found = all_gradients()
    if torch.distributed.get_rank() == 0:
        torch.save(found, sys.argv[1])
    torch.distributed.destroy_process_group()
