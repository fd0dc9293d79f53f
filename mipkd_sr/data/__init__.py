"""Data: images on the disk, MATLAB's resizing, and the order in which a training run reads its images."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.data import build_dataset as build_basicsr_dataset
from basicsr.data import paired_image_dataset, single_image_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.data.transforms import paired_random_crop
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mipkd_sr.data.images import imfrombytes
from mipkd_sr.data.mixing import MixedDataset
from mipkd_sr.data.paired_patch_dataset import PairedPatchDataset
from mipkd_sr.data.pairing import pair_files
from mipkd_sr.data.scan import scan
from mipkd_sr.data.single_patch_datasets import DegradedImages, UnpairedImageDataset
from mipkd_sr.option_types import Component, DatasetOptions, RunOptions, TrainingOptions
from mipkd_sr.runtime.errors import OptionError, blamed_on

__all__ = ['PairedPatchDataset', 'build_dataset', 'lq_patch_size', 'metrics_of', 'not_looked_at', 'shared_images']

SCANNED = (PairedImageDataset, PairedPatchDataset, SingleImageDataset, UnpairedImageDataset, DegradedImages)
"""Data sets whose files are checked before a run; so are those of classes that derive from them."""


def _pairs_for_basicsr(folders: Sequence[str], keys: Sequence[str], *more: str) -> list[dict[str, str]]:
    """Replaces BasicSR's functions that find the files of pairs, which need one ending for LR and HR."""
    pairs = pair_files(Path(folders[0]), Path(folders[1]), more[-1], more[0] if len(more) > 1 else None)
    return [{f'{key}_path': str(file) for key, file in zip(keys, pair, strict=True)} for pair in pairs]


def _crop_pair(gt: np.ndarray, lq: np.ndarray, gt_size: int, scale: int, file: str) -> tuple[np.ndarray, np.ndarray]:
    """BasicSR's ``paired_random_crop``, after rows and columns of HR that the scale does not divide are cut off."""
    if all(hr // scale == lr for hr, lr in zip(gt.shape[:2], lq.shape[:2], strict=True)):
        gt = gt[: lq.shape[0] * scale, : lq.shape[1] * scale]
    return paired_random_crop(gt, lq, gt_size, scale, file)


# so BasicSR's own data sets read files exactly as the check before the run reads them
for _module in (paired_image_dataset, single_image_dataset):
    _module.imfrombytes = imfrombytes
paired_image_dataset.paired_paths_from_folder = _pairs_for_basicsr
paired_image_dataset.paired_paths_from_meta_info_file = _pairs_for_basicsr
paired_image_dataset.paired_random_crop = _crop_pair


def lq_patch_size(opt: TrainingOptions) -> int:
    """Side of the LR training patches of a run with the options ``opt``, in pixels."""
    return opt['datasets']['train']['gt_size'] // opt['scale']


def metrics_of(opt: RunOptions) -> dict[str, Component]:
    """The metrics that validation and test sets are measured with."""
    val_opt = opt.get('val')
    return (val_opt.get('metrics') if val_opt else None) or {}


def build_dataset(opt: RunOptions, phase: str) -> Dataset:
    """Build the data set under ``datasets:<phase>``.

    The first process checks its files, unless its ``scan`` is false; see ``mipkd_sr.data.scan``. ``not_looked_at``
    names data sets for which that is not possible.

    Raises:
        OptionError: If it cannot be used: LR and HR images that do not match, no image at all.
    """
    dataset_opt = opt['datasets'][phase]
    if not (others := dataset_opt['others']):
        return _build_one(opt, phase, dataset_opt)
    sets = [_build_one(opt, phase, one) for one in (dataset_opt, *others)]
    mixed = MixedDataset(sets, [one['weight'] for one in (dataset_opt, *others)], dataset_opt)
    least = min(share for _, share in mixed.sets)
    if least * dataset_opt['batch_size_per_gpu'] < len(others):  # see mixing.place
        message = f'gives a set {float(least):.3g} of the samples: not one in every batch; raise it, or the batch.'
        raise OptionError(f'datasets:{phase}:weight', message)
    return mixed


def _build_one(opt: RunOptions, phase: str, dataset_opt: DatasetOptions) -> Dataset:
    _check_folders(dataset_opt, f'datasets:{phase}')
    if dataset_opt['scan'] and opt.get('rank', 0) == 0 and not _cannot_be_scanned(dataset_opt):
        scan(dataset_opt, f'datasets:{phase}', {} if phase == 'train' else metrics_of(opt))
    with blamed_on(f'datasets:{phase}'):
        # BasicSR's SingleImageDataset takes `meta_info_file: ~` for a file
        given = {name: value for name, value in dataset_opt.items() if name != 'meta_info_file' or value is not None}
        dataset = build_basicsr_dataset(given)
    paths = getattr(dataset, 'paths', None)
    if not len(dataset):
        raise OptionError(f'datasets:{phase}', 'holds no image.')
    if phase != 'train':
        _check_image_names(paths or [], f'datasets:{phase}')
    return dataset


def not_looked_at(opt: RunOptions) -> list[str]:
    """A sentence for each data set whose files cannot be looked at before the run."""
    reasons = {phase: _cannot_be_scanned(one) for phase, one in opt['datasets'].items() if one['scan']}
    said = 'its files are not looked at before the run, as'
    return [f'datasets:{phase}: {said} {reason}' for phase, reason in reasons.items() if reason]


def shared_images(train_set: Dataset, val_set: Dataset) -> list[str]:
    """The HR files that a training and a validation set have in common."""
    files = [
        {str(Path(path['gt_path']).resolve()) for path in getattr(one, 'paths', ()) if isinstance(path, dict)}
        for one in (train_set, val_set)
    ]
    return sorted(files[0] & files[1])


def _check_folders(dataset_opt: DatasetOptions, key: str) -> None:
    """Check that the options name the folders that a data set of BasicSR's form reads."""
    kind = DATASET_REGISTRY.get(dataset_opt['type'])
    if not issubclass(kind, SCANNED):
        return
    if issubclass(kind, SingleImageDataset) and dataset_opt['phase'] == 'train':
        raise OptionError(f'{key}:type', 'SingleImageDataset gives whole images; to train: UnpairedImageDataset.')
    hr_alone = issubclass(kind, DegradedImages | UnpairedImageDataset) and dataset_opt.get('dataroot_lq') is None
    if hr_alone and dataset_opt['phase'] not in ('train', 'whole'):
        raise OptionError(key, 'has HR images alone, but LR images are needed here; mipkd degrade makes them.')
    needed = {SingleImageDataset: ['dataroot_lq'], DegradedImages: ['dataroot_gt'], UnpairedImageDataset: []}
    names = next((names for known, names in needed.items() if issubclass(kind, known)), ['dataroot_lq', 'dataroot_gt'])
    for name in names:
        if dataset_opt.get(name) is None:
            raise OptionError(f'{key}:{name}', f'is missing; {dataset_opt["type"]} needs it.')


def _check_image_names(paths: list[Any], key: str) -> None:
    """Check that no two images differ in their ending alone: results are kept by the name without it."""
    found: dict[str, str] = {}
    for path in paths:
        file = file_of(path)
        name = Path(file).stem
        if name in found:
            raise OptionError(key, f'{found[name]} and {file} have one name, {name}; rename one.')
        found[name] = file


def file_of(path: Any) -> str:
    """The file that an image is named after, of an entry of a data set's ``paths``: HR, or LR where there is none."""
    return str(path.get('gt_path', path.get('lq_path', path)) if isinstance(path, dict) else path)


def _cannot_be_scanned(dataset_opt: DatasetOptions) -> str:
    """Why the files of a data set are not known from its options; nothing if they are."""
    name, storage = dataset_opt['type'], dataset_opt['io_backend'].get('type', 'disk')
    if not issubclass(DATASET_REGISTRY.get(name), SCANNED):
        return f'{name} derives from none of {", ".join(scanned.__name__ for scanned in SCANNED)}'
    if storage != 'disk':
        return f'they are in {storage}'
    return ''
