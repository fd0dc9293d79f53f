"""Data: images on the disk, MATLAB's resizing, and the order in which a training run reads its images."""

from collections.abc import Mapping
from typing import Any

from basicsr.data import build_dataset as build_basicsr_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mipkd_sr.data.paired_patch_dataset import PairedPatchDataset
from mipkd_sr.data.scan import scan
from mipkd_sr.runtime.errors import OptionError, sentence

__all__ = ['PairedPatchDataset', 'build_dataset', 'lq_patch_size']

SCANNED = (PairedImageDataset, PairedPatchDataset, SingleImageDataset)
"""Data sets, and what derives from them, whose files are looked at before a run."""


def lq_patch_size(opt: Mapping[str, Any]) -> int:
    """Side of the LR training patches of a run with the options ``opt``, in pixels."""
    return opt['datasets']['train']['gt_size'] // opt['scale']


def _metrics(opt: dict[str, Any]) -> dict[str, Any]:
    """The metrics that validation and test sets are measured with."""
    return (opt.get('val') or {}).get('metrics') or {}


def build_dataset(opt: dict[str, Any], phase: str) -> Dataset:
    """Build the data set under ``datasets:<phase>``.

    Its files are looked at first, by the first process, unless its ``scan`` is false; see ``mipkd_sr.data.scan``. Where
    that is not possible, it is said in the log.

    Raises:
        OptionError: If it cannot be used: LR and HR images that do not match, no image at all.
    """
    dataset_opt = opt['datasets'][phase]
    if dataset_opt['scan'] and opt.get('rank', 0) == 0:
        if reason := _cannot_be_scanned(dataset_opt):
            get_root_logger().info(f'datasets:{phase}: its files are not looked at before the run, as {reason}')
        else:
            scan(dataset_opt, f'datasets:{phase}', {} if phase == 'train' else _metrics(opt))
    try:
        dataset = build_basicsr_dataset(dataset_opt)
    except (AssertionError, ValueError, OSError) as error:
        raise OptionError(f'datasets:{phase}', sentence(error)) from error
    paths = getattr(dataset, 'paths', None)
    if isinstance(paths, list):  # BasicSR takes them as the file system gives them, in another order on each machine
        paths.sort(key=lambda path: path['gt_path'] if isinstance(path, dict) else path)
    if not len(dataset):
        raise OptionError(f'datasets:{phase}', 'holds no image.')
    return dataset


def _cannot_be_scanned(dataset_opt: dict[str, Any]) -> str:
    """Why the files of a data set are not known from its options; nothing if they are."""
    name, storage = dataset_opt['type'], dataset_opt['io_backend'].get('type', 'disk')
    if not issubclass(DATASET_REGISTRY.get(name), SCANNED):
        return f'{name} derives from none of {", ".join(scanned.__name__ for scanned in SCANNED)}'
    if storage != 'disk':
        return f'they are in {storage}'
    if dataset_opt.get('dataroot_lq') is None:
        return 'there is no dataroot_lq'
    return ''
