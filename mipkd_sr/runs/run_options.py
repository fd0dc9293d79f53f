"""The options of a run: read, checked, and completed with what follows from them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mipkd_sr.options.checking import check
from mipkd_sr.options.forms import sets_of
from mipkd_sr.options.importing import add_used
from mipkd_sr.options.keys import ADDED, TEST, TRAIN
from mipkd_sr.options.reading import Options, force_options, read_options
from mipkd_sr.options.recipes import DEMO_TEACHER, SHIPPED_NETWORKS, find_root
from mipkd_sr.runs.folder_lock import problem_with_name
from mipkd_sr.runs.run import Run
from mipkd_sr.runtime.errors import OptionError, shown


def load_options(
    file: str | os.PathLike[str],
    is_train: bool,
    root: str | os.PathLike[str] | None = None,
    force: Iterable[str] = (),
    debug: bool = False,
    run: Run | None = None,
) -> Options:
    """Read, merge and check an option file, and fill in what follows from it. Nothing is written.

    Args:
        file: The option file, or a shipped recipe's name.
        is_train: Whether it is for training; for testing otherwise.
        root: Folder for experiments, results and relative paths; by default as ``find_root`` says.
        force: Entries of ``--force_yml``.
        debug: Whether to use BasicSR's settings for ``--debug``.
        run: The run whose last student is tested in place of what the file names; its name is added to the test's.

    Raises:
        OptionError: If something in it is wrong. The message says what, where and what to do.
    """
    options = read_options(file)
    if run is not None:
        _take_student_of(run, options)
    force_options(options, force)
    leave_out_added(options.data)
    if os.environ.get('RANK', '0') == '0':
        for note in options.notes:
            print(f'note: {note}', flush=True)
    with options.explaining():
        check(options.data, TRAIN if is_train else TEST)
        _check_names(options.data)
        add_used(options.data)
    if debug:
        _use_debug_settings(options.data)
    complete(options.data, is_train, Path(root).absolute() if root else find_root(file))
    return options


def _take_student_of(run: Run, options: Options) -> None:
    """Put a run's last student in the place of the networks that a test's options name."""
    for key in ('network_g', 'networks', 'path', 'teacher', 'figure'):
        options.template.pop(key, None)
    entry = {'network': run.kept_options().data.get('network_g'), 'path': str(run.last_student().absolute())}
    name = f'{options.template.get("name", "")}_{run.name}'
    options.template |= {'name': name, 'networks': {run.name: {**entry, 'param_key': 'params_ema'}}}


def leave_out_added(opt: dict[str, Any]) -> None:
    """Leave out what ``complete`` added to the options that a run keeps, so that they can be run again."""
    if not isinstance(opt.get('root_path'), str):
        return
    sections: list[tuple[str, Any]] = [('run', opt), ('path', opt.get('path'))]
    datasets = opt.get('datasets')
    found = datasets.values() if isinstance(datasets, dict) else ()
    sections += [('dataset', one) for dataset in found for one in sets_of(dataset)]
    for kind, section in sections:
        for name in ADDED[kind] if isinstance(section, dict) else ():
            section.pop(name, None)


def _check_names(opt: dict[str, Any]) -> None:
    """Names that become names of folders and files."""
    names = {'name': opt['name'], 'suffix': opt.get('suffix'), 'val:suffix': (opt.get('val') or {}).get('suffix')}
    names |= {f'datasets:{phase}:name': dataset['name'] for phase, dataset in opt['datasets'].items()}
    names |= {f'networks:{name}': str(name) for name in opt.get('networks', {})}
    for key, name in names.items():
        if name is not None and (problem := problem_with_name(name)):
            raise OptionError(key, f'{problem}; it is the name of a folder or file, so give a plain one.')


def _use_debug_settings(opt: dict[str, Any]) -> None:
    """Another name, and, in training, logs, checkpoints and validation at once."""
    opt['name'] = f'debug_{opt["name"]}'
    if 'logger' in opt:
        opt['logger'].update(print_freq=1, save_checkpoint_freq=8)
    if 'val_freq' in opt.get('val', {}):
        opt['val']['val_freq'] = 8


def complete(opt: dict[str, Any], is_train: bool, root: Path) -> None:
    """Add, in place, what BasicSR's classes expect: absolute paths, each data set's phase and scale, folders."""
    opt['is_train'] = is_train
    opt['root_path'] = str(root)
    for phase, dataset in opt['datasets'].items():
        for one in sets_of(dataset):
            one.update(phase=phase.split('_')[0], scale=opt['scale'])
    for key, holder, name in path_keys(opt):
        holder[name] = _absolute(key, holder[name], root)
    if is_train:
        opt['path'].update(Run.named(root, opt['name']).paths())
    else:
        results = root / 'results' / opt['name']
        opt['path'].update(results_root=str(results), log=str(results), visualization=str(results / 'visualization'))


def _absolute(key: str, path: Any, root: Path) -> str:
    """A path of an option file, against ``root``; the demo's teacher comes with the package, if it is not there."""
    if not isinstance(path, str) or not path.strip():
        raise OptionError(key, f'must be a path, not {shown(path)}.')
    try:
        file = root / Path(path).expanduser()
    except RuntimeError:  # ~nobody
        raise OptionError(key, f'names the folder of a user that there is not, {shown(path)}.') from None
    if Path(path) == DEMO_TEACHER and not os.path.lexists(file):
        return str(SHIPPED_NETWORKS / DEMO_TEACHER.name)
    return str(file)


def path_keys(opt: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """Every option that names a file or folder that must exist: its full key, the mapping it is in, its name."""
    found: list[tuple[str, dict[str, Any], str]] = []
    for phase, dataset in opt['datasets'].items():
        names = ('dataroot_gt', 'dataroot_lq', 'meta_info_file', 'meta_info')
        for number, one in enumerate(sets_of(dataset)):
            key = f'datasets:{phase}:others:{number - 1}' if number else f'datasets:{phase}'
            found += [(f'{key}:{name}', one, name) for name in names]
    path = opt['path']
    found += [(f'path:{name}', path, name) for name in path if name == 'resume_state' or name.startswith('pretrain_')]
    if isinstance(teachers := path.get('pretrain_network_t'), dict):
        found.remove(('path:pretrain_network_t', path, 'pretrain_network_t'))
        found += [(f'path:pretrain_network_t:{teacher}', teachers, teacher) for teacher in teachers]
    for option, loss in opt.get('train', {}).items():
        if option.endswith('_opt') and loss:
            found += [(f'train:{option}:{name}', loss, name) for name in loss if name.endswith('_file')]
    found += [(f'networks:{name}:path', entry, 'path') for name, entry in opt.get('networks', {}).items()]
    found.append(('published_file', opt, 'published_file'))
    return [(key, holder, name) for key, holder, name in found if holder.get(name) is not None]


def leave_out_missing(opt: dict[str, Any]) -> list[str]:
    """Remove absent test sets and networks from a test with ``skip_missing``, in place; returns a sentence for each.

    ``opt`` is completed. If no test set exists at all, all of them stay, and are missing.
    """
    if not opt.get('skip_missing'):
        return []
    left_out = []
    for section in ('datasets', 'networks'):
        absent = {}
        for name in opt.get(section, {}):
            paths = [holder[key] for full, holder, key in path_keys(opt) if full.startswith(f'{section}:{name}:')]
            if gone := [path for path in paths if not _is_there(path)]:
                absent[name] = gone[0]
        if section == 'datasets' and len(absent) == len(opt['datasets']):
            continue
        for name, path in absent.items():
            label = opt[section].pop(name).get('name', name)
            left_out.append(f"'{label}' is left out: there is no {path}.")
    return left_out


def missing_paths(opt: dict[str, Any]) -> list[OptionError]:
    """An error for each absent file or folder that the options name."""
    return [
        OptionError(key, f'there is no {holder[name]}; put it there, or give the right path.')
        for key, holder, name in path_keys(opt)
        if not _is_there(holder[name])
    ]


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long a name, or a folder that may not be looked into
        return False
