"""The papers' tables: from a table file to its cells, each a row at a scale, with the options that train it.

A table file is YAML; ``base`` names table files that it extends, a row that is ``~`` is left out::

    title: MiPKD, Table 2
    scales: [2, 3, 4]
    bases: [paper, div2k, edsr]           # of every cell: option files in options/train/_base, or paths ending in .yml
    test: ../test/papers.yml              # option file for testing
    sets: [Set5, Set14, B100, Urban100]   # of its test sets; all if absent
    published: EDSR student, {row}        # what each row is called in published.yml
    rows:
      teacher: {teacher: true, published: EDSR teacher}   # the network_t of the bases itself
      KD: {bases: [kd]}
      no block prior mixer: {bases: [mipkd_paper], changes: {train: {mipkd_opt: {block_weight: 0}}}}
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipkd_sr.evaluation.published import read_published
from mipkd_sr.options.checking import check, check_form
from mipkd_sr.options.forms import REQUIRED, Key, MapOf, Section
from mipkd_sr.options.keys import TRAIN
from mipkd_sr.options.reading import Options, compose_options, read_options
from mipkd_sr.runtime.errors import OptionError, shown

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
        'measure': Key(
            'str',
            "What a table of costs measures, training nothing: its rows' networks, or steps of their training.",
            choices=('networks', 'steps'),
        ),
        'note': Key('str', 'What is to be said of the table.'),
        'rows': MapOf(ROW),
    }
)
MINIATURE = Section(
    {
        'import': TRAIN.keys['import'],
        'sizes': Section({}, patterns={'': Key('any', 'Sizes.')}),
        'changes': CHANGES,
    }
)
BASES = Path('../train/_base')
"""Where bases lie that are named without a path, from the table file's folder."""
PLAIN_LOSS = {'type': 'L1Loss', 'loss_weight': 1}


@dataclass(frozen=True)
class Cell:
    """One row of a table at one scale.

    Attributes:
        table: Name of its table, the file's.
        row: Name of its row.
        scale: Scale.
        options: The checked options that train it.
        published: Name of its published result; None if there is none.
        is_teacher: Whether it is the teacher itself.
        teacher_file: Where its teacher's weights (a teacher's own) may lie, from the root; None without teacher.
        teacher_options: The checked options that train that teacher; None without teacher.
    """

    table: str
    row: str
    scale: int
    options: dict[str, Any]
    published: str | None
    is_teacher: bool
    teacher_file: str | None
    teacher_options: dict[str, Any] | None


@dataclass(frozen=True)
class PaperTable:
    """A table file, read.

    Attributes:
        name: The file's name without its ending.
        file: The file.
        title: What it is.
        note: What is to be said of it; empty if nothing is.
        scales: Scales.
        rows: Names of the rows.
        sets: Names of the test sets; None for all of the test file.
        test_file: The option file for testing.
        cells: The cells, scale by scale.
        measure: What a table of costs measures; None for one that is trained and tested.
    """

    name: str
    file: Path
    title: str
    note: str
    scales: tuple[int, ...]
    rows: tuple[str, ...]
    sets: tuple[str, ...] | None
    test_file: Path
    cells: list[Cell]
    measure: str | None = None


def read_table(file: Path, miniature: bool = False) -> PaperTable:
    """Read a table file and the option files that it names, and check every cell. Nothing is written.

    Args:
        file: The table file.
        miniature: Whether to make cells as small as ``miniature.yml`` beside it says.

    Raises:
        OptionError: If something in it is wrong. The message says what, in which file, and what to do.
    """
    file = file.absolute()
    opt = read_options(file).data
    small = file.with_name('miniature.yml') if miniature else None
    try:
        rows = opt.get('rows') or {}
        if isinstance(rows, dict):
            opt['rows'] = {str(name): row for name, row in rows.items() if row is not None}
        check_form(opt, TABLE)
        if opt['import']:
            opt['changes'] = {'import': opt['import'], **opt['changes']}
        shrinking = _read_miniature(small) if small else None
        published = read_published()
        cells = [
            _cell(file, opt, name, scale, shrinking, published)
            for scale in opt['scales']
            for name, row in opt['rows'].items()
            if scale in (row['scales'] or opt['scales'])
        ]
    except OptionError as error:
        raise OptionError('', f'{file}: {error}') from None
    return PaperTable(
        file.stem,
        file,
        opt['title'],
        opt['note'] or '',
        tuple(opt['scales']),
        tuple(opt['rows']),
        tuple(opt['sets']) if opt['sets'] else None,
        file.parent / opt['test'],
        cells,
        opt['measure'],
    )


def _read_miniature(file: Path) -> dict[str, Any]:
    opt = read_options(file).data
    try:
        check_form(opt, MINIATURE)
    except OptionError as error:
        raise OptionError('', f'{file}: {error}') from None
    return opt


def _cell(
    file: Path,
    opt: Mapping[str, Any],
    name: str,
    scale: int,
    miniature: Mapping[str, Any] | None,
    published: Mapping[str, Any],
) -> Cell:
    row = opt['rows'][name]
    key = f'rows:{name}'
    label = row['published'] if row['published'] != '' else (opt['published'] or '').replace('{row}', name) or None
    if label is not None and not (isinstance(label, str) and label in published):
        raise OptionError(
            f'{key}:published', f'there is no published result {shown(label)}; name one of published.yml, or ~.'
        )
    options = _options(file, [*opt['bases'], *row['bases']], (opt['changes'], row['changes']), scale, miniature)
    _check_mappings(options.data, key)
    has_teacher = bool(options.data.get('network_t'))
    if row['teacher'] and not has_teacher:
        raise OptionError(f'{key}:teacher', 'is true, but its bases name no network_t.')
    teacher_file = (options.data.get('path') or {}).get('pretrain_network_t') if has_teacher else None
    teacher = None
    if has_teacher:
        plain = _options(file, opt['bases'], (opt['changes'],), scale, miniature)
        _check_mappings(plain.data, key)
        teacher = _plain_training(plain.data, options.data['network_t'], str(teacher_file))
        _check(teacher, options, key)
    own = options.data | {'name': f'{file.stem}_x{scale}'}  # until it is known what it will be called
    _check(own, options, key)
    own = teacher if row['teacher'] and teacher else own
    return Cell(file.stem, name, scale, own, label, row['teacher'], teacher_file, teacher)


def _options(
    file: Path,
    bases: Iterable[str],
    changes: Iterable[Mapping[str, Any]],
    scale: int,
    miniature: Mapping[str, Any] | None,
) -> Options:
    """A cell's options, not yet checked."""
    files = [file.parent / (base if base.endswith('.yml') else BASES / f'{base}.yml') for base in bases]
    last = [miniature['changes']] if miniature else []
    options = compose_options(file, files, [*changes, {'scale': scale}, *last])
    if miniature:
        for key in ('network_g', 'network_t'):
            if options.data.get(key):
                options.data[key] = shrink(options.data[key], miniature['sizes'])
    return options


def _check_mappings(opt: dict[str, Any], key: str) -> None:
    """See that those sections are mappings which are looked into before the options are checked."""
    for name in ('train', 'path', 'network_t'):
        if not isinstance(opt.get(name) or {}, dict):
            raise OptionError(f'{key}: {name}', f'must be a mapping of keys to values, not {shown(opt[name])}.')


def _check(opt: dict[str, Any], options: Options, key: str) -> None:
    try:
        check(opt, TRAIN)
    except OptionError as error:
        raise OptionError(key, options.explain(error)) from None


def _plain_training(opt: Mapping[str, Any], network: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """The options that train ``network`` plainly, in the way of the table's bases."""
    own = deepcopy(dict(opt))
    own['name'] = Path(weights).stem
    own['model_type'] = 'DistillModel'
    own['network_g'] = deepcopy(dict(network))
    own['network_t'] = None
    no_files = {'pretrain_network_t': None, 'pretrain_network_g': None, 'init_network_g': None}
    own['path'] = (own.get('path') or {}) | no_files
    own['train'] = {key: value for key, value in (own.get('train') or {}).items() if not str(key).endswith('_opt')}
    own['train']['pixel_opt'] = dict(PLAIN_LOSS)
    return own


def shrink(network: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """A network with the sizes that ``sizes`` (type -> argument -> number -> number) gives for its own.

    Raises:
        OptionError: If a size of its is not there.
    """
    small = dict(network)
    for name, replaced in sizes.get(str(network.get('type')), {}).items():
        if name not in small:
            continue
        values = small[name] if isinstance(small[name], list) else [small[name]]
        if absent := [value for value in values if str(value) not in replaced]:
            raise OptionError(f'sizes:{network["type"]}:{name}', f'has no {absent[0]}; add it to miniature.yml.')
        few = [replaced[str(value)] for value in values]
        small[name] = few if isinstance(small[name], list) else few[0]
    return small


def chosen_cells(tables: Sequence[PaperTable], only: Sequence[str]) -> list[Cell]:
    """The cells that ``--only`` names: names of rows, and scales such as x4; all without it.

    Raises:
        OptionError: If a name is none.
    """
    cells = [cell for table in tables for cell in table.cells]
    scales = {f'x{cell.scale}' for cell in cells}
    rows = {cell.row for cell in cells}
    for name in only:
        if name not in scales | rows:
            known = ', '.join([*dict.fromkeys(cell.row for cell in cells), *sorted(scales)])
            raise OptionError('--only', f"'{name}' is neither a row nor a scale of the table; there are: {known}.")
    wanted_rows, wanted_scales = rows & set(only) or rows, scales & set(only) or scales
    return [cell for cell in cells if cell.row in wanted_rows and f'x{cell.scale}' in wanted_scales]
