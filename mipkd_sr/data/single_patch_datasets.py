"""Training sets of single images: HR images that are degraded as a run trains, or LR images that have no HR."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from basicsr.data import realesrgan_dataset
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from mipkd_sr.data.degradations import check_range
from mipkd_sr.data.images import imfrombytes
from mipkd_sr.data.paired_patch_dataset import open_array
from mipkd_sr.data.pairing import files_in
from mipkd_sr.option_types import Key

SIDE, KERNEL = 400, 21
"""Sides of RealESRGANDataset's HR patches and of its largest blur kernels, in pixels; constants of BasicSR's."""
KINDS = ('iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso')
"""Of its blur kernels."""
PAIR = Key('list', 'Range of their deviation.', (0.2, 3), items='float', length=2)
BLUR = {
    'blur_kernel_size': Key('int', 'Side of the largest blur kernel; the smallest has 7.', KERNEL),
    'kernel_list': Key('list', "BasicSR's kinds of blur kernels.", KINDS, items='str'),
    'kernel_prob': Key(
        'list', 'How often each is drawn.', (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), items='float', minimum=0
    ),
    'sinc_prob': Key('float', 'Probability of a sinc filter in their place.', 0.1, minimum=0, maximum=1),
    'blur_sigma': PAIR,
    'betag_range': replace(PAIR, help='Range of the exponent of generalized kernels.', default=(0.5, 4)),
    'betap_range': replace(PAIR, help='Range of the exponent of plateau kernels.', default=(1, 2)),
}
"""The options of a blur; those of the second end in 2."""

realesrgan_dataset.imfrombytes = imfrombytes


class DegradedImages(RealESRGANDataset):
    """BasicSR's RealESRGANDataset, whose options are checked, and which needs no list of its files.

    BasicSR's ignores ``blur_kernel_size``, and takes another file, at random, in the place of one that cannot be read.

    Raises:
        ValueError: If a range is empty, or a kernel's size even.
    """

    own_options: ClassVar[Mapping[str, Key]] = {
        'meta_info': Key('str', 'Text file with a path below dataroot_gt a line; every image of that folder if ~.'),
        **{f'{name}{number}': key for number in ('', '2') for name, key in BLUR.items()},
        'blur_sigma2': replace(PAIR, default=(0.2, 1.5)),
        'final_sinc_prob': Key('float', 'Probability of the sinc filter at the end.', 0.8, minimum=0, maximum=1),
    }

    def __init__(self, opt: Mapping[str, Any]) -> None:
        for number in ('', '2'):
            size = opt[f'blur_kernel_size{number}']
            if not 7 <= size <= KERNEL or size % 2 == 0:
                raise ValueError(f'blur_kernel_size{number} must be odd, from 7 to {KERNEL}, not {size}')
            for name in ('blur_sigma', 'betag_range', 'betap_range'):
                check_range(f'{name}{number}', opt[f'{name}{number}'], 0.01, 100)
            kinds, shares = opt[f'kernel_list{number}'], opt[f'kernel_prob{number}']
            if len(kinds) != len(shares) or sum(shares) <= 0:
                raise ValueError(f'kernel_prob{number} must have a probability for each of kernel_list{number}')
            if unknown := set(kinds) - set(KINDS):
                raise ValueError(f'kernel_list{number}: BasicSR has no kind of kernel {", ".join(sorted(unknown))}')
        super().__init__({**opt, 'meta_info': opt['meta_info'] or os.devnull})
        if self.io_backend_opt['type'] == 'disk' and not opt['meta_info']:
            self.paths = [str(file) for file in files_in(Path(opt['dataroot_gt']), 'dataroot_gt')]
        self.kernel_range = list(range(7, min(opt['blur_kernel_size'], opt['blur_kernel_size2']) + 1, 2))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample: ``gt`` (3 x 400 x 400, RGB, values in [0, 1]), three kernels (21 x 21), and ``gt_path``."""
        if not os.path.exists(self.paths[index]) and self.io_backend_opt.get('type', 'disk') == 'disk':
            raise FileNotFoundError(f'there is no {self.paths[index]}')
        return super().__getitem__(index)


# Under BasicSR's own name: a project of Real-ESRGAN's may hold the one without the suffix.
DATASET_REGISTRY._obj_map['RealESRGANDataset_basicsr'] = DegradedImages


@DATASET_REGISTRY.register()
class UnpairedImageDataset(Dataset):
    """Images without counterparts: LR images (``dataroot_lq``) without HR, or HR images (``dataroot_gt``) alone.

    LR images train the terms that need no HR. From HR images the model makes LR images, by ``degradation``, or
    bicubically where the options name none. Images may be arrays, as ``mipkd prepare --store npy`` writes them.

    Raises:
        ValueError: If both folders are given, or none.
    """

    own_options: ClassVar[Mapping[str, Key]] = {}

    def __init__(self, opt: Mapping[str, Any]) -> None:
        roots = {name: opt[f'dataroot_{name}'] for name in ('lq', 'gt') if opt[f'dataroot_{name}'] is not None}
        if len(roots) != 1:
            raise ValueError('UnpairedImageDataset takes one of dataroot_lq and dataroot_gt, not both or none')
        (self.kind, folder), self.opt = next(iter(roots.items())), opt
        listed = {'meta_info_file': opt['meta_info_file']} if opt.get('meta_info_file') else {}
        self._images = SingleImageDataset({'dataroot_lq': folder, 'io_backend': dict(opt['io_backend']), **listed})
        self.paths = self._images.paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """A sample: ``lq`` or ``gt``, a patch in training (3 x H x W, RGB, values in [0, 1]), and its file."""
        file, is_training = self.paths[index], self.opt['phase'] == 'train'
        is_array = file.endswith('.npy')  # of which the patch alone is read
        patch = open_array(file)[..., ::-1] if is_array else self._images[index]['lq'].permute(1, 2, 0).numpy()
        if is_training:
            side = self.opt['gt_size'] // (self.opt['scale'] if self.kind == 'lq' else 1)
            patch, _ = paired_random_crop(patch, patch, side, 1, file)
        patch = patch.astype(np.float32) / 255.0 if is_array else patch
        patch = augment(patch, is_training and self.opt['use_hflip'], is_training and self.opt['use_rot'])
        return {self.kind: img2tensor(patch, bgr2rgb=False), f'{self.kind}_path': file}
