"""A data set with degradations of its own: HR images alone, LR images made as they are read, with noise."""

from pathlib import Path

import cv2
import torch
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mipkd_sr.imresize import imresize
from mipkd_sr.options.forms import Key


@DATASET_REGISTRY.register()
class NoisyDataset(Dataset):
    own_options = {'noise': Key('float', 'Standard deviation of the noise, for values in 0..255.', 5.0, minimum=0)}

    def __init__(self, opt):
        self.opt = opt
        self.paths = sorted(str(file) for file in Path(opt['dataroot_gt']).iterdir())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        """What is drawn here is a function of the run's seed, the epoch and the index: a resumed run draws it again."""
        hr = cv2.imread(self.paths[index]).astype('float32') / 255
        if self.opt['phase'] == 'train':
            hr, _ = paired_random_crop(hr, hr, self.opt['gt_size'], 1)
            hr = augment(hr, self.opt['use_hflip'], self.opt['use_rot'])
        gt = img2tensor(hr, bgr2rgb=True, float32=True)
        lq = imresize(gt[None], 1 / self.opt['scale'])[0]
        lq = lq + torch.randn_like(lq) * self.opt['noise'] / 255
        return {'lq': lq.clamp(0, 1), 'gt': gt, 'lq_path': self.paths[index], 'gt_path': self.paths[index]}
