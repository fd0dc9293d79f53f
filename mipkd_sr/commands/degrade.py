"""Make validation pairs of photographs: LR images by an option file's own degradation, always the same ones.

mipkd degrade PHOTOS -opt my_options.yml --out datasets/degraded_val
"""

import argparse
from pathlib import Path

from mipkd_sr.commands.command_line import add_import_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', type=Path, help='folder of HR images')
    parser.add_argument('-opt', required=True, metavar='FILE', help="option file, or a recipe's name, of a training")
    parser.add_argument('--out', type=Path, required=True, help='folder for HR and LR_x2, which is not there yet')
    parser.add_argument('--seed', type=int, default=0, help='of the random numbers; 0 if it is left out')
    add_import_argument(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)
    from basicsr.utils import img2tensor, tensor2img
    from torch.utils.data import default_collate

    from mipkd_sr.data import build_dataset
    from mipkd_sr.data.degradations import build_degradation, degrade
    from mipkd_sr.data.images import imfrombytes, write_image
    from mipkd_sr.data.stream import SeededDataset
    from mipkd_sr.runs.run_options import load_options
    from mipkd_sr.runtime.errors import OptionError

    if args.out.exists():
        raise OptionError('--out', f'{args.out} is there already; give a folder that is not.')
    options = load_options(args.opt, True)
    opt = options.data
    with options.explaining():
        train = {**opt['datasets']['train'], 'dataroot_gt': str(args.folder), 'dataroot_lq': None, 'others': None}
        train |= {'phase': 'whole', 'use_hflip': False, 'use_rot': False, 'meta_info_file': None}
        train |= {'meta_info': None} if 'meta_info' in train else {'type': 'UnpairedImageDataset'}
        samples = SeededDataset(build_dataset({**opt, 'datasets': {'val': train}}, 'val'), args.seed)  # type: ignore[arg-type]
        degradation = build_degradation(opt.get('degradation'))
    part = args.out.with_name(f'{args.out.name}.part')
    folders = [part / 'HR', part / f'LR_x{opt["scale"]}']
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    files = samples.dataset.dataset.paths  # type: ignore[attr-defined]
    for index, file in enumerate(files):
        batch = default_collate([samples[0, index]])
        if 'kernel1' in batch:  # the sample is a part of the image
            batch['gt'] = img2tensor(imfrombytes(Path(file).read_bytes(), float32=True), bgr2rgb=True)[None]
        lq, gt = degrade(batch, degradation, opt['scale'], None, torch.device('cpu'))
        for folder, made in zip(folders, (gt, lq), strict=True):
            write_image(folder / f'{Path(file).stem}.png', tensor2img(made))
    part.rename(args.out)
    print(f'{len(files)} pairs in {args.out}')
    return 0
