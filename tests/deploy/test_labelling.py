"""A teacher's outputs as training targets."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main
from mipkd_sr.data.images import read_image
from mipkd_sr.data.paired_patch_dataset import PairedPatchDataset
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.evaluation.inference import self_ensemble
from tests.conftest import smooth_image

TEACHER = {'type': 'ReparamSR', 'num_feat': 4, 'num_block': 1, 'upscale': 2}


@pytest.fixture
def teacher(tmp_path: Path):
    torch.manual_seed(0)
    net = build_network(TEACHER).eval()
    (tmp_path / 'teacher.yml').write_text(yaml.safe_dump({'network_g': TEACHER}))
    torch.save({'params': net.state_dict()}, tmp_path / 'teacher.pth')
    return net


def label(folder: Path, store: str, *more: str) -> int:
    teacher = ['-opt', str(folder / 'teacher.yml'), '--weights', str(folder / 'teacher.pth')]
    command = ['label', str(folder / store), '--scale', '2', '--out', str(folder / 'out'), *teacher, '--tile', '0']
    return main([*command, '--precision', 'single', *more])


def prepared(folder: Path, store: str) -> list[str]:
    images = {f'wave{i}': smooth_image(41, 32, i) for i in range(3)}  # HR is larger than twice LR, in one direction
    write_pairs(images.items(), folder / store, [2], store=store)
    return list(images)


def image(file: Path) -> np.ndarray:
    return np.load(file) if file.suffix == '.npy' else read_image(file)


@pytest.mark.parametrize(('store', 'more'), [('npy', ()), ('png', ('--self-ensemble',))])
def test_labels_are_what_the_teacher_makes_of_the_mirrored_image(store, more, teacher, tmp_path, capsys):
    names, out = prepared(tmp_path, store), tmp_path / 'out'
    assert label(tmp_path, store, *more) == 0
    assert '6 pairs in' in capsys.readouterr().out
    for name in names:
        lq = image(tmp_path / store / 'LR_x2' / f'{name}.{store}')
        rgb = torch.from_numpy(np.pad(lq[..., ::-1], ((16, 16), (16, 16), (0, 0)), 'symmetric') / 255.0)
        with torch.no_grad():
            planes = rgb.permute(2, 0, 1)[None].float()
            sr = (self_ensemble(teacher, planes) if more else teacher(planes))[0, :, 32:-32, 32:-32]
        by_hand = sr.clamp(0, 1).mul(255).permute(1, 2, 0).numpy()[..., ::-1]
        labelled = image(out / 'HR_x2' / f'{name}_teacher.{store}')
        assert np.abs(labelled - by_hand).max() <= 0.501
        for folder in ('HR', 'LR_x2'):
            photograph = image(tmp_path / store / folder / f'{name}.{store}')
            np.testing.assert_array_equal(image(out / folder.replace('HR', 'HR_x2') / f'{name}.{store}'), photograph)
        np.testing.assert_array_equal(image(out / 'LR_x2' / f'{name}_teacher.{store}'), lq)


def test_labelled_pairs_are_a_training_set(teacher, tmp_path):
    names = prepared(tmp_path, 'npy')
    assert label(tmp_path, 'npy') == 0
    opt = {'dataroot_lq': tmp_path / 'out' / 'LR_x2', 'dataroot_gt': tmp_path / 'out' / 'HR_x2', 'scale': 2}
    dataset = PairedPatchDataset(opt | {'phase': 'train', 'gt_size': 16, 'use_hflip': True, 'use_rot': True})
    assert sorted(Path(pair['gt_path']).stem for pair in dataset.paths) == sorted(
        name + ending for name in names for ending in ('', '_teacher')
    )
    assert all(dataset[i]['gt'].shape == (3, 16, 16) for i in range(6))


def test_it_goes_on_where_it_stopped_and_makes_again_what_is_damaged(teacher, tmp_path, capsys):
    prepared(tmp_path, 'npy')
    assert label(tmp_path, 'npy') == 0
    files = {file: file.read_bytes() for file in (tmp_path / 'out').rglob('*.npy')}
    record = tmp_path / 'out' / 'labelled_x2.jsonl'
    record.write_text(record.read_text()[:-5])  # cut short, as it was being written
    (tmp_path / 'out' / 'HR_x2' / 'wave0_teacher.npy').write_bytes(b'damaged')
    capsys.readouterr()
    assert label(tmp_path, 'npy') == 0
    assert '3 of them labelled: 2 now, 1 before' in capsys.readouterr().out
    assert {file: file.read_bytes() for file in (tmp_path / 'out').rglob('*.npy')} == files
    assert label(tmp_path, 'npy') == 0
    assert '0 now, 3 before' in capsys.readouterr().out
    write_pairs([('wave1', smooth_image(41, 32, 9))], tmp_path / 'npy', [2], store='npy')  # another photograph now
    assert label(tmp_path, 'npy') == 0
    assert '1 now, 2 before' in capsys.readouterr().out


def test_what_cannot_be_labelled_is_one_sentence_and_nothing_is_lost(teacher, tmp_path, capsys):
    prepared(tmp_path, 'npy')

    def refused(*more: str) -> str:
        assert label(tmp_path, 'npy', *more) == 2
        return capsys.readouterr().err

    assert 'LR_x3 holds no image; give a folder that mipkd prepare has made' in refused('--scale', '3')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('mine')
    assert 'holds files that this command has not made' in refused()
    assert os.listdir(tmp_path / 'out') == ['mine.txt']
    (tmp_path / 'out' / 'mine.txt').unlink()
    assert label(tmp_path, 'npy') == 0
    assert 'was labelled otherwise' in refused('--self-ensemble')
    (tmp_path / 'npy' / 'LR_x2' / 'wave2.npy').unlink()
    assert 'has a label for wave2.npy, which is not in' in refused()
    (tmp_path / 'npy' / 'HR' / 'wave1.npy').unlink()
    assert 'HR/wave1.npy is missing; prepare the photographs again' in refused()


def test_labels_of_several_scales_lie_in_one_folder(teacher, tmp_path, capsys):
    write_pairs([('wave', smooth_image(36, 36, 0))], tmp_path / 'npy', [2, 3], store='npy')
    assert label(tmp_path, 'npy') == 0
    torch.save({'params': build_network(TEACHER | {'upscale': 3}).state_dict()}, tmp_path / 'teacher.pth')
    (tmp_path / 'teacher.yml').write_text(yaml.safe_dump({'network_g': TEACHER | {'upscale': 3}}))
    for now in (1, 0):
        assert label(tmp_path, 'npy', '--scale', '3') == 0
        assert f'1 of them labelled: {now} now, {1 - now} before' in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / 'out').glob('HR_x*/*')) == 2 * ['wave.npy'] + 2 * [
        'wave_teacher.npy'
    ]
    (tmp_path / 'out' / 'labelled_x3.jsonl').unlink()  # so the files of x3 may be anyone's
    assert label(tmp_path, 'npy', '--scale', '3') == 2


def test_a_teacher_of_another_scale_is_refused(teacher, tmp_path, capsys):
    write_pairs([('wave', smooth_image(36, 36, 0))], tmp_path / 'npy', [2, 3], store='npy')
    assert label(tmp_path, 'npy', '--scale', '3') == 2
    assert '--scale: is 3, but the teacher is for x2' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
