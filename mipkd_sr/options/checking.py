"""Comparing options with what may stand in an option file, and filling in the defaults."""

import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mipkd_sr.data.single_patch_datasets import SIDE
from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, OneOrNamed, Section, with_own_options
from mipkd_sr.options.keys import DATASET, NETWORK, RENAMED, TRAIN
from mipkd_sr.options.realesrgan import adopt_realesrgan
from mipkd_sr.options.registries import DATASET_REGISTRY, MODEL_REGISTRY, SRModel, model_class, module_of, registered
from mipkd_sr.options.values import check_argument, check_counts, check_value, finite, no_such
from mipkd_sr.runtime.errors import OptionError, advice, shown


def check(opt: dict[str, Any], form: Section) -> None:
    """Check ``opt`` against ``form`` and fill in defaults, in place.

    Raises:
        OptionError: For the first thing that is wrong.
    """
    model = _model_class(opt, form)
    if form is TRAIN:
        adopt_realesrgan(opt)
    check_form(opt, with_own_options(form, model))
    _check_set_names(opt['datasets'])
    if form is TRAIN:
        _check_training(opt)


def _model_class(opt: Mapping[str, Any], form: Section) -> Any:
    """The model class, which may have options of its own."""
    name = opt.get('model_type', TRAIN.keys['model_type'].default)
    try:
        model = model_class(name)
    except (KeyError, TypeError):
        raise OptionError('model_type', no_such('model', name, registered(MODEL_REGISTRY))) from None
    if form is TRAIN and not issubclass(model, model_class('DistillModel')):
        as_sr = getattr(model, 'optimize_parameters', None) is SRModel.optimize_parameters
        what = 'write DistillModel, which trains as it does' if as_sr else 'run it with BasicSR'
        raise OptionError('model_type', f'{shown(name)} does not derive from DistillModel; {what}.')
    return model


def check_form(opt: dict[str, Any], form: Section) -> None:
    """Check the keys of ``opt`` and their types against ``form`` alone, and fill in defaults, in place."""
    _check_section(opt, form, '')


def check_network(opt: Any, path: str) -> None:
    """Check the options of one network, at ``path`` of an option file."""
    if opt is None:
        raise OptionError(path, 'is missing; give an option file that has it.')
    _check_component(opt, NETWORK, path)


def _check_set_names(datasets: dict[str, Any]) -> None:
    """Refuse two validation or test sets of one name, as their results would overwrite each other."""
    found: dict[str, str] = {}
    for phase, dataset in datasets.items():
        if phase == 'train':
            continue
        if (name := dataset['name']) in found:
            raise OptionError(f'datasets:{phase}:name', f'is that of datasets:{found[name]} too; give them apart.')
        found[name] = phase


def _check_training(opt: dict[str, Any]) -> None:
    """Check what depends on several keys of a training run."""
    train_set = opt['datasets'].get('train')
    if train_set is None:
        raise OptionError('datasets:train', 'is missing: the data set to train on.')
    gt_size, scale = train_set['gt_size'], opt['scale']
    if gt_size is None or gt_size < scale or gt_size % scale:
        raise OptionError('datasets:train:gt_size', f'must be a multiple of scale, {scale}, not {gt_size}.')
    if train_set['type'] == 'RealESRGANDataset':
        if 'degradation' not in opt:
            raise OptionError('degradation', 'is missing; its kernels are for type: RealESRGANDegradation.')
        if gt_size > SIDE:
            raise OptionError(
                'datasets:train:gt_size', f"is {gt_size}, but BasicSR's patches have {SIDE}; make it less."
            )
    periods, total = opt['train']['scheduler'].get('periods'), opt['train']['total_iter']
    if periods is not None and sum(periods) < total:
        raise OptionError('train:scheduler:periods', f'end after {sum(periods)} steps, before total_iter, {total}.')
    _check_teachers(opt)
    wandb = opt['logger']['wandb']
    if wandb['resume_id'] is not None and wandb['project'] is None:
        raise OptionError('logger:wandb:resume_id', 'is given, but there is no project; add logger:wandb:project.')
    if wandb['project'] is not None and importlib.util.find_spec('wandb') is None:
        raise OptionError('logger:wandb:project', 'needs wandb: pip install mipkd_sr[wandb], or set it to ~.')


def _check_teachers(opt: dict[str, Any]) -> None:
    """Check that every teacher has a file, and every file a teacher."""
    key, files = 'path:pretrain_network_t', opt['path']['pretrain_network_t']
    networks = opt.get('network_t')
    if networks is None:
        if files is not None:
            raise OptionError(key, 'is given, but there is no network_t; add it, or set this to ~.')
        return
    if files is None:
        raise OptionError(key, 'is missing: the file of the weights of network_t, the teacher.')
    if isinstance(networks.get('type'), str):
        if isinstance(files, dict):
            raise OptionError(key, 'names several files, but network_t is one network; give one file.')
        return
    if not isinstance(files, dict):
        raise OptionError(
            key, f'is one file, but network_t has several networks ({", ".join(networks)}); name one each.'
        )
    for name in networks:
        if not str(name).isidentifier() or name == 'student':
            raise OptionError(
                f'network_t:{name}', "is no name for a teacher; take letters, digits and _, not 'student'."
            )
        if files.get(name) is None:
            raise OptionError(f'{key}:{name}', f'is missing: the file of the weights of network_t:{name}.')
    for section, option in (('path', 'pretrain_network_t'), ('path', 'param_key_t'), ('train', 'teacher_precision')):
        value = opt[section][option]
        for name in value if isinstance(value, dict) else ():
            if name not in networks:
                raise OptionError(f'{section}:{option}:{name}', no_such('teacher', name, map(str, networks)))


def _check_section(opt: Any, form: Section, prefix: str) -> None:
    if not isinstance(opt, dict):
        raise OptionError(prefix.rstrip(':'), f'must be a mapping of keys to values, not {shown(opt)}.')
    for old, new in RENAMED.items():
        if old in opt and old not in form.keys and new in form.keys:
            opt[new] = opt.pop(old)
    for name in opt:
        if name not in form.keys and not _pattern(form, name):
            raise OptionError(f'{prefix}{name}', _unknown(name, form.keys))
    for name, entry in form.keys.items():
        _check_entry(opt, name, entry, prefix)
    for name in list(opt):
        if name not in form.keys:
            _check_entry(opt, name, _pattern(form, name), prefix)


def _pattern(form: Section, name: str) -> Any:
    return next((entry for ending, entry in (form.patterns or {}).items() if str(name).endswith(ending)), None)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f'is not a key that is known here; {advice(name, known, "known here")}'


def _check_entry(opt: dict[str, Any], name: str, entry: Any, prefix: str) -> None:
    path = f'{prefix}{name}'
    if isinstance(entry, OneOrNamed):
        value = opt.get(name)
        if isinstance(value, dict) and not (isinstance(entry.entry, Component) and 'type' in value):
            _check_map(value, MapOf(entry.entry), path)
            return
        entry = entry.entry
    if isinstance(entry, Key):
        if name not in opt:
            if entry.default is REQUIRED:
                raise OptionError(path, f'is missing. {entry.help}')
            opt[name] = entry.default
        opt[name] = check_value(opt[name], entry, path)
        return
    if opt.get(name) is None:
        if isinstance(entry, Section) and not entry.optional:
            opt[name] = {}
        elif entry.optional:
            opt.pop(name, None)
            return
        else:
            raise OptionError(path, 'is missing.')
    if isinstance(entry, Section):
        _check_section(opt[name], entry, f'{path}:')
    elif isinstance(entry, Component):
        _check_component(opt[name], entry, path)
    else:
        _check_map(opt[name], entry, path)


def _check_map(opt: Any, form: MapOf, path: str) -> None:
    if not isinstance(opt, dict) or not opt:
        raise OptionError(path, f'must be a mapping with at least one entry, not {shown(opt)}.')
    for name in opt:
        if form.prefixes and str(name).split('_')[0] not in form.prefixes:
            allowed = ' or '.join(f'{prefix} or {prefix}_NAME' for prefix in form.prefixes)
            raise OptionError(f'{path}:{name}', f'is not known here; entries are called {allowed}.')
        entry = form.entry
        if entry is DATASET:
            _check_dataset(opt[name], f'{path}:{name}')
        else:
            _check_entry(opt, name, entry, f'{path}:')


def is_ours(target: Any) -> bool:
    """Whether a class or function is BasicSR's or this package's."""
    return module_of(target).startswith(('basicsr.', 'mipkd_sr.'))


def _check_dataset(opt: Any, path: str) -> None:
    """Check a data set, whose class is given the whole mapping.

    BasicSR's own keys are known. A user's class may have more: they are checked if the class declares them as its
    ``own_options``.
    """
    if not isinstance(opt, dict):
        raise OptionError(path, f'must be a mapping of keys to values, not {shown(opt)}.')
    kind, known = opt.get('type', DATASET.keys['type'].default), registered(DATASET_REGISTRY)
    if not isinstance(kind, str) or kind not in known:
        raise OptionError(f'{path}:type', no_such('data set', kind, known))
    is_open = not hasattr(known[kind], 'own_options') and not is_ours(known[kind])
    form = replace(DATASET, patterns={'': Key('any', "The data set class's own.")} if is_open else None)
    _check_section(opt, with_own_options(form, known[kind]), f'{path}:')
    for number, other in enumerate(opt['others'] or []):
        if isinstance(other, dict):
            other.setdefault('gt_size', opt['gt_size'])
            other.setdefault('name', f'{opt["name"]}_{number + 2}')
        _check_dataset(other, f'{path}:others:{number}')
        if other['gt_size'] != opt['gt_size'] or other['others']:
            raise OptionError(f'{path}:others:{number}:gt_size', 'must be the same in all sets of a mix.')
    template = opt['filename_tmpl']
    if template.count('{}') != 1 or set('{}') & set(template.replace('{}', '')):
        message = f"must be text with one {{}}, such as '{{}}x4', not {shown(template)}."
        raise OptionError(f'{path}:filename_tmpl', message)


def _check_component(opt: Any, form: Component, path: str) -> None:
    if not isinstance(opt, dict):
        raise OptionError(path, f'must be a mapping with a type, not {shown(opt)}.')
    if not isinstance(opt.get('type'), str):
        raise OptionError(f'{path}:type', f'is missing; name one of: {", ".join(sorted(form.names()))}.')
    try:
        target = form.find(opt['type'])
    except KeyError:
        raise OptionError(f'{path}:type', no_such(form.what, opt['type'], form.names())) from None
    arguments, is_open = arguments_of(target)
    if form.what == 'metric':
        _check_takes_images(target, path)
    for name in form.skip:
        arguments.pop(name, None)
    known = {name: key for name, key in (form.arguments or {}).items() if name in arguments} | dict(form.extra or {})
    for name, value in opt.items():
        if name == 'type':
            continue
        key = f'{path}:{name}'
        if not finite(value):
            raise OptionError(key, f'must be finite, not {shown(value)}.')
        if name in known:
            opt[name] = check_value(value, known[name], key)
        elif name in arguments:
            check_argument(value, arguments[name], key)
        elif not is_open:
            raise OptionError(key, _unknown(name, [*arguments, *known]))
        if form.greatest is not None and name not in (form.arguments or {}):
            check_counts(value, form.greatest, key)
    for name, argument in arguments.items():
        if argument.default is inspect.Parameter.empty and name not in opt:
            raise OptionError(f'{path}:{name}', f'is missing; {opt["type"]} needs it.')


def _check_takes_images(metric: Any, path: str) -> None:
    """Check that a metric takes the keywords img and img2, with which it is called."""
    signature = inspect.signature(metric)
    try:
        signature.bind_partial(img=None, img2=None)
    except TypeError:
        taken = ', '.join(signature.parameters)
        message = f'{metric.__name__} takes {taken}; a metric takes two images, img and img2.'
        raise OptionError(f'{path}:type', message) from None


def arguments_of(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a class or function, and whether it takes any others.

    BasicSR's ``**kwargs`` swallow misspelt keys, so they do not count as taking others.
    """
    arguments: dict[str, inspect.Parameter] = {}
    is_open = False
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # registered, and nothing that is called
        return {}, True
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            is_open = not is_ours(target)
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = parameter
    return arguments, is_open
