"""The papers' tables: from a table file to its cells, each a row at a scale, with the options that train it.

docs/papers.md shows a table file. ``base`` names table files that it extends; a row that is ``~`` is left out.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.evaluate import mean_metrics
from mipkd_sr.evaluation.published import read_published
from mipkd_sr.options.checking import check, check_form
from mipkd_sr.options.forms import REQUIRED, Key, MapOf, Section
from mipkd_sr.options.keys import TRAIN
from mipkd_sr.options.reading import Options, compose_options, read_options
from mipkd_sr.runtime.errors import OptionError, shown
from mipkd_sr.studies.collect import Result
from mipkd_sr.studies.job import Job

CHANGES = Section({}, patterns={'': Key('any', 'As in an option file for training.')})
ROW = Section(
    {
        'bases': Key('list', "Bases of this row's cells, after the table's.", (), items='str'),
        'changes': CHANGES,
        'published': Key('any', "Name of its published result, ~ for none; by the table's if absent.", ''),
        'teacher': Key(
            'bool', 'Whether the row is network_t itself, trained plainly if its weights are absent.', False
        ),
        'scales': Key('list', 'Its scales, if not all of the table.', items='int', minimum=1),
    }
)
TABLE = Section(
    {
        'import': TRAIN.keys['import'],
        'title': Key('str', 'What the table is.', REQUIRED),
        'scales': Key('list', 'Scales; every row is trained at each.', REQUIRED, items='int', minimum=1),
        'bases': Key(
            'list', 'Bases of every cell: files of options/train/_base, or paths ending in .yml.', (), items='str'
        ),
        'changes': CHANGES,
        'test': Key('str', "Option file for testing, from the table file's folder.", REQUIRED),
        'sets': Key('list', 'Test sets, by name; all of the test file if ~.', items='str'),
        'published': Key('str', "Name of the rows' published results; {row} is the row's name."),
        'note': Key('str', 'What is to be said of the table.'),
        'rows': MapOf(ROW),
    }
)
BASES = Path('../train/_base')
"""Where bases lie that are named without a path, from the table file's folder."""
PLAIN_LOSS = {'type': 'L1Loss', 'loss_weight': 1}


@dataclass
class Cell:
    """One row of a table at one scale, and, once it is located, its run on this machine."""

    table: str  # name of its table, the file's
    row: str
    scale: int
    options: dict[str, Any]  # the checked options that train it
    published: Mapping[Any, Any]  # its published result, see ``read_published``; empty if there is none
    is_teacher: bool  # whether it is the teacher itself
    teacher_file: str | None  # from the root: its teacher's weights, or, of a teacher, its own; None without teacher
    teacher_options: dict[str, Any]  # the checked options that train that teacher; empty without teacher
    job: Job | None = None  # its run and test; None where it cannot be run
    skipped: str = ''  # why it cannot be run; empty if it can
    result: Result | None = None  # what it has measured; None if it has not

    def values(self) -> dict[str, dict[str, float]]:
        """For each test set the means over images; empty before the end."""
        return {name: mean_metrics(images) for name, images in self.result.tests.items()} if self.result else {}


@dataclass
class PaperTable:
    """A table file, read: the file, its checked content, and its cells, scale by scale."""

    file: Path
    opt: dict[str, Any]
    cells: list[Cell]
    absent_sets: Sequence[str] = ()  # once its cells are located: test sets that are not there, and are left out

    def at_scales(self) -> list[tuple[int, list[Cell]]]:
        """Its cells, scale by scale."""
        return [(scale, list(cells)) for scale, cells in groupby(self.cells, lambda cell: cell.scale)]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.file.stem

    @property
    def test_file(self) -> Path:
        """The option file for testing."""
        return Path(os.path.normpath(self.file.parent / self.opt['test']))


def read_table(file: Path) -> PaperTable:
    """Read a table file and the option files that it names, and check every cell. Nothing is written."""
    file = file.absolute()
    opt = read_options(file).data
    try:
        rows = opt.get('rows') or {}
        if isinstance(rows, dict):
            opt['rows'] = {str(name): row for name, row in rows.items() if row is not None}
        check_form(opt, TABLE)
        if opt['import']:
            opt['changes'] = {'import': opt['import'], **opt['changes']}
        published = read_published()
        cells = [
            _cell(file, opt, name, scale, published)
            for scale in opt['scales']
            for name, row in opt['rows'].items()
            if scale in (row['scales'] or opt['scales'])
        ]
    except OptionError as error:
        raise OptionError('', f'{file}: {error}') from None
    return PaperTable(file, opt, cells)


def _cell(file: Path, opt: Mapping[str, Any], name: str, scale: int, published: Mapping[str, Any]) -> Cell:
    row = opt['rows'][name]
    key = f'rows:{name}'
    label = row['published'] if row['published'] != '' else (opt['published'] or '').replace('{row}', name) or None
    if label is not None and not (isinstance(label, str) and label in published):
        raise OptionError(
            f'{key}:published', f'there is no published result {shown(label)}; name one of published.yml, or ~.'
        )
    options = _options(file, opt, row, scale, key)
    teacher_file, teacher = None, dict[str, Any]()
    if network := options.data.get('network_t'):
        teacher_file = (options.data.get('path') or {}).get('pretrain_network_t')
        plain = _options(file, opt, {'bases': [], 'changes': {}}, scale, key).data
        teacher = _plain_training(plain, network, str(teacher_file))
        _check(teacher, options, key)
    elif row['teacher']:
        raise OptionError(f'{key}:teacher', 'is true, but its bases name no network_t.')
    own = options.data | {'name': f'{file.stem}_x{scale}'}  # until it is known what it will be called
    _check(own, options, key)
    own = teacher if row['teacher'] else own
    theirs = published[label] if label else {}
    return Cell(file.stem, name, scale, own, theirs, row['teacher'], teacher_file, teacher)


def _options(file: Path, table: Mapping[str, Any], row: Mapping[str, Any], scale: int, key: str) -> Options:
    """The options of a table and a row of it, not yet checked; but what is read before is mappings."""
    bases = [
        Path(base) if base.endswith('.yml') else BASES / f'{base}.yml' for base in [*table['bases'], *row['bases']]
    ]
    changes = [table['changes'], row['changes'], {'scale': scale}]
    options = compose_options(file, [file.parent / base for base in bases], changes)
    for name in ('train', 'path', 'network_t'):
        if not isinstance(value := options.data.get(name) or {}, dict):
            raise OptionError(f'{key}: {name}', f'must be a mapping of keys to values, not {shown(value)}.')
    return options


def _check(opt: dict[str, Any], options: Options, key: str) -> None:
    try:
        check(opt, TRAIN)
    except OptionError as error:
        raise OptionError(key, options.explain(error)) from None


def _plain_training(opt: Mapping[str, Any], network: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """The options that train ``network`` plainly, with the data and schedule of the table's bases."""
    own = deepcopy(dict(opt)) | {'name': Path(weights).stem, 'model_type': 'DistillModel'}
    own |= {'network_g': deepcopy(dict(network)), 'network_t': None}
    no_files = {'pretrain_network_t': None, 'pretrain_network_g': None, 'init_network_g': None}
    own['path'] = (own.get('path') or {}) | no_files
    own['train'] = {key: value for key, value in (own.get('train') or {}).items() if not str(key).endswith('_opt')}
    own['train']['pixel_opt'] = dict(PLAIN_LOSS)
    return own


def choose_cells(tables: Sequence[PaperTable], only: Sequence[str]) -> None:
    """Leave the tables the cells that ``--only`` names: names of rows, and scales such as x4; all without it."""
    cells = [cell for table in tables for cell in table.cells]
    scales = {f'x{cell.scale}' for cell in cells}
    rows = {cell.row for cell in cells}
    for name in only:
        if name not in scales | rows:
            known = ', '.join([*dict.fromkeys(cell.row for cell in cells), *sorted(scales)])
            raise OptionError('--only', f"'{name}' is neither a row nor a scale of the table; there are: {known}.")
    wanted_rows, wanted_scales = rows & set(only) or rows, scales & set(only) or scales
    for table in tables:
        table.cells = [cell for cell in table.cells if cell.row in wanted_rows and f'x{cell.scale}' in wanted_scales]
