"""BasicSR's own option files: which of them run here. Their keys and values, with the folders left out."""

import re
from copy import deepcopy
from typing import Any

import pytest
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY

from mipkd_sr.runs.run_options import load_options
from mipkd_sr.test import main as run_test
from mipkd_sr.train import main as train_main
from tests.conftest import merge

NAMES = {'num_in_ch': 3, 'num_out_ch': 3}
DISK = {'type': 'disk'}
TRAIN: dict[str, Any] = {
    'name': '001_x4',
    'model_type': 'SRModel',
    'scale': 4,
    'num_gpu': 1,
    'manual_seed': 0,
    'datasets': {
        'train': {
            'name': 'DIV2K',
            'type': 'PairedImageDataset',
            'dataroot_gt': 'datasets/DF2K/DIV2K_train_HR_sub',
            'dataroot_lq': 'datasets/DF2K/DIV2K_train_LR_bicubic_X4_sub',
            'meta_info_file': 'basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt',
            'filename_tmpl': '{}',
            'io_backend': DISK,
            'gt_size': 128,
            'use_hflip': True,
            'use_rot': True,
            'use_shuffle': True,
            'num_worker_per_gpu': 6,
            'batch_size_per_gpu': 16,
            'dataset_enlarge_ratio': 100,
            'prefetch_mode': None,
        },
        'val': {
            'name': 'Set5',
            'type': 'PairedImageDataset',
            'dataroot_gt': 'datasets/Set5/GTmod12',
            'dataroot_lq': 'datasets/Set5/LRbicx4',
            'io_backend': DISK,
        },
    },
    'path': {'pretrain_network_g': None, 'strict_load_g': True, 'resume_state': None},
    'train': {
        'ema_decay': 0.999,
        'optim_g': {'type': 'Adam', 'lr': 2e-4, 'weight_decay': 0, 'betas': [0.9, 0.99]},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [200000], 'gamma': 0.5},
        'total_iter': 300000,
        'warmup_iter': -1,
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
    },
    'val': {
        'val_freq': 5e3,
        'save_img': False,
        'metrics': {
            'psnr': {'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': False},
            'niqe': {'type': 'calculate_niqe', 'crop_border': 4},
        },
    },
    'logger': {
        'print_freq': 100,
        'save_checkpoint_freq': 5e3,
        'use_tb_logger': True,
        'wandb': {'project': None, 'resume_id': None},
    },
    'dist_params': {'backend': 'nccl', 'port': 29500},
}
EDSR = {'type': 'EDSR', **NAMES, 'num_feat': 256, 'num_block': 32, 'upscale': 4, 'res_scale': 0.1, 'img_range': 255.0}
RCAN = {'type': 'RCAN', **NAMES, 'num_feat': 64, 'num_group': 10, 'num_block': 20, 'squeeze_factor': 16, 'upscale': 4}
RRDB = {'type': 'RRDBNet', **NAMES, 'num_feat': 64, 'num_block': 23}
MSRRESNET = {'type': 'MSRResNet', **NAMES, 'num_feat': 64, 'num_block': 16, 'upscale': 4}
SWINIR = {
    'type': 'SwinIR', 'upscale': 4, 'in_chans': 3, 'img_size': 48, 'window_size': 8, 'img_range': 1.0,
    'depths': [6] * 6, 'embed_dim': 180, 'num_heads': [6] * 6, 'mlp_ratio': 2, 'upsampler': 'pixelshuffle',
    'resi_connection': '1conv',
}  # fmt: skip
ECBSR = {
    'type': 'ECBSR', 'num_in_ch': 1, 'num_out_ch': 1, 'num_block': 4, 'num_channel': 16, 'with_idt': False,
    'act_type': 'prelu', 'scale': 4,
}  # fmt: skip
COSINE = {
    'type': 'CosineAnnealingRestartLR', 'periods': [250000] * 4, 'restart_weights': [1, 1, 1, 1], 'eta_min': 1e-7,
}  # fmt: skip
TRAINS: dict[str, dict[str, Any]] = {
    'EDSR': {'network_g': EDSR | {'rgb_mean': [0.4488, 0.4371, 0.4040]}},
    'RCAN': {'network_g': RCAN | {'img_range': 255.0, 'rgb_mean': [0.4488, 0.4371, 0.4040]}},
    'SwinIR': {'model_type': 'SwinIRModel', 'network_g': SWINIR},
    'ECBSR': {'network_g': ECBSR, 'datasets': {'train': {'color': 'y'}, 'val': {'color': 'y'}}},
    'MSRResNet': {'network_g': MSRRESNET, 'train': {'scheduler': COSINE}},
    'RRDBNet_PSNR': {'network_g': RRDB, 'train': {'scheduler': COSINE}},
}
"""BasicSR's train files that run here, and in what they differ."""

GANS = {
    'ESRGAN': {
        'model_type': 'ESRGANModel',
        'network_g': RRDB,
        'network_d': {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 64},
        'train': {'optim_d': {'type': 'Adam', 'lr': 1e-4}, 'net_d_iters': 1, 'net_d_init_iters': 0},
    },
}
"""Files of a generator and a discriminator, which only BasicSR runs."""

PAIRED = TRAIN['datasets']['val']
TESTS: dict[str, dict[str, Any]] = {
    'EDSR': {'network_g': EDSR, 'datasets': {'test_1': PAIRED, 'test_2': PAIRED | {'name': 'Set14'}}},
    'RCAN': {'network_g': RCAN, 'datasets': {'test_1': PAIRED}},
    'ESRGAN': {'model_type': 'ESRGANModel', 'network_g': RRDB, 'datasets': {'test_1': PAIRED}},
    'SRResNet': {'network_g': MSRRESNET, 'datasets': {'test_1': PAIRED}},
}
"""BasicSR's test files that run here."""


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    opt = merge(deepcopy(base), deepcopy(changes))
    for key in ('scheduler',):
        if key in changes.get('train', {}):
            opt['train'][key] = changes['train'][key]
    return opt


@pytest.mark.parametrize('changes', TRAINS.values(), ids=TRAINS)
def test_basicsrs_train_files_are_taken(changes, write_options):
    opt = load_options(write_options(changed(TRAIN, changes)), is_train=True).data
    assert opt['network_g'] == changes['network_g']
    assert opt['val']['val_freq'] == 5000


@pytest.mark.parametrize('changes', TESTS.values(), ids=TESTS)
def test_basicsrs_test_files_are_taken(changes, write_options):
    opt = {name: TRAIN[name] for name in ('name', 'model_type', 'scale', 'num_gpu', 'manual_seed')}
    opt |= {'path': {'pretrain_network_g': 'net_g.pth', 'strict_load_g': True}}
    opt |= {'val': {'save_img': True, 'suffix': None, 'metrics': TRAIN['val']['metrics']}}
    file = write_options(changed(opt, changes))
    assert load_options(file, is_train=False).data['network_g'] == changes['network_g']
    assert run_test(['-opt', str(file), '--dry_run']) == 3


@pytest.mark.parametrize('changes', GANS.values(), ids=GANS)
def test_a_gans_file_is_told_where_it_runs(changes, write_options, capsys):
    assert train_main(['-opt', str(write_options(changed(TRAIN, changes)))]) == 2
    error = capsys.readouterr().err
    name = changes['model_type']
    assert re.search(f"model_type: '{name}' does not derive from DistillModel; run it with BasicSR", error), error


def test_a_model_that_trains_as_srmodel_does_is_distill_models_work(write_options, capsys):
    class_of_hat = type('HATModel', (SRModel,), {'__module__': 'hat.models.hat_model'})
    MODEL_REGISTRY._obj_map['HATModel'] = class_of_hat
    try:
        capsys.readouterr()
        assert train_main(['-opt', str(write_options(changed(TRAIN, {'model_type': 'HATModel'})))]) == 2
        assert "'HATModel' does not derive from DistillModel; write DistillModel, which trains as it does" in (
            capsys.readouterr().err
        )
    finally:
        del MODEL_REGISTRY._obj_map['HATModel']
