"""Training patches of images that lie on the disk as arrays, so that a patch is read without the rest of its image."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from mipkd_sr.data.pairing import pair_files


@lru_cache(maxsize=8192)
def open_array(file: str) -> np.ndarray:
    """An image, H x W x 3, BGR, 8 bits, mapped into memory: only what is looked at is read."""
    return np.load(file, mmap_mode='r', allow_pickle=False)


@DATASET_REGISTRY.register()
class PairedPatchDataset(Dataset):
    """BasicSR's PairedImageDataset for images that ``mipkd prepare --store npy`` has prepared.

    Options, random draws and samples are the same, bit for bit. It is many times as fast: a PNG file has to be decoded
    whole for every patch.

    Args:
        opt: Options of the data set, as for PairedImageDataset; ``color`` and ``io_backend`` must be left alone.

    Raises:
        ValueError: If a file is not an array, or an option is not supported.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt
        if opt.get('color') is not None or (opt.get('io_backend') or {}).get('type', 'disk') != 'disk':
            raise ValueError('PairedPatchDataset takes neither color nor another io_backend than disk')
        roots = Path(opt['dataroot_lq']), Path(opt['dataroot_gt'])
        pairs = pair_files(*roots, opt.get('filename_tmpl', '{}'), opt.get('meta_info_file'))
        self.paths = [{'lq_path': str(lq), 'gt_path': str(gt)} for lq, gt in pairs]
        for file in (file for pair in pairs for file in pair):
            if file.suffix != '.npy':
                raise ValueError(f'{file} is no array; prepare the images with mipkd prepare --store npy')

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """A sample: ``lq`` (3 x h x w) and ``gt`` (3 x sh x sw), RGB, values in [0, 1], and their files."""
        path, scale, is_training = self.paths[index], self.opt['scale'], self.opt['phase'] == 'train'
        lq = open_array(path['lq_path'])
        gt = open_array(path['gt_path'])[: lq.shape[0] * scale, : lq.shape[1] * scale]
        if is_training:
            gt, lq = paired_random_crop(gt, lq, self.opt['gt_size'], scale, path['gt_path'])
        images = [image.astype(np.float32) / 255.0 for image in (gt, lq)]
        if is_training:
            images = augment(images, self.opt['use_hflip'], self.opt['use_rot'])
        tensors: list[torch.Tensor] = img2tensor(images, bgr2rgb=True, float32=True)
        if self.opt.get('mean') is not None or self.opt.get('std') is not None:
            for tensor in tensors:
                normalize(tensor, self.opt['mean'], self.opt['std'], inplace=True)
        return {'lq': tensors[1], 'gt': tensors[0], **path}
