"""A student in every runtime that is installed."""

import json
from pathlib import Path

import pytest

from mipkd_sr.__main__ import main


@pytest.mark.filterwarnings('ignore')
def test_a_students_files_are_timed(tmp_path: Path, capsys) -> None:
    file, figure = tmp_path / 'device.json', tmp_path / 'device.png'
    arguments = ['--size', '24x40', '--repeats', '2', '--json', str(file), '--figure', str(figure)]
    assert main(['benchmark', 'device', '--scale', '2', *arguments, '--psnr', 'fp32=37.09', 'bicubic=33.7']) == 0
    rows = json.loads(file.read_text())['rows']
    said = capsys.readouterr().out
    assert [row['runtime'] for row in rows[:2]] == ['bicubic', 'PyTorch']
    assert all(row['ms'] > 0 and row['peak_memory_mib'] > 1 for row in rows)
    assert 'onnx' in said
    assert figure.stat().st_size
    assert main(['benchmark', 'device', '--scale', '2', '--psnr', 'fp32']) == 2
    assert '--psnr: fp32: give names and numbers' in capsys.readouterr().err
