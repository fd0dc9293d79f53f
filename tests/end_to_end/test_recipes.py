"""Every training recipe takes steps: its networks made small, its data replaced, everything else as it is."""

from pathlib import Path

import pytest
import torch
import torchvision
import yaml

from mipkd_sr.archs import build_network
from mipkd_sr.data.pairs import STORES, write_pairs
from mipkd_sr.losses import csd_loss, dckd_loss
from mipkd_sr.options.reading import force_options, read_options
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.train import main
from tests.conftest import ROOT, smooth_image
from tests.gradients import tiny_vqgan

SMALL = {
    'StagedEDSR': {'num_feat': 32, 'num_block': 5},  # divided by these, at least by one
    'StagedRCAN': {'num_feat': 8, 'num_block': 6},
    'StagedSwinIR': {'embed_dim': 5},
    'SPAN': {'feature_channels': 8},
    'SPANF': {'feature_channels': 8},
    'ReparamSR': {'num_feat': 2},
}
RECIPES = [
    file
    for file in sorted((ROOT / 'options' / 'train').rglob('*.yml'))
    if not any(part.startswith('_') for part in file.relative_to(ROOT).parts)
    and not {'demo', 'real', 'unlabelled'} & {*file.parts}  # tests/test_real.py has the last two
]
OF_THE_PAPERS = [file for file in RECIPES if 'students' not in file.parts]


def shrink(network: dict) -> dict:
    """A network of the same kind and of the same proportion to its partner, small enough for a test."""
    network = dict(network)
    for name, factor in SMALL[network['type']].items():
        network[name] = max(2, network[name] // factor)
    if network['type'] == 'StagedRCAN':
        network.update(num_group=3, squeeze_factor=4)
    if network['type'] == 'StagedSwinIR':
        network.update(depths=[1] * len(network['depths']), num_heads=[2] * len(network['depths']))
        network.update(img_size=24, window_size=4)
    return network


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('recipes')
    for store in STORES:
        images = ((f'wave{i}', smooth_image(96, 96, i)) for i in range(2))
        write_pairs(images, folder / store, [2, 3, 4], store=store)
    return folder


@pytest.mark.parametrize('file', RECIPES, ids=lambda file: str(file.relative_to(ROOT / 'options' / 'train')))
def test_recipe_takes_steps(file, data, tmp_path, monkeypatch):
    opt = read_options(file).data
    scale = opt['scale']
    for phase in opt['datasets'].values():
        folder = data / ('npy' if phase.get('type') == 'PairedPatchDataset' else 'png')
        phase.update(dataroot_gt=str(folder / 'HR'), dataroot_lq=str(folder / f'LR_x{scale}'))
    opt['datasets']['train'].update(gt_size=24 * scale, batch_size_per_gpu=3, num_worker_per_gpu=0)
    opt['network_g'] = shrink(opt['network_g'])
    if opt.get('network_t'):
        teachers = {'': opt['network_t']} if 'type' in opt['network_t'] else opt['network_t']
        teachers = {name: shrink(network) for name, network in teachers.items()}
        files = {name: str(tmp_path / f'teacher{name}.pth') for name in teachers}
        for name, network in teachers.items():
            torch.save({'params': build_network(network).state_dict()}, files[name])
        opt['network_t'], opt['path']['pretrain_network_t'] = teachers.get('', teachers), files.get('', files)
    if 'csd_opt' in opt['train']:
        opt['train']['csd_opt']['vgg_file'] = None
        monkeypatch.setattr(csd_loss, 'vgg19_features', lambda _: torchvision.models.vgg19(weights=None).features[:30])
    for key in {'dcl_opt', 'dm_opt'} & opt['train'].keys():
        opt['train'][key]['vqgan_file'] = None
        monkeypatch.setattr(dckd_loss, 'load_vqgan', tiny_vqgan)
    for term in opt['train'].values():
        if isinstance(term, dict) and 'schedule' in term:
            term['schedule']['end'] = 1  # else it would be over before the first of two steps
    opt['train']['total_iter'] = 2
    opt['num_gpu'] = 0
    opt['logger'].update(print_freq=1, use_tb_logger=False)
    (tmp_path / 'recipe.yml').write_text(yaml.safe_dump(opt))
    assert main(['-opt', str(tmp_path / 'recipe.yml')]) == 0
    state = load_file(tmp_path / 'experiments' / opt['name'] / 'training_states' / '2.state')
    assert state['iter'] == 2
    averages = {'params_ema'} if opt['train'].get('ema_decay') else set()
    assert set(state['networks']) == {'params'} | averages
    assert state['networks']['params'].keys() == build_network(opt['network_g']).state_dict().keys()
    assert all(torch.isfinite(value).all() for value in state['networks']['params'].values())
    kept = tmp_path / 'experiments' / opt['name'] / 'recipe.yml'
    assert main(['-opt', str(kept), '--dry_run']) == 0  # what is kept of a run can be run again


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_every_recipe_for_the_papers_is_right_at_every_scale_and_its_output_is_tested(scale):
    """From each recipe to the weights that it writes, and from there to the row of the test file that reads them."""
    tested = read_options(ROOT / 'options' / 'test' / 'papers.yml')
    force_options(tested, [f'scale={scale}'])
    networks = {entry.get('path'): entry['network'] for entry in tested.data['networks'].values()}
    for file in OF_THE_PAPERS:
        opt = load_options(file, True, force=[f'scale={scale}']).data
        assert opt['name'].endswith(f'_x{scale}')
        written = f'experiments/{opt["name"]}/models/net_g_latest.pth'
        assert networks.get(written) == opt['network_g'], f'{file}: {written}'
    given = {f'experiments/pretrained_models/{net}_teacher_x{scale}.pth' for net in ('edsr', 'rcan', 'swinir')}
    given.add(f'experiments/pretrained_models/edsr_student_16_blocks_x{scale}.pth')
    written = {f'experiments/{read_options(file).data["name"]}'.replace('_x4', f'_x{scale}') for file in OF_THE_PAPERS}
    assert set(networks) - {None} - given == {f'{folder}/models/net_g_latest.pth' for folder in written}


def test_dukd_zooms_out_wherever_swinir_is_not_the_student():
    """As its Section 4.1 says, "when training SwinIR models"; the authors' files for RCAN do not either."""
    seen = set()
    for file in RECIPES:
        opt = read_options(file).data
        if 'dukd_opt' in opt['train'] and file.parent.name != 'dukd_authors':
            student, teachers = opt['network_g']['type'], str(opt['network_t'])
            assert opt['train']['dukd_opt']['zoom_out'] is (student != 'StagedSwinIR'), file
            seen.add((student == 'StagedSwinIR', 'StagedSwinIR' in teachers))
    assert seen == {(True, True), (False, True), (False, False)}


def test_dukd_augments_what_the_paper_says_where_it_is_called_the_papers():
    for net in ('edsr', 'rcan', 'swinir'):
        paper, ours = (
            load_options(ROOT / 'options' / 'train' / folder / f'{net}_x4.yml', True).data['train']['dukd_opt']
            for folder in ('dukd_paper', 'dukd')
        )
        assert (paper.pop('augment'), ours.pop('augment')) == (['zoom_in', 'zoom_out'], ['zoom_in'])
        assert paper == ours


def test_the_papers_settings_and_the_tuned_ones_are_called_what_they_are():
    for net in ('edsr', 'rcan', 'swinir'):
        paper, tuned = (
            load_options(ROOT / 'options' / 'train' / folder / f'{net}_x4.yml', True).data['train']['mipkd_opt']
            for folder in ('mipkd_paper', 'mipkd')
        )
        said = {'latent_width': 'teacher', 'student_probability': 0.5, 'drop_probability': 0, 'normalize': False}
        weights = {'feat_weight': 1, 'block_weight': 0.1}
        assert said | weights == {name: paper[name] for name in said | weights}
        assert not said.keys() & tuned.keys()
        header = (ROOT / 'options' / 'train' / 'mipkd' / f'{net}_x4.yml').read_text().splitlines()[0]
        assert 'tuned by our studies' in header
