"""Data, folders and checkpoints that cannot be used: one sentence that names the file, and nothing written."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from PIL import Image

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main as mipkd
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.data.scan import image_info
from mipkd_sr.test import main as main_of_test
from mipkd_sr.train import main
from tests.conftest import TEACHER, experiment, smooth_image


@pytest.fixture
def own_pairs(tmp_path: Path) -> Path:
    """Pairs that a test may spoil."""
    folder = tmp_path / 'data'
    write_pairs(((f'wave{i}', smooth_image(48, 48, i)) for i in range(3)), folder, [2])
    return folder


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def overwrite(file: Path) -> None:
    file.write_text('hello')


def save_as(mode: str):
    return lambda file: Image.open(file).convert(mode).save(file)


def sixteen_bits(file: Path) -> None:
    cv2.imwrite(str(file), cv2.imread(str(file)).astype(np.uint16) * 257)


def crop(rows: int, columns: int):
    return lambda file: cv2.imwrite(str(file), cv2.imread(str(file))[:rows, :columns])


BOTH = ('HR/wave1.png', 'LR_x2/wave1.png')
BAD: dict[str, tuple[str, object, str]] = {
    'truncated': ('LR_x2/wave1.png', cut, 'LR_x2/wave1.png cannot be used: it is broken'),
    'corrupt': ('HR/wave1.png', spoil, 'HR/wave1.png cannot be used: it is broken, .*checksum'),
    'no image': (
        'HR/wave1.png',
        overwrite,
        'HR/wave1.png cannot be used: it is not an image',
    ),
    'empty file': (
        'HR/wave1.png',
        lambda file: file.write_bytes(b''),
        'HR/wave1.png cannot be used: it is not an image',
    ),
    'no LR image': ('LR_x2/wave1.png', Path.unlink, 'there is no .*LR_x2/wave1.png, .* the LR image of .*HR/wave1.png'),
    'no HR image': ('HR/wave1.png', Path.unlink, 'there is no HR image of .*LR_x2/wave1.png'),
    'sizes': ('LR_x2/wave1.png', crop(20, 24), 'HR/wave1.png is 48 x 48 pixels and .*LR_x2/wave1.png 20 x 24, but'),
    'not divisible': ('HR/wave1.png', crop(47, 48), 'HR/wave1.png is 47 x 48 pixels and .* must be 48 x 48'),
    'transparent': ('HR/wave1.png', save_as('RGBA'), 'HR/wave1.png has an alpha channel'),
    'grey and transparent': ('LR_x2/wave1.png', save_as('LA'), 'LR_x2/wave1.png has an alpha channel'),
    '16 bits': ('HR/wave1.png', sixteen_bits, 'HR/wave1.png has 16 bits a value'),
}


@pytest.mark.parametrize(('name', 'change', 'message'), BAD.values(), ids=BAD)
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_images_that_cannot_be_used_are_found_before_the_run(
    phase, name, change, message, own_pairs, training_options, write_options, tmp_path, capsys
):
    change(own_pairs / name)
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    file = write_options(training_options(datasets={phase: folders}))
    assert main(['-opt', str(file)]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert error.endswith('.')
    assert f'datasets:{phase}' in error
    assert re.search(message, error), error
    assert not experiment(tmp_path).exists()


@pytest.mark.parametrize('mode', ['L', 'P'])
def test_grey_and_palette_images_are_read_as_colour_and_said_so(
    mode, own_pairs, training_options, write_options, monkeypatch
):
    for name in BOTH:
        save_as(mode)(own_pairs / name)
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), 'info', said.append)
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    assert main(['-opt', str(write_options(training_options(datasets={'train': folders})))]) == 0
    form = {'L': 'grey', 'P': 'palette'}[mode]
    (note,) = (text for text in said if text.startswith(f'datasets:train: 2 {form} image(s), read as'))
    assert 'HR/wave1.png' in note


def test_a_patch_larger_than_an_image(own_pairs, training_options, write_options, tmp_path, capsys):
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2'), 'gt_size': 64}
    assert main(['-opt', str(write_options(training_options(datasets={'train': folders})))]) == 2
    assert 'datasets:train:gt_size: is 64, but ' in (error := capsys.readouterr().err)
    assert 'wave0.png is 48 x 48 pixels' in error


@pytest.mark.parametrize('dry_run', [[], ['--dry_run']])
@pytest.mark.parametrize(('metric', 'border', 'side'), [('ssim', 20, 51), ('psnr', 24, 49)])
def test_a_validation_image_that_a_metric_cannot_measure_is_found_before_the_run(
    metric, border, side, dry_run, training_options, write_options, tmp_path, capsys
):
    metrics = {metric: {'type': f'calculate_{metric}', 'crop_border': border}}
    file = write_options(training_options(val={'metrics': metrics}))
    assert main(['-opt', str(file), *dry_run]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert f'val:metrics:{metric}: needs images of at least {side} x {side} pixels' in error
    assert 'HR/wave0.png is 48 x 48; take it out' in error
    assert not experiment(tmp_path).exists()


def test_an_empty_folder(own_pairs, training_options, write_options, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    folders = {'dataroot_gt': str(tmp_path / 'empty'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    assert main(['-opt', str(write_options(training_options(datasets={'train': folders})))]) == 2
    assert f'datasets:train:dataroot_gt: {tmp_path}/empty holds no image.' in capsys.readouterr().err


def test_a_name_in_the_meta_file_without_an_image(own_pairs, training_options, write_options, tmp_path, capsys):
    (tmp_path / 'names.txt').write_text('wave0.png (48,48,3)\nwave7.png (48,48,3)\n')
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    opt = training_options(datasets={'train': {**folders, 'meta_info_file': str(tmp_path / 'names.txt')}})
    assert main(['-opt', str(write_options(opt))]) == 2
    assert 'datasets:train:meta_info_file: names wave7.png, but there is no ' in capsys.readouterr().err


@pytest.mark.parametrize('workers', [0, 1])
def test_without_the_scan_a_bad_image_ends_the_run_with_its_name(
    workers, own_pairs, training_options, write_options, tmp_path, capsys
):
    (own_pairs / 'HR' / 'wave1.png').write_text('hello')
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2'), 'scan': False}
    opt = training_options(datasets={'train': {**folders, 'num_worker_per_gpu': workers}})
    assert main(['-opt', str(write_options(opt))]) == 4
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert f'{own_pairs}/HR/wave1.png cannot be read: ' in error.replace(f'{own_pairs}/LR_x2/wave1.png or ', '')


def test_what_an_image_is(tmp_path):
    image = smooth_image(30, 20, 0)
    for name in ('a.png', 'a.jpg', 'a.bmp', 'a.tif', 'a.webp'):
        cv2.imwrite(str(tmp_path / name), image)
        assert image_info(tmp_path / name) == (30, 20, 'colour')
    cut(tmp_path / 'a.jpg')
    with pytest.raises(ValueError, match='image file is truncated'):
        image_info(tmp_path / 'a.jpg')
    np.save(tmp_path / 'a.npy', image)
    assert image_info(tmp_path / 'a.npy') == (30, 20, 'colour')
    cut(tmp_path / 'a.npy')
    with pytest.raises(ValueError, match='it is not a whole array'):
        image_info(tmp_path / 'a.npy')


def refused(training_options, write_options, capsys, root=None, **changes) -> str:
    arguments = ['-opt', str(write_options(training_options('kd', **changes)))]
    assert main(arguments + (['--root', str(root)] if root else [])) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    return error


class Code:
    def __reduce__(self) -> tuple:
        return (os.system, ('true',))


def teacher_files(folder: Path) -> dict[str, Path]:
    files = {name: folder / f'{name}.pth' for name in ('truncated', 'other', 'code', 'text')}
    torch.save({'params': build_network(TEACHER).state_dict()}, files['truncated'])
    cut(files['truncated'])
    torch.save({'params': build_network(TEACHER | {'num_feat': 20}).state_dict()}, files['other'])
    torch.save({'params': Code()}, files['code'])
    files['text'].write_text('no weights')
    return files


@pytest.mark.parametrize('kind', ['truncated', 'other', 'code', 'text'])
def test_a_teacher_file_that_cannot_be_used(kind, training_options, write_options, tmp_path, capsys):
    file = teacher_files(tmp_path)[kind]
    error = refused(training_options, write_options, capsys, path={'pretrain_network_t': str(file)})
    assert 'path:pretrain_network_t: ' in error
    assert str(file) in error
    assert ('holds another network' if kind == 'other' else 'is not a checkpoint that can be loaded safely') in error
    assert not experiment(tmp_path).exists()


def test_an_output_folder_that_is_a_file(training_options, write_options, tmp_path, capsys):
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / 'experiments').write_text('in the way')
    error = refused(training_options, write_options, capsys, root=tmp_path / 'root')
    assert f'{tmp_path}/root/experiments' in error
    assert (tmp_path / 'root' / 'experiments').read_text() == 'in the way'


def test_an_output_folder_that_cannot_be_written_to(training_options, write_options, tmp_path, capsys, monkeypatch):
    """Root may write anywhere, so the system's answer is given in its place."""

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, 'Permission denied', str(self))

    monkeypatch.setattr(Path, 'mkdir', refuse)
    error = refused(training_options, write_options, capsys)
    assert (
        f'name: {experiment(tmp_path)}: Permission denied; make it writable. Or give another folder with --root.'
        in error
    )


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write to read-only folders')
def test_a_read_only_output_folder(training_options, write_options, tmp_path, capsys):
    (tmp_path / 'root').mkdir(mode=0o500)
    error = refused(training_options, write_options, capsys, root=tmp_path / 'root')
    assert 'Permission denied' in error


def test_a_full_output_folder(training_options, write_options, tmp_path, capsys, monkeypatch):
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(28, 'No space left on device', str(self))

    monkeypatch.setattr(Path, 'mkdir', refuse)
    error = refused(training_options, write_options, capsys)
    assert 'No space left on device; free some space' in error


PATHS = [
    '',
    '.',
    '..',
    '../photos',
    '/etc/photos',
    'a/b',
    'a\\b',
    '.hidden',
    'a\tb',
    'line\nbreak',
    'n' * 300,
    'é' * 120,
]


@pytest.mark.parametrize('dry_run', [[], ['--dry_run']])
@pytest.mark.parametrize('name', PATHS)
def test_a_name_that_would_lead_out_of_its_folder(name, dry_run, training_options, write_options, tmp_path, capsys):
    """In a folder of its own, as such names rename folders around them."""
    (tmp_path / 'root' / 'experiments' / 'mine').mkdir(parents=True)
    for opt in (training_options(name=name), training_options(datasets={'val': {'name': name}})):
        assert main(['-opt', str(write_options(opt)), '--root', str(tmp_path / 'root'), *dry_run]) == 2
        (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
        assert 'name: ' in error
        assert error.endswith('; it is the name of a folder or file, so give a plain one.')
    assert sorted((tmp_path / 'root').rglob('*')) == [
        tmp_path / 'root' / 'experiments',
        tmp_path / 'root' / 'experiments' / 'mine',
    ]


@pytest.mark.parametrize('entry', ['networks', 'suffix', 'val', 'datasets'])
def test_a_name_in_a_test_that_would_lead_out_of_its_folder(entry, pairs, write_options, tmp_path, capsys):
    network = {'network': {'type': 'Bicubic', 'upscale': 2}}
    folders = {'dataroot_gt': str(pairs / 'HR'), 'dataroot_lq': str(pairs / 'LR_x2')}
    opt = {'name': 'test', 'scale': 2, 'num_gpu': 0, 'datasets': {'test': {'name': 'waves', **folders}}, 'networks': {}}
    opt['networks'] = {'../../x' if entry == 'networks' else 'bicubic': network}
    opt['suffix'] = '/x' if entry == 'suffix' else None
    opt['val'] = {'save_img': True, 'suffix': 'a/b' if entry == 'val' else None}
    if entry == 'datasets':
        opt['datasets']['test']['name'] = str(tmp_path / 'elsewhere')
    assert main_of_test(['-opt', str(write_options(opt))]) == 2
    assert 'has a slash' in capsys.readouterr().err or entry == 'networks'
    assert sorted(file.name for file in tmp_path.iterdir()) == ['options.yml']


@pytest.mark.parametrize('dry_run', [[], ['--dry_run']])
@pytest.mark.parametrize('kind', ['folder', 'file', 'link'])
def test_only_a_folder_that_holds_a_run_is_archived(kind, dry_run, training_options, write_options, tmp_path, capsys):
    photos = experiment(tmp_path)
    photos.parent.mkdir()
    if kind == 'folder':
        (photos / 'models').mkdir(parents=True)
    elif kind == 'file':
        photos.write_text('mine')
    else:
        photos.symlink_to('nowhere')
    for resume in ([], ['--auto_resume']):
        assert main(['-opt', str(write_options(training_options())), *resume, *dry_run]) == 2
        assert f'name: {photos} is in the way, and ' in capsys.readouterr().err
    assert list((tmp_path / 'experiments').rglob('*')) == [photos, *photos.glob('*')]


def test_only_results_and_logs_of_ours_are_archived(training_options, pairs, write_options, tmp_path, capsys):
    (tmp_path / 'results' / 'test').mkdir(parents=True)
    (tmp_path / 'results' / 'test' / 'thesis.txt').write_text('mine')
    folders = {'dataroot_gt': str(pairs / 'HR'), 'dataroot_lq': str(pairs / 'LR_x2')}
    opt = {'name': 'test', 'scale': 2, 'num_gpu': 0, 'datasets': {'test': {'name': 'waves', **folders}}}
    opt['networks'] = {'bicubic': {'network': {'type': 'Bicubic', 'upscale': 2}}}
    assert main_of_test(['-opt', str(write_options(opt))]) == 2
    assert f'name: {tmp_path}/results/test is in the way, and holds no run' in capsys.readouterr().err
    (tmp_path / 'tb_logger' / 'tiny').mkdir(parents=True)
    (tmp_path / 'tb_logger' / 'tiny' / 'notes.txt').write_text('mine')
    assert main(['-opt', str(write_options(training_options()))]) == 2
    assert f'name: {tmp_path}/tb_logger/tiny is in the way, and holds no run' in capsys.readouterr().err
    assert not experiment(tmp_path).exists()


@pytest.mark.parametrize('dry_run', [[], ['--dry_run']])
@pytest.mark.parametrize(('batch', 'options', 'least'), [(1, {'angle_weight': 0}, 2), (1, {}, 3), (2, {}, 3)])
def test_relations_of_too_few_samples(
    batch, options, least, dry_run, training_options, write_options, tmp_path, capsys
):
    opt = training_options('kd', train={'rkd_opt': {'type': 'RKDLoss', **options}})
    opt['datasets']['train']['batch_size_per_gpu'] = batch
    assert main(['-opt', str(write_options(opt)), *dry_run]) == 2
    error = capsys.readouterr().err
    assert (
        f'train:rkd_opt: relates the samples of a batch to each other, {least} at least, but a batch has {batch}'
        in error
    )
    opt['datasets']['train']['batch_size_per_gpu'] = least
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 0


def test_no_positions_at_all(training_options, write_options, capsys):
    opt = training_options('kd', train={'fitnet_opt': {'type': 'FitNetLoss', 'positions': []}})
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 2
    assert 'train:fitnet_opt' in (error := capsys.readouterr().err)
    assert 'positions' in error


@pytest.mark.parametrize('validated', [True, False])
def test_a_teacher_that_gives_nan_is_said_to_do_so_and_nothing_learned_is_no_success(
    validated, training_options, write_options, tmp_path, capsys
):
    weights = build_network(TEACHER).state_dict()
    weights['conv_last.bias'][0] = np.nan
    torch.save({'params': weights}, tmp_path / 'nan.pth')
    opt = training_options('kd', path={'pretrain_network_t': str(tmp_path / 'nan.pth')})
    if not validated:
        opt.pop('val')
    assert main(['-opt', str(write_options(opt))]) == 4
    error = capsys.readouterr().err
    (log,) = experiment(tmp_path).glob('train_*.log')
    if validated:
        assert 'the output of teacher for ' in error
        assert f'; the weights of teacher are those of {tmp_path}/nan.pth.' in error
    else:
        assert 'error: Each of the 4 iterations was skipped' in error
        skipped = (
            f'iteration 4 was skipped: l_kd not finite on .*; the output of the teacher in {tmp_path}/nan.pth is not'
        )
        assert re.search(skipped, log.read_text())
    assert not list((experiment(tmp_path) / 'models').glob('net_g_latest.pth'))


def turn(file: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    Image.open(file).save(file, exif=exif)


def as_file(name: str, change):
    """Save both images of a pair under another ending, and spoil the HR image."""

    def save(folder: Path) -> None:
        for image in BOTH:
            Image.open(folder / image).save((folder / image).with_suffix(name))
            (folder / image).unlink()
        change((folder / BOTH[0]).with_suffix(name))

    return save


def link_to_nothing(folder: Path) -> None:
    for image in BOTH:
        (folder / image).unlink()
        (folder / image).symlink_to('nowhere.png')


def sixteen_bit_tiff(file: Path) -> None:
    cv2.imwrite(str(file), cv2.imread(str(file)).astype(np.uint16) * 257)


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


UNSEEN = {
    'links to nothing': (link_to_nothing, r'wave1.png links to nothing'),
    '16 bits in TIFF': (as_file('.tif', sixteen_bit_tiff), r'HR/wave1.tif has 16 bits a value'),
    'LAB': (
        as_file('.tif', lambda file: Image.open(file).convert('LAB').save(file)),
        'has neither RGB nor grey values',
    ),
    'CMYK': (as_file('.jpg', save_as('CMYK')), 'has neither RGB nor grey'),
    'turned JPEG': (as_file('.jpg', turn), r'HR/wave1.jpg is turned by its EXIF data'),
    'turned PNG': (lambda folder: turn(folder / BOTH[0]), r'HR/wave1.png is turned by its EXIF data'),
    'cut BMP': (as_file('.bmp', half), r'HR/wave1.bmp cannot be used: it is broken'),
    'cut TIFF': (as_file('.tif', lambda file: cut(file)), r'HR/wave1.tif cannot be used'),
    'cut GIF': (as_file('.gif', half), r'HR/wave1.gif cannot be used: it is broken'),
}


@pytest.mark.parametrize(('change', 'message'), UNSEEN.values(), ids=UNSEEN)
def test_what_only_a_second_look_at_the_files_shows(
    change, message, own_pairs, training_options, write_options, tmp_path, capsys
):
    change(own_pairs)
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    assert main(['-opt', str(write_options(training_options(datasets={'train': folders}))), '--dry_run']) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert re.search(message, error), error


def test_an_image_larger_than_pillow_usually_reads_is_no_fault(tmp_path):
    image = Image.new('1', (2**14, 12_000))  # 196 million pixels
    image.save(tmp_path / 'large.png')
    assert image_info(tmp_path / 'large.png') == (12_000, 2**14, 'grey')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'name': 'waves'}, 'datasets:val_2:name: is that of datasets:val too; give them apart.'),
        ({'filename_tmpl': '{'}, "datasets:val_2:filename_tmpl: must be text with one {}, such as '{}x4', not '{'."),
        (
            {'dataroot_lq': '~no_such_user/x'},
            'dataroot_lq: names the folder of a user that there is not',
        ),
        ({'dataroot_lq': None}, 'datasets:val_2:dataroot_lq: is missing; PairedImageDataset needs it.'),
        ({'dataroot_gt': ''}, "datasets:val_2:dataroot_gt: must be a path, not ''."),
        ({'dataroot_gt': 'x' * 300}, 'datasets:val_2:dataroot_gt: there is no '),
    ],
)
def test_data_sets_that_cannot_be_told_apart_or_found(
    changes, message, own_pairs, training_options, write_options, capsys
):
    own = {'type': 'PairedImageDataset', 'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    opt = training_options(datasets={'val': {'name': 'waves'}, 'val_2': {'name': 'more', **own, **changes}})
    assert main(['-opt', str(write_options(opt))]) == 2
    assert message in capsys.readouterr().err


def test_two_images_of_one_name_are_refused(own_pairs, training_options, write_options, capsys):
    for image in BOTH:
        Image.open(own_pairs / image).save((own_pairs / image).with_suffix('.bmp'))
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    assert main(['-opt', str(write_options(training_options(datasets={'val': folders})))]) == 2
    assert 'wave1.bmp and' in (error := capsys.readouterr().err)
    assert 'wave1.png have one name, wave1; rename one.' in error


def test_whole_lr_images_cannot_be_trained_on(own_pairs, training_options, write_options, capsys):
    change = {'type': 'SingleImageDataset', 'dataroot_lq': str(own_pairs / 'LR_x2')}
    assert main(['-opt', str(write_options(training_options(datasets={'train': change})))]) == 2
    assert (
        'datasets:train:type: SingleImageDataset gives whole images; to train: UnpairedImageDataset'
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    'place',
    ['model_type', 'network_g:type', 'network_t:type', 'datasets:train:type', 'datasets:val:type', 'train:optim_g:type',
     'train:scheduler:type', 'train:pixel_opt:type', 'train:mipkd_opt:type', 'val:metrics:psnr:type'],
)  # fmt: skip
def test_a_class_whose_name_is_thousands_of_characters_long(place, training_options, write_options, capsys):
    *sections, last = place.split(':')
    change = {last: 'Network' * 900}
    for section in reversed(sections):
        change = {section: change}
    assert main(['-opt', str(write_options(training_options(**change))), '--dry_run']) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert place in error
    assert len(error) < 2500


ABSURD = {
    'a loss of something else': ({'train': {'x_opt': {'type': 'GANLoss', 'gan_type': 'vanilla'}}}, 'train:x_opt: '),
    'an optimizer that needs a closure': ({'train': {'optim_g': {'type': 'LBFGS', 'betas': None}}}, 'train:optim_g'),
    'a learning rate': ({'train': {'optim_g': {'lr': -1}}}, 'train:optim_g: Invalid learning rate: -1'),
    'no channels': ({'network_g': {'num_feat': -1}}, 'network_g: cannot be built; look at its arguments (RuntimeError'),
    'periods': (
        {'train': {'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [1], 'restart_weights': [1]}}},
        'train:scheduler:periods: end after 1 steps, before total_iter, 4.',
    ),
}


@pytest.mark.parametrize(('changes', 'message'), ABSURD.values(), ids=ABSURD)
def test_what_classes_raise_for_absurd_arguments_is_one_sentence(
    changes, message, training_options, write_options, capsys
):
    opt = training_options(**changes)
    optimizer, scheduler = opt['train']['optim_g'], opt['train']['scheduler']
    if optimizer['type'] == 'LBFGS':
        del optimizer['betas']
    if 'periods' in scheduler:
        del scheduler['milestones'], scheduler['gamma']
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert message in error


@pytest.mark.parametrize(
    'content',
    [5, [], {}, {'iter': 'x', 'samples': 0}, {'iter': 1, 'samples': 2, 'networks': 3}],
)
@pytest.mark.parametrize('dry_run', [[], ['--dry_run']])
def test_a_crafted_training_state_is_one_sentence(dry_run, content, training_options, write_options, tmp_path, capsys):
    torch.save(content, tmp_path / '1.state')
    opt = training_options(path={'resume_state': str(tmp_path / '1.state')})
    assert main(['-opt', str(write_options(opt)), *dry_run]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert 'path:resume_state: ' in error
    assert not experiment(tmp_path).exists()


def test_links_in_the_way_lose_nothing(training_options, write_options, tmp_path, capsys):
    """A run's folder on another disk stays there, with what it held; a lock that is a link is not written through."""
    disk = tmp_path / 'disk'
    (disk / 'tiny').mkdir(parents=True)
    (tmp_path / 'experiments').mkdir()
    experiment(tmp_path).symlink_to(disk / 'tiny')
    file = write_options(training_options())
    for _ in range(2):
        assert main(['-opt', str(file)]) == 0
    assert experiment(tmp_path).is_symlink()
    assert len(list(disk.glob('tiny*/models/net_g_latest.pth'))) == 2
    assert not [folder for folder in (tmp_path / 'experiments').iterdir() if folder.name != 'tiny']
    (disk / 'tiny' / '.run.lock').unlink()
    (tmp_path / 'mine').write_text('mine')
    (disk / 'tiny' / '.run.lock').symlink_to(tmp_path / 'mine')
    capsys.readouterr()
    assert main(['-opt', str(file)]) == 2
    assert '.run.lock is a link' in capsys.readouterr().err
    assert (tmp_path / 'mine').read_text() == 'mine'
    disk.rename(tmp_path / 'unmounted')
    assert main(['-opt', str(file)]) == 2
    assert 'is in the way, and is no folder' in capsys.readouterr().err
    assert not disk.exists()


def test_a_recipe_is_not_copied_through_a_link(tmp_path, capsys):
    target = tmp_path / 'options' / 'train' / 'demo' / 'kd.yml'
    target.parent.mkdir(parents=True)
    target.symlink_to(tmp_path / 'elsewhere.yml')
    assert mipkd(['recipes', 'demo/kd', '--copy', str(tmp_path)]) == 0
    assert f'{target} is there already, and is not as shipped; it stays' in capsys.readouterr().out
    assert not (tmp_path / 'elsewhere.yml').exists()


def test_images_of_one_channel_are_not_given_to_a_network_of_three(training_options, write_options, capsys):
    opt = training_options()
    opt['datasets']['train']['color'] = 'y'
    for arguments in ([], ['--dry_run']):
        assert main(['-opt', str(write_options(opt)), *arguments]) == 2
        assert 'datasets:train:color: is y, images of one channel, but network_g takes 3' in capsys.readouterr().err


def test_what_windows_puts_among_images_is_none(training_options, write_options, own_pairs):
    (own_pairs / 'HR' / 'Thumbs.db').write_bytes(b'x')
    opt = training_options(train={'total_iter': 1})
    folders = {'dataroot_gt': str(own_pairs / 'HR'), 'dataroot_lq': str(own_pairs / 'LR_x2')}
    opt['datasets']['train'] |= folders
    assert main(['-opt', str(write_options(opt))]) == 0


def metric_of_one_image(image, crop_border):
    return 0.0


def test_a_metric_takes_two_images(training_options, write_options, capsys):
    name = 'metric_of_one_image'
    METRIC_REGISTRY._obj_map[name] = metric_of_one_image
    try:
        opt = training_options(val={'metrics': {'one': {'type': name}}})
        assert main(['-opt', str(write_options(opt))]) == 2
        assert 'val:metrics:one:type: metric_of_one_image takes image, crop_border; a metric takes two images' in (
            capsys.readouterr().err
        )
    finally:
        del METRIC_REGISTRY._obj_map[name]


class Curious(PairedImageDataset):
    """Gives what is asked for, but for one name."""

    def __getitem__(self, index):
        if self.opt['missing'] == 'raises':
            raise NameError("name 'npp' is not defined")
        return {name: value for name, value in super().__getitem__(index).items() if name != self.opt['missing']}


@pytest.mark.parametrize(
    ('phase', 'missing', 'message'),
    [
        ('train', 'gt', 'train:pixel_opt: needs HR images, which no training set has'),
        ('val', 'gt', "datasets:val: its samples have no 'gt'"),
        ('val', 'raises', "datasets:val: its sample 0 cannot be read: NameError: name 'npp' is not defined .*line"),
    ],
)
def test_the_dry_run_reads_a_sample_of_each_set(phase, missing, message, training_options, write_options, capsys):
    DATASET_REGISTRY._obj_map['Curious'] = Curious
    try:
        opt = training_options()
        opt['datasets'][phase] |= {'type': 'Curious', 'missing': missing}
        assert main(['-opt', str(write_options(opt)), '--dry_run']) in (2, 4)
        assert re.search(message, capsys.readouterr().err)
    finally:
        del DATASET_REGISTRY._obj_map['Curious']


def metric_that_fails(img, img2):
    raise ZeroDivisionError('boom')


class Failing(torch.nn.Module):
    def forward(self, sr, gt):
        if sr.shape[-1] != 32:  # what it is tried with as it is built
            raise ZeroDivisionError('bang')
        return (sr - gt).abs().mean()


def test_the_dry_run_calls_each_metric_and_takes_a_step_without_a_trace(
    training_options, write_options, tmp_path, capsys
):
    METRIC_REGISTRY._obj_map['failing'] = metric_that_fails
    LOSS_REGISTRY._obj_map['Failing'] = Failing
    try:
        opt = training_options(val={'metrics': {'own': {'type': 'failing'}}})
        assert main(['-opt', str(write_options(opt)), '--dry_run']) == 4
        assert re.search('cannot be measured by own: ZeroDivisionError: boom .*line', capsys.readouterr().err)
        opt = training_options(train={'own_opt': {'type': 'Failing'}})
        assert main(['-opt', str(write_options(opt)), '--dry_run']) == 4
        assert re.search('a training step fails: ZeroDivisionError: bang .*line', capsys.readouterr().err)
    finally:
        del METRIC_REGISTRY._obj_map['failing'], LOSS_REGISTRY._obj_map['Failing']
    assert main(['-opt', str(write_options(training_options('kd', 'mipkd'))), '--dry_run']) == 0
    assert [file.name for file in tmp_path.iterdir()] == ['options.yml']
