"""The papers' tables: every cell is there, and a small table from nothing to its page, resumed and compared."""

import csv
import json
import re

import pytest
import yaml

from mipkd_sr.cli import main
from mipkd_sr.evaluation.published import read_published
from mipkd_sr.options.recipes import RECIPES, recipe_names
from mipkd_sr.studies.paper_tables import read_table
from mipkd_sr.studies.table_runs import Tables
from tests.conftest import STUDENT, TEACHER

TABLES = sorted((RECIPES / 'tables').glob('*.yml'))
PAPERS = {
    'MiPKD, Table 2': ['mipkd_table2'],
    'MiPKD, Table 3': ['mipkd_table3'],
    'MiPKD, Table 4': ['mipkd_table4'],
    **{f'MiPKD, Table {number}': [f'mipkd_table{number}'] for number in range(6, 12)},
    'DUKD, Table 2': ['dukd_table2_edsr', 'dukd_table2_rcan', 'dukd_table2_swinir'],
    'DUKD, Table 3': ['dukd_table3'],
    'DUKD, Table 4': ['dukd_table4'],
}


def test_every_published_cell_of_both_papers_has_a_cell_that_trains_it():
    published = read_published()
    for paper, names in PAPERS.items():
        ours = [(cell.published, cell.scale) for name in names for cell in read_table(by_name(name)).cells]
        theirs = [
            (entry, scale)
            for entry in published.values()
            if entry['source'].startswith(f'{paper},')
            for scale in entry
            if isinstance(scale, int)
        ]
        assert theirs
        assert all(cell in ours for cell in theirs), paper


def test_csds_row_at_x4_in_both_papers_is_its_own_with_self_ensemble():
    """And MiPKD's teacher at x2, as docs/papers.md says; CSD's other rows there are not."""
    published = read_published()
    own = published["EDSR student+, CSD (CSD's table)"]
    for name in ('EDSR student, CSD', "EDSR student, CSD (DUKD's table)"):
        assert published[name][4] == own[4]
        assert published[name][2]['Urban100'][0] < own[2]['Urban100'][0] - 0.2
    assert published['EDSR teacher'][2] == published["EDSR teacher+ (CSD's table)"][2]


def by_name(name):
    return RECIPES / 'tables' / f'{name}.yml'


@pytest.mark.parametrize('file', TABLES, ids=lambda file: file.stem)
def test_every_table_is_right(file):
    for cell in read_table(file).cells:
        assert cell.options['scale'] == cell.options['network_g']['upscale'] == cell.scale
        assert f'x{cell.scale}' in (cell.teacher_file or f'x{cell.scale}')
    assert file.stem not in recipe_names()


@pytest.mark.parametrize(
    'file', [file for file in TABLES if file.stem.endswith('_miniature')], ids=lambda file: file.stem
)
def test_a_table_in_miniature_has_the_rows_and_losses_of_the_table(file):
    """Its cells are told apart by more than their names, small as they are."""
    whole, small = read_table(by_name(file.stem.removesuffix('_miniature'))), read_table(file)
    assert [(cell.row, cell.scale) for cell in whole.cells] == [(cell.row, cell.scale) for cell in small.cells]
    for cell, little in zip(whole.cells, small.cells, strict=True):
        losses = {key: loss for key, loss in cell.options['train'].items() if key.endswith('_opt')}
        assert losses == {key: loss for key, loss in little.options['train'].items() if key.endswith('_opt')}
        assert little.options['train']['total_iter'] < 1000 < cell.options['train']['total_iter']
        assert little.options['network_g'] != cell.options['network_g']
        assert little.teacher_file is None or little.teacher_file != cell.teacher_file


def test_a_cell_is_what_its_bases_and_changes_say():
    cells = {cell.row: cell for cell in read_table(by_name('mipkd_table6')).cells}
    alone = cells['block prior mixer alone'].options['train']['mipkd_opt']
    assert (alone['encoder'], alone['teacher_ratio'], alone['feat_weight'], alone['block_weight']) == (
        'none',
        0,
        0,
        0.1,
    )
    assert 'mipkd_opt' not in cells['neither mixer'].options['train']
    network = {key: cells['MiPKD'].options['network_g'][key] for key in ('num_feat', 'num_group', 'num_block')}
    assert network == {'num_feat': 32, 'num_group': 5, 'num_block': 5}
    teacher = cells['teacher'].options
    assert teacher['network_g'] == cells['MiPKD'].options['network_t']
    assert 'network_t' not in teacher
    assert [key for key in teacher['train'] if key.endswith('_opt')] == ['pixel_opt']


@pytest.mark.parametrize('name', [name for paper, names in PAPERS.items() if 'DUKD' in paper for name in names])
def test_dukds_tables_augment_all_upcycled_data_as_its_text_says(name):
    for cell in read_table(by_name(name)).cells:
        if 'dukd_opt' in cell.options['train'] and cell.row != 'zoom-in and zoom-out, zoom-in alone augmented':
            assert cell.options['train']['dukd_opt']['augment'] in ([], ['zoom_in', 'zoom_out']), cell.row


def test_both_kinds_of_encoders_of_mipkds_table_8_have_similar_sizes():
    from mipkd_sr.archs import build_network
    from mipkd_sr.losses.mipkd_loss import MiPKDLoss

    sizes = []
    for cell in read_table(by_name('mipkd_table8')).cells:
        options = dict(cell.options['train']['mipkd_opt'])
        assert options.pop('type') == 'MiPKDLoss'
        loss = MiPKDLoss(**options)
        nets = [build_network(dict(cell.options[key]) | {'num_block': 1}) for key in ('network_g', 'network_t')]
        loss.attach(*nets, 8, 4)
        sizes.append(sum(parameter.numel() for parameter in loss.feature_mixers.parameters()))
    assert max(sizes) / min(sizes) < 1.05


@pytest.fixture
def table(training_options, write_options, pairs, tmp_path):
    """A table of a teacher, logits KD, and a row that needs a file which is not there; one test set of two is there."""
    base = training_options('kd', network_t=TEACHER)
    base['path'] = {'pretrain_network_t': 'experiments/pretrained_models/teacher_x{scale}.pth'}
    write_options(base, 'base.yml')
    folders = {'dataroot_gt': str(pairs / 'HR'), 'dataroot_lq': str(pairs / 'LR_x2')}
    psnr = {'type': 'calculate_psnr', 'crop_border': '{scale}', 'test_y_channel': True}
    test = {
        'name': 'test_x{scale}',
        'scale': 4,
        'datasets': {
            'test_1': {'name': 'Set5', **folders},
            'test_2': {'name': 'Set14', 'dataroot_gt': 'no', 'dataroot_lq': 'no'},
        },
        'val': {'metrics': {'psnr': psnr}},
        'figure': {'image': ['wave1', 'img_047']},
    }
    write_options(test, 'test.yml')
    content = {
        'title': 'A table',
        'scales': [2],
        'bases': ['base.yml'],
        'test': 'test.yml',
        'published': 'EDSR student, {row}',
        'rows': {
            'teacher': {'teacher': True, 'published': 'EDSR teacher'},
            'KD': {},
            'CSD': {'changes': {'train': {'csd_opt': {'type': 'CSDLoss', 'vgg_file': 'no.pth'}}}},
        },
    }
    return write_options(content, 'own_table.yml')


def test_a_table_is_made_from_nothing_one_row_at_a_time_and_resumed(table, tmp_path, capsys):
    page = tmp_path / 'page'
    arguments = ['table', str(table), '--root', str(tmp_path), '--out', str(page)]
    assert main([*arguments, '--only', 'teacher', 'x2']) == 0
    assert 'done: teacher_x2' in capsys.readouterr().out
    assert '1 of 1 cells' in (page / 'report.md').read_text()
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert 'To be done: 1 runs\n  own_table_KD_x2\n' in out
    assert re.search(r'^done: own_table_KD_x2 \(1 of 1 runs, ', out, re.M)
    assert 'not run: own_table, CSD x2: train:csd_opt:vgg_file: ' in out
    text = (page / 'report.md').read_text()
    assert '2 of 3 cells have been measured. **These are partial results**.' in text
    assert 'Test sets that are not there, and were left out: Set14.' in text
    assert 'https://arxiv.org/abs/2309.14162' not in text
    with (page / 'table.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    (ours,) = (row for row in rows if (row['row'], row['set'], row['metric']) == ('KD', 'Set5', 'psnr'))
    raw = {result['variant']: result['tests'] for result in json.loads((page / 'results.json').read_text())}
    assert list(raw) == ['own_table, teacher x2', 'own_table, KD x2']
    own = raw['own_table, KD x2']['Set5']
    images = [image['psnr'] for image in own.values()]
    assert float(ours['ours']) == pytest.approx(sum(images) / 5)
    assert ours['published'] == '38.04'
    assert f'{sum(images) / 5 - 38.04:+.2f} / -' in text
    assert [file.name for file in page.glob('*.png')] == ['own_table_x2_wave1.png']  # img_047 is not there
    assert main(['test', '-opt', str(page / 'own_table_x2.yml'), '--root', str(tmp_path)]) == 0
    together = json.loads((tmp_path / 'results' / 'own_table_x2' / 'results.json').read_text())
    assert list(together) == ['teacher', 'KD']
    assert together['KD']['images']['Set5'].keys() == own.keys()
    assert {image['psnr'] for image in together['KD']['images']['Set5'].values()} == set(images)
    assert all('psnr_to_teacher' in image for image in together['KD']['images']['Set5'].values())
    assert (tmp_path / 'results' / 'own_table_x2' / 'figure_wave1.png').is_file()
    assert main([*arguments, '--plan']) == 0
    assert 'Everything has been done.' in capsys.readouterr().out
    kept = yaml.safe_load((tmp_path / 'experiments' / 'own_table_KD_x2.yml').read_text())
    assert kept['path']['pretrain_network_t'] == 'experiments/teacher_x2/models/net_g_latest.pth'
    assert kept['network_g']['num_feat'] == STUDENT['num_feat']


def test_a_teachers_weights_that_are_there_are_used_and_tested(table, teacher_file, tmp_path):
    given = tmp_path / 'experiments' / 'pretrained_models' / 'teacher_x2.pth'
    given.parent.mkdir(parents=True)
    given.write_bytes(teacher_file.read_bytes())
    read = read_table(table)
    teacher, student, _ = Tables([read], tmp_path, tmp_path / 'page', []).cells
    assert teacher.job.stages() == ['test']
    assert teacher.job.weights == given
    assert student.job.teacher is None
    assert student.job.options['path']['pretrain_network_t'] == str(given.relative_to(tmp_path))


@pytest.mark.parametrize('sets', [None, [], ['Set14', 'Set5'], ['Set5', 'Set14']])
def test_a_table_is_tested_on_those_of_its_sets_that_are_there(sets, table, tmp_path):
    table.write_text(yaml.safe_dump(yaml.safe_load(table.read_text()) | {'sets': sets}))
    read = read_table(table)
    tests = [job.test for job in Tables([read], tmp_path, tmp_path / 'page', []).jobs if job.test]
    assert [[own['name'] for own in test['datasets'].values()] for test in tests] == [['Set5'], ['Set5']]
    assert read.absent_sets == ['Set14']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scales': None}, 'scales'),
        ({'rows': {'A': {'changs': {}}}}, 'rows:A:changs: is not a key that is known here'),
        ({'rows': {'A': {'published': 'nobody'}}}, "rows:A:published: there is no published result 'nobody'"),
        ({'rows': {'A': {}}, 'published': None, 'bases': ['absent.yml']}, 'absent.yml'),
        ({'rows': {'A': {'published': ['x']}}}, "rows:A:published: there is no published result ['x']"),
        ({'rows': [-1]}, 'rows: must be a mapping with at least one entry, not [-1]'),
        ({'rows': {'A': {}}, 'changes': {'train': 5}}, 'A: train: must be a mapping of keys to values, not 5'),
        ({'rows': {'A': {}}, 'bases': [-1]}, 'bases:0: must be text, not -1'),
        ({'sets': [-1]}, 'sets:0: must be text, not -1'),
        ({'scales': ['x']}, "scales:0: must be a whole number, not 'x'"),
        ({'sets': ['Set6']}, 'has no test set Set6'),
    ],
)
def test_a_bad_table_is_one_sentence(change, message, table, tmp_path, capsys):
    content = yaml.safe_load(table.read_text())
    content['published'] = '~' if 'rows' in change else content['published']
    content = {key: value for key, value in (content | change).items() if value is not None}
    if 'rows' in change:
        content.pop('published', None)
    table.write_text(yaml.safe_dump(content))
    assert main(['table', str(table), '--root', str(tmp_path), '--plan']) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_plan_of_rows_that_cannot_be_run_does_not_say_that_all_is_done(table, tmp_path, capsys):
    assert main(['table', str(table), '--root', str(tmp_path), '--only', 'CSD', '--plan']) == 0
    out = capsys.readouterr().out
    assert out.startswith('not run: own_table, CSD x2: train:csd_opt:vgg_file: ')
    assert 'Everything has been done' not in out


def test_an_unknown_row_or_table_is_one_sentence(table, tmp_path, capsys):
    assert main(['table', str(table), '--root', str(tmp_path), '--only', 'kd']) == 2
    assert (
        "--only: 'kd' is neither a row nor a scale of the table; there are: teacher, KD, CSD, x2."
        in capsys.readouterr().err
    )
    assert main(['table', 'mipkd_table12']) == 2
    assert "no file or shipped table 'mipkd_table12'; there are: dukd_choices" in capsys.readouterr().err
