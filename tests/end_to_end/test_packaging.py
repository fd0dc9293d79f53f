"""What is installed: a wheel that needs no checkout around it, a source archive that can be tested."""

import os
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import cv2
import pytest

from mipkd_sr.options.recipes import STUDENT_SCALES, STUDENT_SIZES
from tests.conftest import ROOT, run_installed, smooth_image

hatchling = pytest.importorskip('hatchling.builders.wheel')


@pytest.fixture
def mipkd(installed, tmp_path):
    """A function that runs commands of what is installed in an empty folder; see ``run_installed``."""
    return partial(run_installed, installed, tmp_path)


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob('*') if file.is_file()}


def test_the_wheel_holds_the_recipes_and_no_more_than_the_package(installed):
    found = files_of(installed)
    recipes = {f'mipkd_sr/recipes/{name}' for name in files_of(ROOT / 'options')}
    modules = {f'mipkd_sr/{file.relative_to(ROOT / "mipkd_sr").as_posix()}' for file in ROOT.rglob('mipkd_sr/**/*.py')}
    assert recipes <= found
    assert modules <= found
    assert {name.split('/')[0] for name in found} == {'mipkd_sr', 'mipkd_sr-0.1.0.dist-info'}
    scripts = (installed / 'mipkd_sr-0.1.0.dist-info' / 'entry_points.txt').read_text()
    assert 'mipkd = mipkd_sr.cli:main' in scripts


def test_the_wheel_lists_prints_and_copies_recipes(mipkd, installed, tmp_path):
    copy = ['recipes', 'demo/mipkd', '--copy', '.']
    codes, said = mipkd(['recipes'], ['recipes', 'demo/mipkd'], copy)
    assert codes == [0, 0, 0]
    assert 'mipkd/edsr_x4 ' in said
    assert f'{installed}/mipkd_sr/recipes/train/demo/_teacher.yml' in said
    assert 'type: MiPKDLoss' in said
    assert 'Edit it, and run: mipkd train -opt options/train/demo/mipkd.yml' in said
    assert 'it stays' not in said
    (tmp_path / 'options/train/demo/_base.yml').write_text('scale: 3')
    codes, said = mipkd(copy, ['recipes', 'demo/mipkdd'])
    assert codes == [0, 2]
    assert 'it stays' in said
    assert (tmp_path / 'options/train/demo/_base.yml').read_text() == 'scale: 3'
    assert said.endswith("error: demo/mipkdd: there is no such recipe; did you mean the recipe 'demo/mipkd'?\n")


def test_the_wheel_works_in_an_empty_folder_and_writes_nothing_beside_itself(mipkd, installed, tmp_path):
    before = files_of(installed)
    (tmp_path / 'photos').mkdir()
    cv2.imwrite(str(tmp_path / 'photos' / 'a.png'), smooth_image(40, 50, 0))
    teacher = installed / 'mipkd_sr/pretrained_models/demo_teacher_x2.pth'
    codes, said = mipkd(
        ['train', '-opt', 'demo/mipkd', '--dry_run'],
        ['prepare', 'photos', '--out', 'pairs', '--scale', '2'],
        ['upscale', 'pairs/LR_x2', '--out', 'sr', '-opt', 'demo/teacher', '--weights', teacher],
        *(['upscale', 'pairs/LR_x2', '--out', f'sr{scale}', '--scale', str(scale)] for scale in STUDENT_SCALES),
    )
    assert codes == [3, 0, 0, 0, 0, 0], said
    assert f'{tmp_path}/experiments/demo_mipkd' in said
    assert f'there is no {tmp_path}/datasets/demo/train/HR' in said
    assert cv2.imread(str(tmp_path / 'sr/a.png')).shape == (40, 50, 3)
    for scale in STUDENT_SCALES:
        assert cv2.imread(str(tmp_path / f'sr{scale}/a.png')).shape == (20 * scale, 25 * scale, 3)
    assert files_of(installed) == before


def test_the_import_alone_is_light(installed):
    code = 'import sys, mipkd_sr; print(mipkd_sr.__version__, len({"torch", "basicsr", "numpy"} & sys.modules.keys()))'
    environment = os.environ | {'PYTHONPATH': str(installed)}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == '0.1.0 0\n'


def test_the_help_does_not_start_pytorch(installed):
    code = 'import sys\nfrom mipkd_sr.cli import main\ntry: main()\nexcept SystemExit: print(sorted(sys.modules))'
    for arguments in (['--help'], ['train', '--help'], ['benchmark', 'step', '--help']):
        command = [sys.executable, '-c', code, *arguments]
        environment = os.environ | {'PYTHONPATH': str(installed)}
        said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
        loaded = said.splitlines()[-1]
        assert "'mipkd_sr.commands.command_line'" in loaded
        for slow in ('torch', 'basicsr', 'numpy', 'cv2', 'matplotlib', 'skimage', 'scipy'):
            assert f"'{slow}'" not in loaded


def test_an_editable_installation_is_the_checkout_on_the_path(tmp_path):
    (wheel,) = hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=['editable'])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read('_mipkd_sr.pth').decode().split() == [str(ROOT)]
        assert not [name for name in archive.namelist() if name.endswith('.py')]


def test_the_source_archive_holds_what_its_tests_need(tmp_path):
    from hatchling.builders.sdist import SdistBuilder

    (file,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(file) as archive:
        found = {name.partition('/')[2] for name in archive.getnames()}
    needed = {'README.md', 'pyproject.toml', 'experiments/pretrained_models/demo_teacher_x2.pth'}
    needed |= {
        f'experiments/pretrained_models/student_{size}_x{scale}.pth'
        for scale in STUDENT_SCALES
        for size in STUDENT_SIZES
    }
    for folder in ('mipkd_sr', 'options', 'tests', 'scripts', 'docs'):
        needed |= {f'{folder}/{name}' for name in files_of(ROOT / folder) if '__pycache__' not in name}
    assert needed <= found
