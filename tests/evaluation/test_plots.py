"""The papers' figures, from what runs and tests write."""

import json

import cv2
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from mipkd_sr.cli import main
from mipkd_sr.evaluation.figures import COLUMN, TEXT, comparison_figure

RESULTS = {
    'bicubic': {'parameters': 0, 'images': {'A': {'x': {'psnr': 30.0, 'psnr_to_big': 33.0}}}},
    'big': {'parameters': 9000, 'images': {'A': {'x': {'psnr': 34.0}}}},
    'small': {'parameters': 1000, 'images': {'A': {'x': {'psnr': 32.0, 'psnr_to_big': 38.0}}}},
    'small, x8': {'parameters': 1000, 'images': {'A': {'x': {'psnr': 32.1, 'psnr_to_big': 38.5}}}},
}


@pytest.fixture
def plot(tmp_path, monkeypatch):
    """The figures that ``mipkd plot`` draws, before they are closed."""
    drawn = []
    monkeypatch.setattr(plt, 'close', drawn.append)
    (tmp_path / 'results.json').write_text(json.dumps(RESULTS))
    for name, shift in (('run1', 0.0), ('run2', 1.0)):
        (tmp_path / name).mkdir()
        entries = [{'iter': i, 'dataset': 'A', 'psnr': 30 + i / 100 + shift} for i in (100, 200)]
        (tmp_path / name / 'validations.json').write_text(json.dumps(entries))
    yield drawn
    monkeypatch.undo()
    plt.close('all')


def check_files(stem, width):
    assert stem.with_suffix('.pdf').read_bytes().startswith(b'%PDF')
    assert cv2.imread(str(stem.with_suffix('.png'))).shape[1] == round(300 * width)


def test_quality_against_parameters(plot, tmp_path):
    assert main(['plot', 'parameters', str(tmp_path)]) == 0
    check_files(tmp_path / 'parameters', COLUMN)
    (axes,) = plot[0].axes
    assert [tuple(dots.get_offsets()[0]) for dots in axes.collections] == [(9.0, 34.0), (1.0, 32.0)]
    assert [line.get_ydata()[0] for line in axes.lines] == [30.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ['1', '9']


def test_agreement_with_the_teacher(plot, tmp_path):
    assert main(['plot', 'agreement', str(tmp_path)]) == 0
    check_files(tmp_path / 'agreement', COLUMN)
    (axes,) = plot[0].axes
    assert [line.get_xdata()[0] for line in axes.lines] == [33.0, 38.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['bicubic', 'small']


FAMILY = {
    'teacher': (8000, 34.0), '64, scratch': (2000, 32.0), '64, DUKD': (2000, 32.5), '16, scratch': (500, 30.0),
    '16, DUKD': (500, 29.75), 'alone, DUKD': (900, 31.0),
}  # fmt: skip


def test_gains_of_a_family_against_its_compression(plot, tmp_path, capsys):
    rows = {name: {'parameters': size, 'images': {'A': {'x': {'psnr': psnr}}}} for name, (size, psnr) in FAMILY.items()}
    (tmp_path / 'results.json').write_text(json.dumps(rows))
    assert main(['plot', 'gains', str(tmp_path)]) == 0
    check_files(tmp_path / 'gains', COLUMN)
    (line,) = plot[0].axes[0].lines
    assert (line.get_label(), *map(list, line.get_data())) == ('DUKD', [4, 16], [0.5, -0.25])
    assert plot[0].axes[0].get_ylim()[0] < -0.25
    (tmp_path / 'results.json').write_text(json.dumps(RESULTS))
    assert main(['plot', 'gains', str(tmp_path)]) == 2
    assert 'has no rows "SIZE, METHOD" beside "SIZE, scratch"' in capsys.readouterr().err


@pytest.mark.parametrize('what', ['parameters', 'gains'])
def test_an_exported_file_whose_parameters_are_not_known_is_left_out(what, plot, tmp_path):
    rows = {name: {'parameters': size, 'images': {'A': {'x': {'psnr': psnr}}}} for name, (size, psnr) in FAMILY.items()}
    (tmp_path / 'results.json').write_text(json.dumps(rows | {'net.onnx': {**rows['16, DUKD'], 'parameters': None}}))
    assert main(['plot', what, str(tmp_path)]) == 0
    drawn = plot[0]
    (tmp_path / 'results.json').write_text(json.dumps(rows))
    assert main(['plot', what, str(tmp_path), '--out', str(tmp_path / 'without')]) == 0
    texts = [[text.get_text() for text in figure.findobj(Text)] for figure in (drawn, plot[-1])]
    assert texts[0] == texts[1]


TABLE = """table,row,scale,set,metric,ours,published
one,KD,4,Urban100,psnr,26.0,26.21
one,KD,4,Urban100,ssim,0.7,0.78
one,CSD,4,Urban100,psnr,,26.34
one,KD,4,Set5,psnr,32.0,32.30
two,own,2,Urban100,psnr,31.5,
"""


def test_bars_of_tables_beside_the_published(plot, tmp_path):
    (tmp_path / 'table.csv').write_text(TABLE)
    assert main(['plot', 'bars', str(tmp_path)]) == 0
    check_files(tmp_path / 'bars', TEXT)
    tops = [[bar.get_y() + bar.get_height() for bar in axes.patches] for axes in plot[0].axes]
    lines = [[segments[0][0][1] for segments in (c.get_segments() for c in axes.collections)] for axes in plot[0].axes]
    assert tops == [[pytest.approx(26.0)], [pytest.approx(31.5)]]
    assert lines == [[26.21, 26.34], []]
    assert [axes.get_title() for axes in plot[0].axes] == ['one x4', 'two x2']
    assert [label.get_text() for label in plot[0].axes[0].get_xticklabels()] == ['KD', 'CSD']


def test_training_curves(plot, tmp_path):
    assert (
        main(['plot', 'curves', str(tmp_path / 'run1'), str(tmp_path / 'run2'), '--out', str(tmp_path / 'curves')]) == 0
    )
    check_files(tmp_path / 'curves', COLUMN)
    lines = plot[0].axes[0].lines
    assert [(line.get_label(), list(line.get_ydata())) for line in lines] == [('run1', [31, 32]), ('run2', [32, 33])]


def test_crops_are_the_networks_own(plot, tmp_path):
    hr, sr = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    comparison_figure(hr, {'net': sr}, {'net': '31.00'}, (5, 7, 20), tmp_path / 'crops')
    check_files(tmp_path / 'crops', TEXT)
    panels = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in plot[0].axes[1:] if axes.images}
    assert np.array_equal(panels['net\n31.00'][:20], sr[5:25, 7:27, ::-1])
    assert np.array_equal(panels['HR\n'][:20], hr[5:25, 7:27, ::-1])


def test_without_hr_there_are_crops_alone_and_the_box_is_in_the_first(plot, tmp_path):
    images = dict(zip('abc', np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8), strict=True))
    comparison_figure(None, images, {'b': '3.21'}, (5, 7, 20), tmp_path / 'crops')
    check_files(tmp_path / 'crops', TEXT)
    whole, *panels = plot[0].axes
    assert np.array_equal(whole.images[0].get_array(), images['a'][..., ::-1])
    assert [axes.get_title() for axes in panels] == ['a\n', 'b\n3.21', 'c\n']
    for axes, image in zip(panels, images.values(), strict=True):
        assert np.array_equal(axes.images[0].get_array(), image[5:25, 7:27, ::-1])


def test_errors_are_under_the_crops_brighter_where_greater(plot, tmp_path):
    hr = np.full((20, 20, 3), 100, np.uint8)
    columns = np.arange(20, dtype=np.uint8)  # the error, from 0 at the left to 19 at the right
    sr = {'less': hr + columns[:, None] // 2, 'more': hr - columns[:, None]}
    comparison_figure(hr, sr, {}, (0, 0, 20), tmp_path / 'crops')
    panels = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in plot[0].axes[1:] if axes.images}
    less, more = (panels[f'{name}\n'][20:].astype(int).sum(2) for name in sr)
    assert (np.diff(more, axis=1) >= 0).all()
    assert np.array_equal(less[:, :10:2], more[:, :5])
    assert (panels['HR\n'][20:] == 255).all()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['parameters', 'nowhere'], 'nowhere/results.json is not there'),
        (['parameters', '{}', '--metric', 'lpips'], 'has no lpips; it has: psnr'),
        (['curves', '{}/run1', '--metric', 'ssim'], 'no run has a validation with ssim'),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(arguments, message, plot, tmp_path, capsys):
    assert main(['plot', *(argument.format(tmp_path) for argument in arguments)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
    assert not plot


@pytest.mark.parametrize('text', ['5', '[]', '{"a": 1}', '{"a": {"images": {"x": {"y": 1}}}}', '{"a": {}}', '{', '"x"'])
@pytest.mark.parametrize('figure', ['parameters', 'agreement', 'curves', 'bars'])
def test_files_of_another_form_are_one_sentence(figure, text, tmp_path, capsys):
    for name in ('results.json', 'validations.json', 'table.csv'):
        (tmp_path / name).write_text(text)
    assert main(['plot', figure, str(tmp_path), '--out', str(tmp_path / 'figure')]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert not (tmp_path / 'figure.png').exists()
