"""A training set whose targets are its photographs, and once more what a teacher makes of their LR images.

python experiments/studies/students/store_labels.py datasets/BSDS500 --scale 2 --out datasets/BSDS500_BSRN \
    -opt experiments/studies/students/bsrn.yml --weights experiments/pretrained_models/bsrn_x2.pth

The teacher runs once over each image, and not again in every step of a training. Half of a training's patches then
have the photograph as their target and half the teacher's output: with an L1 loss, and over many steps, that is the
sum of the reconstruction and the logits KD term. The teacher sees whole images: a patch would end too soon for it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mipkd_sr.data.images import write_image
from mipkd_sr.deploy.student import load_student
from mipkd_sr.deploy.upscaling import upscale


def main() -> None:
    """Read the command line, and make the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder that mipkd prepare --store npy has made')
    parser.add_argument('--scale', type=int, required=True)
    parser.add_argument('--out', type=Path, required=True, help='folder for HR_xSCALE and LR_xSCALE')
    parser.add_argument('-opt', required=True, help='option file that has the teacher as network_g')
    parser.add_argument('--weights', required=True)
    args = parser.parse_args()
    teacher = load_student(args.opt, args.weights)
    hr, lr = args.out / f'HR_x{args.scale}', args.out / f'LR_x{args.scale}'
    for folder in (hr, lr):
        folder.mkdir(parents=True, exist_ok=True)
    for file in tqdm(sorted((args.images / f'LR_x{args.scale}').glob('*.npy'))):
        labelled = hr / f'{file.stem}_teacher.npy'
        if labelled.exists():
            continue
        image, photograph = np.load(file), np.load(args.images / 'HR' / file.name)
        output = upscale(teacher, image[..., ::-1], torch.device('cpu'))[..., ::-1]  # stored as BGR
        if output.shape != photograph.shape:
            parser.error(f"{args.opt}: its network is not for --scale {args.scale}; give one whose 'scale' is that.")
        write_image(lr / file.name, image)
        write_image(hr / file.name, photograph)
        write_image(lr / labelled.name, image)
        write_image(labelled, output)


if __name__ == '__main__':
    main()
