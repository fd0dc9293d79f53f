"""Preparing data, and reading patches of it."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset

from mipkd_sr.cli import main as mipkd
from mipkd_sr.data import PairedPatchDataset
from mipkd_sr.data.images import imfrombytes
from mipkd_sr.data.pairs import write_pairs
from mipkd_sr.data.single_patch_datasets import UnpairedImageDataset
from mipkd_sr.train import main
from tests.conftest import ENVIRONMENT, experiment, smooth_image

COMMAND = [sys.executable, '-m', 'mipkd_sr', 'prepare']


def prepare(*arguments: object, code: int = 0) -> str:
    """Run the command in this process; returns its last words."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        assert mipkd(['prepare', *map(str, arguments), '--jobs', '1']) == code
    return said.getvalue()


@pytest.fixture(scope='module')
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('photographs')
    for i in range(6):
        cv2.imwrite(str(folder / f'photo{i}.png'), smooth_image(61 + i, 75, i))
    return folder


@pytest.fixture(scope='module')
def stores(photographs, tmp_path_factory) -> Path:
    """The photographs, cut into tiles, as PNG files and as arrays."""
    folder = tmp_path_factory.mktemp('stores')
    for store in ('png', 'npy'):
        images = ((file.stem, cv2.imread(str(file))) for file in sorted(photographs.iterdir()))
        write_pairs(images, folder / store, [2, 3], 36, store)
    return folder


@pytest.mark.parametrize('phase', ['train', 'val'])
@pytest.mark.parametrize('scale', [2, 3])
@pytest.mark.parametrize('more', [{}, {'mean': [0.5, 0.4, 0.3], 'std': [1.0, 2.0, 3.0]}], ids=['', 'normalised'])
def test_samples_from_arrays_are_basicsrs_from_png_files_bit_for_bit(stores, phase, scale, more):
    samples = []
    for kind, store in ((PairedImageDataset, 'png'), (PairedPatchDataset, 'npy')):
        opt = {
            'dataroot_gt': str(stores / store / 'HR'),
            'dataroot_lq': str(stores / store / f'LR_x{scale}'),
            'io_backend': {'type': 'disk'},
            'scale': scale,
            'phase': phase,
            'gt_size': 6 * scale,
            'use_hflip': True,
            'use_rot': True,
            **more,
        }
        dataset = kind(opt)
        dataset.paths.sort(key=lambda path: path['gt_path'])
        random.seed(5)
        samples.append([dataset[i % len(dataset)] for i in range(60)])
    assert len(dataset) == 6 * 6
    for ours, theirs in zip(*samples, strict=True):
        assert torch.equal(ours['lq'], theirs['lq'])
        assert torch.equal(ours['gt'], theirs['gt'])
        assert Path(ours['gt_path']).stem == Path(theirs['gt_path']).stem


@pytest.mark.parametrize('phase', ['train', 'val'])
@pytest.mark.parametrize('kind', ['lq', 'gt'])
def test_unpaired_arrays_are_as_png_files_bit_for_bit(stores, phase, kind):
    samples = []
    for store in ('png', 'npy'):
        opt = {'dataroot_lq': None, 'dataroot_gt': None, 'io_backend': {'type': 'disk'}, 'scale': 2, 'phase': phase}
        opt |= {'gt_size': 16, 'use_hflip': True, 'use_rot': True, f'dataroot_{kind}': str(stores / store / 'HR')}
        dataset = UnpairedImageDataset(opt)
        random.seed(5)
        samples.append([dataset[index][kind] for index in range(len(dataset))])
    assert all(torch.equal(*two) for two in zip(*samples, strict=True))
    assert len({image.numpy().tobytes() for image in samples[0]}) == len(samples[0])


def test_every_reader_of_images_reads_arrays(stores):
    png, npy = (next((stores / store / 'HR').iterdir()) for store in ('png', 'npy'))
    npy = npy.with_name(f'{png.stem}.npy')
    for float32 in (False, True):
        images = [imfrombytes(file.read_bytes(), float32=float32) for file in (png, npy)]
        assert images[0].dtype == images[1].dtype
        assert np.array_equal(*images)


def test_a_run_reads_arrays(stores, training_options, write_options, tmp_path, capsys):
    data = {
        'type': 'PairedPatchDataset',
        'dataroot_gt': str(stores / 'npy/HR'),
        'dataroot_lq': str(stores / 'npy/LR_x2'),
    }
    assert main(['-opt', str(write_options(training_options(datasets={'train': data, 'val': data})))]) == 0
    wrong = data | {'dataroot_gt': str(stores / 'png/HR'), 'dataroot_lq': str(stores / 'png/LR_x2')}
    assert main(['-opt', str(write_options(training_options(datasets={'train': wrong})))]) == 2
    assert 'is no array; prepare the images with mipkd prepare --store npy.' in capsys.readouterr().err
    assert experiment(tmp_path).exists()


@pytest.mark.parametrize('store', ['png', 'npy'])
def test_prepared_files_are_verified_and_a_changed_one_is_named(store, photographs, tmp_path):
    out = tmp_path / 'out'
    options = (str(photographs), '--out', str(out), '--scale', '2', '3', '--tile', '36', '--store', store)
    if store == 'npy':
        said = prepare(*options)
    else:  # once as the command, by processes of its own
        done = subprocess.run([*COMMAND, *options, '--jobs', '2'], env=ENVIRONMENT, capture_output=True, text=True)
        said = done.stdout + done.stderr
    assert '36 pairs' in said
    assert {folder.name for folder in out.iterdir()} == {'HR', 'LR_x2', 'LR_x3', 'prepared.jsonl'}
    assert 'every file is what the photographs give' in prepare(*options, '--verify')
    file = out / 'LR_x3' / f'photo2_001.{store}'
    image = np.load(file) if store == 'npy' else cv2.imread(str(file))
    image[0, 0, 0] ^= 1
    np.save(file, image) if store == 'npy' else cv2.imwrite(str(file), image)
    before = file.read_bytes()
    assert f'{file} is absent or not the image that it should be' in prepare(*options, '--verify', code=4)
    assert file.read_bytes() == before


def test_a_killed_preparation_resumes_where_it_stopped(photographs, tmp_path):
    out, many = tmp_path / 'out', tmp_path / 'many'
    many.mkdir()
    for i in range(200):
        (many / f'p{i}.png').symlink_to(photographs / f'photo{i % 6}.png')
    command = [*COMMAND, str(many), '--out', str(out), '--jobs', '1']
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)
    record = out / 'prepared.jsonl'
    while not record.exists() or len(record.read_text().splitlines()) < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(record.read_text().splitlines()) - 1
    assert 4 <= done < 200
    record.write_text(record.read_text() + '{"name": "p1')  # as if it had been killed in the middle of a line
    (out / 'HR' / '.p7.png.1.part').write_bytes(b'half')  # and of a file
    written = {file.name: file.stat().st_mtime_ns for file in (out / 'HR').glob('p[0-9].png')}
    assert '200 pairs' in prepare(many, '--out', out)
    entries = [json.loads(line) for line in record.read_text().splitlines()[1:]]
    assert sorted(entry['name'] for entry in entries) == sorted(f'p{i}' for i in range(200))
    assert (out / 'HR' / 'p0.png').stat().st_mtime_ns == written['p0.png']
    assert 'every file' in prepare(many, '--out', out, '--verify')
    assert not [file for file in (out / 'HR').iterdir() if file.name.startswith('.')]


def test_a_preparation_that_a_full_disk_ended_goes_on(photographs, tmp_path, monkeypatch):
    """The disk has no room for the record; one that was left empty by it is begun anew."""
    out, write_text = tmp_path / 'out', Path.write_text

    def full(self: Path, *arguments: object, **options: object) -> None:
        self.touch()
        raise OSError(28, 'No space left on device', str(self))

    monkeypatch.setattr(Path, 'write_text', full)
    assert 'No space left on device' in prepare(photographs, '--out', out, '--scale', 2, code=4)
    assert list(out.iterdir()) == []
    monkeypatch.setattr(Path, 'write_text', write_text)
    (out / 'prepared.jsonl').touch()
    prepare(photographs, '--out', out, '--scale', 2)
    assert 'every file is what' in prepare(photographs, '--out', out, '--scale', 2, '--verify')


def test_what_cannot_be_prepared_is_said_in_one_sentence(photographs, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes.txt').write_text('kept')
    assert 'holds files that this command has not prepared' in prepare(photographs, '--out', tmp_path / 'mine', code=2)
    assert 'mine holds no image' in prepare(tmp_path / 'mine', '--out', tmp_path / 'out', code=2)
    prepare(photographs, '--out', tmp_path / 'out', '--scale', 2)
    assert 'with other settings' in prepare(photographs, '--out', tmp_path / 'out', '--scale', 3, code=2)
    (tmp_path / 'mine' / 'broken.png').write_text('no image')
    assert 'broken.png cannot be read as an image' in prepare(tmp_path / 'mine', '--out', tmp_path / 'other', code=4)
    assert '--tile: 25 cannot be divided' in prepare(photographs, '--out', tmp_path / 'o', '--tile', 25, code=2)


def test_a_run_reads_whole_images_that_the_scale_does_not_divide(
    photographs, training_options, write_options, tmp_path
):
    images = ((file.stem, cv2.imread(str(file))) for file in sorted(photographs.iterdir()))
    write_pairs(images, tmp_path / 'whole', [2], store='npy')
    assert np.load(tmp_path / 'whole/HR/photo0.npy').shape == (61, 75, 3)
    folders = {'dataroot_gt': str(tmp_path / 'whole/HR'), 'dataroot_lq': str(tmp_path / 'whole/LR_x2')}
    data = {'type': 'PairedPatchDataset', **folders}
    assert main(['-opt', str(write_options(training_options(datasets={'train': data, 'val': data})))]) == 0


def test_whole_images_stay_whole_and_each_scale_has_its_own_part(tmp_path):
    """As the published test sets are made: 61 x 75 is 20 x 25 at x3, of 60 x 75, and 15 x 18 at x4, of 60 x 72."""
    write_pairs([('a', smooth_image(61, 75, 0))], tmp_path, [3, 4])
    shapes = {file.parent.name: cv2.imread(str(file)).shape[:2] for file in tmp_path.rglob('*.png')}
    assert shapes == {'HR': (61, 75), 'LR_x3': (20, 25), 'LR_x4': (15, 18)}


def test_pairs_of_photographs_that_shrank_or_left_are_out_of_the_sets(tmp_path):
    (photos := tmp_path / 'photos').mkdir()
    for i in range(3):
        cv2.imwrite(str(photos / f'photo{i}.png'), smooth_image(72, 72, i))
    out = tmp_path / 'out'
    options = (photos, '--out', out, '--scale', 2, '--tile', 36)
    assert '12 pairs' in prepare(*options)
    cv2.imwrite(str(photos / 'photo0.png'), smooth_image(36, 36, 0))
    (photos / 'photo1.png').unlink()
    said = prepare(*options, '--verify', code=4)
    assert 'is absent or not the image that it should be' in said or 'is of none of the photographs' in said
    said = prepare(*options)
    assert f'8 pairs of photographs that have changed or are not here any more are now in {out}/left' in said
    assert '5 pairs' in said
    for folder in ('HR', 'LR_x2'):
        assert sorted(file.name for file in (out / folder).iterdir()) == [
            'photo0_000.png', *(f'photo2_00{i}.png' for i in range(4))
        ]  # fmt: skip
        assert len(list((out / 'left' / folder).iterdir())) == 8  # nothing is lost
    assert '5 pairs' in prepare(*options, '--verify')
    (out / 'HR' / 'mine.png').write_bytes((out / 'HR' / 'photo0_000.png').read_bytes())
    assert f'{out}/HR/mine.png is of none of the photographs' in prepare(*options, '--verify', code=4)


def test_another_data_set_is_not_put_in_the_place_of_the_first(photographs, tmp_path):
    """Of other names, and of the same names."""
    out, others = tmp_path / 'out', tmp_path / 'others'
    assert '6 pairs' in prepare(photographs, '--out', out, '--scale', 2)
    before = {file: file.read_bytes() for file in out.rglob('*.*')}
    for name in ('other', 'photo'):
        (folder := others / name).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(folder / f'{name}{i}.png'), smooth_image(48, 48, 10 + i))
        said = prepare(folder, '--out', out, '--scale', 2, code=2)
        assert f"error: --out: {out} was prepared from other photographs ('photo0' is the first); give another" in said
    assert {file: file.read_bytes() for file in out.rglob('*.*')} == before


def test_verifying_writes_nothing(photographs, tmp_path):
    prepare(photographs, '--out', tmp_path / 'out', '--scale', 2)
    record = tmp_path / 'out' / 'prepared.jsonl'
    record.write_text(record.read_text() + '{"name": "cut')
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / 'out').rglob('*')}
    prepare(photographs, '--out', tmp_path / 'out', '--scale', 2, '--verify')
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / 'out').rglob('*')} == before


@pytest.mark.parametrize('text', ['{', 'null', '[]\n5\n', '{}\n{"name": 1}\n', '\udcff'])
def test_a_damaged_record_is_one_sentence(text, photographs, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'prepared.jsonl').write_bytes(text.encode('utf-8', 'surrogateescape'))
    said = prepare(photographs, '--out', tmp_path / 'out', code=2)
    assert 'is damaged' in said or 'with other settings' in said


@pytest.mark.skipif(sys.platform != 'linux', reason="names of bytes are Linux'")
def test_a_photograph_whose_name_is_no_text(tmp_path):
    (photos := tmp_path / 'photos').mkdir()
    content = cv2.imencode('.png', smooth_image(40, 40, 0))[1].tobytes()
    Path(os.fsdecode(os.fsencode(photos) + b'/caf\xe9.png')).write_bytes(content)
    assert '1 pairs' in prepare(photos, '--out', tmp_path / 'out', '--scale', 2)
    assert os.listdir(os.fsencode(tmp_path / 'out' / 'HR')) == [b'caf\xe9.png']
    assert '1 pairs' in prepare(photos, '--out', tmp_path / 'out', '--scale', 2, '--verify')
