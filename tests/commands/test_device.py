"""A student in every runtime that is installed."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from mipkd_sr.cli import main
from mipkd_sr.commands.benchmark import device
from mipkd_sr.commands.benchmark.device import shapes
from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters


@pytest.mark.filterwarnings('ignore')
def test_a_students_files_are_timed(tmp_path: Path, capsys, monkeypatch) -> None:
    apart, alone = device.measure_apart, []

    def one_apart(arguments: list[str]) -> tuple[str, str]:
        """The first in a process of its own, which takes seconds to start; the others are measured here."""
        if not alone:
            alone.append(apart(arguments))
            return alone[0]
        with redirect_stdout(StringIO()) as said:
            assert main(['benchmark', *arguments]) == 0
        return said.getvalue().strip(), ''

    monkeypatch.setattr(device, 'measure_apart', one_apart)
    make, image = pytest.importorskip('onnx').helper, [1, 3, 'height', 'width']
    lq, sr = (make.make_tensor_value_info(name, 1, image) for name in ('lq', 'sr'))
    graph = make.make_graph([make.make_node('Identity', ['lq'], ['sr'])], 'net', [lq], [sr])
    model = make.make_model(graph, ir_version=8, opset_imports=[make.make_opsetid('', 18)])
    (tmp_path / 'int8').mkdir()
    (tmp_path / 'int8' / 'net.onnx').write_bytes(model.SerializeToString())
    file, figure = tmp_path / 'device.json', tmp_path / 'device.png'
    arguments = ['--size', '24x40', '--repeats', '2', '--json', str(file), '--figure', str(figure)]
    arguments += ['--also', str(tmp_path / 'int8' / 'net.onnx')]
    assert main(['benchmark', 'device', '--scale', '2', *arguments, '--psnr', 'fp32=37.09', 'bicubic=33.7']) == 0
    rows = json.loads(file.read_text())['rows']
    said = capsys.readouterr().out
    assert [row['runtime'] for row in rows[:5]] == ['bicubic', 'FSRCNN', 'ECBSR-M4C16', 'SESR-M5', 'PyTorch']
    assert all(row['ms'] > 0 and row['peak_memory_mib'] > 1 for row in rows[:6])
    assert [(row['runtime'], row['precision']) for row in (rows[5], rows[-1])] == [('onnx', 'fp32'), ('onnx', 'int8')]
    assert '| onnx | int8 |' in said
    assert figure.stat().st_size


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--psnr', 'fp32'], '--psnr: fp32: give names and numbers'),
        (['--figure', 'a.png'], '--psnr: is missing'),
        (['--psnr', 'fp32=37', '--figure', 'a.xls'], '--figure: a.xls ends in none of'),
        (['--json', 'absent/a.json'], '--json: there is no folder absent'),
        (['--also', 'absent.onnx'], 'there is no absent.onnx'),
    ],
)
def test_what_cannot_be_measured_is_said_first(arguments, message, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['benchmark', 'device', '--scale', '2', *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out
    assert not list(tmp_path.iterdir())


def test_published_shapes_have_the_published_counts() -> None:
    """FSRCNN's 12,464 weights (Table 4 at x3) are of one channel and have no biases and slopes; ours has three."""
    nets = shapes(3)
    kernels = sum(p.numel() for p in nets['FSRCNN'].parameters() if p.ndim == 4)
    assert kernels == 12464 + 2 * 56 * (25 + 81)
    assert nets['FSRCNN'](torch.zeros(1, 3, 8, 9)).shape == (1, 3, 24, 27)
    assert count_multiply_adds(nets['ECBSR-M4C16'], 10) == 100 * 9 * 16 * (3 + 4 * 16 + 27)
    assert count_parameters(nets['bicubic']) == 0
