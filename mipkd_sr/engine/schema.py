"""What may stand in an option file: every key once, with its type, its default and what it is for.

``check`` compares a file's options with this and fills in the defaults. What a class takes (a network, a loss, an
optimizer, a metric) is not repeated here: it is read from the class's own signature.
"""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from mipkd_sr.archs import network_class
from mipkd_sr.engine.errors import OptionError

REQUIRED = object()
"""The default of a key that must be given."""


@dataclass(frozen=True)
class Key:
    """One value of an option file.

    Attributes:
        kind: 'str', 'int', 'float', 'bool', 'list' or 'any'. A float that is a whole number counts as an int.
        help: What it is for.
        default: Its value where it is absent; ``REQUIRED`` if it must be given. A key whose default is None may be ~.
        choices: The allowed values, if they are few.
    """

    kind: str
    help: str
    default: Any = None
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Section:
    """A mapping with known keys.

    Attributes:
        keys: The keys.
        patterns: Keys known by their ending, such as ``_opt``.
        optional: Whether it may be absent; a required one that is absent is taken as empty.
    """

    keys: Mapping[str, Any]
    patterns: Mapping[str, Any] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Component:
    """A mapping whose ``type`` names a class or function, and whose other keys are that one's arguments.

    Attributes:
        what: What it is called in messages.
        find: From the type's name to the class or function; raises KeyError if there is none.
        names: The names there are.
        skip: Arguments that the program itself gives.
        extra: Further keys, that are not arguments.
        optional: Whether it may be absent.
    """

    what: str
    find: Callable[[str], Any]
    names: Callable[[], Iterable[str]]
    skip: tuple[str, ...] = ()
    extra: Mapping[str, Key] | None = None
    optional: bool = False


@dataclass(frozen=True)
class MapOf:
    """A mapping from names of the user's choice to entries of one form.

    Attributes:
        entry: The form of each entry.
        prefixes: What a name must be or start with (before its first underscore), if that matters.
        optional: Whether it may be absent.
    """

    entry: Any
    prefixes: tuple[str, ...] = ()
    optional: bool = False


def _from(registry: Any) -> Callable[[str], Any]:
    return lambda name: dict(iter(registry))[name]


def _names(registry: Any) -> Callable[[], Iterable[str]]:
    return lambda: registry.keys()


def _arch_names() -> Iterable[str]:
    from basicsr.utils.registry import ARCH_REGISTRY

    return ARCH_REGISTRY.keys()


def _optimizers() -> dict[str, Any]:
    return {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value) and name != 'Optimizer'}


SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
"""BasicSR's names for its schedulers."""

NETWORK = Component('network', network_class, _arch_names)
LOSS = Component('loss', _from(LOSS_REGISTRY), _names(LOSS_REGISTRY), optional=True)

DEFAULT_DATASET = 'PairedImageDataset'

DATASET_KEYS = {
    'name': Key('str', 'Name in logs and tables.', REQUIRED),
    'type': Key('str', 'Registered data set class.', DEFAULT_DATASET),
    'dataroot_gt': Key('str', 'Folder (or lmdb) of HR images.'),
    'dataroot_lq': Key('str', 'Folder (or lmdb) of LR images.'),
    'meta_info_file': Key('str', 'Text file with the names of the images to use; every image of the folder if ~.'),
    'scan': Key('bool', 'Whether to look at every file before a run; see mipkd_sr.data.scan.', True),
    'filename_tmpl': Key('str', "From an HR image's name to its LR image's, such as '{}x4'.", '{}'),
    'io_backend': Section(
        {'type': Key('str', 'Where images are stored.', 'disk', ('disk', 'lmdb', 'memcached'))},
        patterns={'': Key('any', "The backend's own options.")},
    ),
    'color': Key('str', "'y' to read the Y channel alone."),
    'mean': Key('list', 'Mean to subtract from images in [0, 1], a value a channel.'),
    'std': Key('list', 'Standard deviation to divide images by, a value a channel.'),
    'gt_size': Key('int', 'Side of a training HR patch, in pixels; a multiple of the scale.'),
    'use_hflip': Key('bool', 'Whether to flip training patches.', True),
    'use_rot': Key('bool', 'Whether to rotate training patches.', True),
    'batch_size_per_gpu': Key('int', 'Training patches a step and process.', 16),
    'num_worker_per_gpu': Key('int', 'Processes that read images, for each training process.', 0),
    'pin_memory': Key('bool', 'Whether to read into page-locked memory; faster transfer to a GPU.', True),
    'persistent_workers': Key('bool', "BasicSR's; readers live as long as the run here, whatever it says.", False),
    'prefetch_mode': Key('str', "BasicSR's; batches are always transferred ahead of use here."),
    'num_prefetch_queue': Key('int', "BasicSR's; not used.", 1),
    'dataset_enlarge_ratio': Key('int', "BasicSR's, against costly epoch ends; there are none here.", 1),
    'use_shuffle': Key('bool', "BasicSR's; training images are always shuffled.", True),
}

DATASET = Section(DATASET_KEYS)
"""A data set; checked by ``_check_dataset``, as a user's class may have keys of its own."""

METRIC = Component(
    'metric',
    _from(METRIC_REGISTRY),
    _names(METRIC_REGISTRY),
    skip=('img', 'img2', 'kwargs'),
    extra={'better': Key('str', 'Which values are better.', 'higher', ('higher', 'lower'))},
)

VAL_KEYS: dict[str, Any] = {
    'save_img': Key('bool', 'Whether to save the SR images.', False),
    'suffix': Key('str', "Ending of saved images' names; the run's name if ~."),
    'pbar': Key('bool', 'Whether to show a progress bar.', True),
    'metrics': MapOf(METRIC, optional=True),
}

TESTING_KEYS = {
    'self_ensemble': Key(
        'any',
        'Whether networks are run on 8 turned copies: true, false, or both for a row each.',
        False,
        (False, True, 'both'),
    ),
    'tile': Key('int', 'Side of the squares, in LR pixels, that images are cut into to bound memory; 0 for none.', 0),
    'tile_overlap': Key('int', "Surroundings that each square is given, in LR pixels; a receptive field's reach.", 32),
    'grey': Key(
        'str',
        'How grey HR images are measured: colour (three equal channels, as BasicSR reads them) or as_is (one channel).',
        'colour',
        ('colour', 'as_is'),
    ),
}

NETWORK_PATHS = {
    'pretrain_network_g': Key('str', "Checkpoint of the student's weights to start from (train) or to test."),
    'param_key_g': Key('str', 'Which weights of that file: params or params_ema.', 'params'),
    'strict_load_g': Key(
        'bool', 'Whether that file must fit exactly; else weights that do not fit are left out.', True
    ),
}

TESTED_WEIGHTS = Key('str', 'Which weights of the file: params_ema where it has them, or params.', 'params_ema')

COMMON_KEYS: dict[str, Any] = {
    'name': Key('str', 'Name of the run, and of its folder.', REQUIRED),
    'model_type': Key('str', 'Registered model class.', 'DistillModel'),
    'scale': Key('int', 'Super-resolution factor.', REQUIRED),
    'num_gpu': Key('any', 'GPUs of this process: 0 for the CPU, 1, or auto (1 if there is a GPU, else 0).', 'auto'),
    'manual_seed': Key('int', 'Seed of everything random.', 0),
}

TRAIN = Section(
    {
        **COMMON_KEYS,
        'datasets': MapOf(DATASET, ('train', 'val')),
        'network_g': NETWORK,
        'network_t': Component('network', network_class, _arch_names, optional=True),
        'path': Section(
            {
                **NETWORK_PATHS,
                'pretrain_network_t': Key('str', "Checkpoint of the teacher's weights."),
                'param_key_t': Key(
                    'str', 'Which weights of that file: params_ema where it has them, or params.', 'params_ema'
                ),
                'init_network_g': Key(
                    'str',
                    'teacher_slice starts the student from the first channels of the teacher; ~ as it is.',
                    choices=('teacher_slice',),
                ),
                'resume_state': Key('str', 'Training state to go on from.'),
                'ignore_resume_networks': Key('any', "BasicSR's; not used: a training state holds its networks."),
            }
        ),
        'train': Section(
            {
                'total_iter': Key('int', 'Optimizer steps to take.', REQUIRED),
                'warmup_iter': Key('int', 'Steps over which the learning rate rises from 0; -1 for none.', -1),
                'ema_decay': Key('float', 'Decay of the moving average of the weights; 0 for none.', 0.0),
                'accumulation_steps': Key(
                    'int', 'Batches of batch_size_per_gpu whose gradients are averaged for one optimizer step.', 1
                ),
                'grad_clip': Key(
                    'float', 'Greatest norm of the gradient, scaled down to it if larger; 0 for none.', 0.0
                ),
                'max_skipped_steps': Key(
                    'int',
                    'Steps in a row that are skipped because a loss or gradient is not finite; one more ends the run.',
                    20,  # under fp16 the scaler alone may need 16, from 2^16 down to 1
                ),
                'precision': Key(
                    'str',
                    'Arithmetic of the networks: fp32, or mixed with bf16 or (with loss scaling) fp16.',
                    'fp32',
                    ('fp32', 'bf16', 'fp16'),
                ),
                'teacher_precision': Key(
                    'str',
                    "Arithmetic of the teacher's own forward, which needs no gradient; ~: as precision.",
                    choices=('fp32', 'bf16', 'fp16'),
                ),
                'tf32': Key(
                    'bool', "Whether GPUs may round factors to TF32 in fp32 arithmetic; ~: as PyTorch's default."
                ),
                'channels_last': Key('bool', 'Whether feature maps are stored with their channels last.', False),
                'compile': Key('bool', 'Whether torch.compile compiles the networks; needs a C++ compiler.', False),
                'optim_g': Component(
                    'optimizer', lambda name: _optimizers()[name], lambda: _optimizers(), skip=('params',)
                ),
                'scheduler': Component(
                    'scheduler', lambda name: SCHEDULERS[name], lambda: SCHEDULERS, skip=('optimizer', 'last_epoch')
                ),
            },
            patterns={'_opt': LOSS},
        ),
        'val': Section({'val_freq': Key('int', 'Steps between validations.', REQUIRED), **VAL_KEYS}, optional=True),
        'logger': Section(
            {
                'print_freq': Key('int', 'Steps between log lines.', 100),
                'save_checkpoint_freq': Key('int', 'Steps between checkpoints.', 5000),
                'keep_last': Key('int', 'How many checkpoints and training states to keep, the newest; 0 for all.', 0),
                'use_tb_logger': Key('bool', 'Whether to write TensorBoard logs.', True),
                'wandb': Section(
                    {
                        'project': Key('str', "BasicSR's; not supported, must be ~."),
                        'resume_id': Key('str', "BasicSR's; not supported, must be ~."),
                    }
                ),
            }
        ),
        'dist_params': Section(
            {
                'backend': Key('str', 'Of torch.distributed on GPUs; CPUs use gloo.', 'nccl'),
                'port': Key('int', 'Port of the first process under Slurm.', 29500),
            }
        ),
        'find_unused_parameters': Key('bool', "BasicSR's; not needed.", False),
    }
)

TEST = Section(
    {
        **COMMON_KEYS,
        'datasets': MapOf(DATASET, ('test', 'val')),
        'network_g': Component('network', network_class, _arch_names, optional=True),
        'networks': MapOf(
            Section(
                {
                    'network': NETWORK,
                    'path': Key('str', 'Checkpoint of its weights; ~ for a network without parameters.'),
                    'param_key': TESTED_WEIGHTS,
                }
            ),
            optional=True,
        ),
        'path': Section({**NETWORK_PATHS, 'param_key_g': TESTED_WEIGHTS}),
        'val': Section({**VAL_KEYS, **TESTING_KEYS}),
        'teacher': Key('str', 'Name of the network whose agreement with the others is measured.'),
        'published': Key('list', 'Names of published results for the table; see mipkd_sr/metrics/published.yml.'),
        'published_file': Key('str', 'File of published results, of the same form; the package has one.'),
        'figure': Section(
            {
                'image': Key('str', 'Name of a test image, without ending.', REQUIRED),
                'box': Key('list', 'Top, left and side of the crop to show, in HR pixels.', REQUIRED),
            },
            optional=True,
        ),
        # written by BasicSR's older test files at the top level; the same as in val
        'save_img': Key('bool', 'Whether to save the SR images.', False),
        'suffix': Key('str', "Ending of saved images' names; the run's name if ~."),
        'crop_border': Key('int', "BasicSR's; metrics have their own."),
    }
)

RENAMED = {
    'use_flip': 'use_hflip',
    'pretrain_model_g': 'pretrain_network_g',
    'strict_load': 'strict_load_g',
}
"""Names that some of BasicSR's own option files still have, and what BasicSR calls them today."""


def check(opt: dict[str, Any], form: Section) -> None:
    """Check ``opt`` against ``form`` and fill in defaults, in place.

    Raises:
        OptionError: For the first thing that is wrong.
    """
    _check_section(opt, form, '')
    if opt['model_type'] not in MODEL_REGISTRY:
        raise OptionError('model_type', _no_such('model', opt['model_type'], MODEL_REGISTRY.keys()))
    if form is TRAIN:
        _check_training(opt)


def _check_training(opt: dict[str, Any]) -> None:
    """What a training run needs and no single key shows."""
    train_set = opt['datasets'].get('train')
    if train_set is None:
        raise OptionError('datasets:train', 'is missing: the data set to train on.')
    gt_size, scale = train_set['gt_size'], opt['scale']
    if gt_size is None or gt_size < scale or gt_size % scale:
        raise OptionError('datasets:train:gt_size', f'must be a multiple of scale, {scale}, not {gt_size}.')
    for key in (
        'train:total_iter',
        'datasets:train:batch_size_per_gpu',
        'train:accumulation_steps',
        'logger:print_freq',
        'logger:save_checkpoint_freq',
    ):
        section: Any = opt
        for name in key.split(':')[:-1]:
            section = section[name]
        if section[key.split(':')[-1]] < 1:
            raise OptionError(key, 'must be at least 1.')
    for key in ('train:grad_clip', 'train:max_skipped_steps', 'logger:keep_last'):
        section, name = key.split(':')
        if opt[section][name] < 0:
            raise OptionError(key, 'must not be negative.')
    if 'network_t' in opt and opt['path']['pretrain_network_t'] is None:
        raise OptionError('path:pretrain_network_t', 'is missing: the file of the weights of network_t, the teacher.')
    if 'network_t' not in opt and opt['path']['pretrain_network_t'] is not None:
        raise OptionError('path:pretrain_network_t', 'is given, but there is no network_t; add it, or set this to ~.')
    for name in ('project', 'resume_id'):
        if opt['logger']['wandb'][name] is not None:
            raise OptionError(f'logger:wandb:{name}', 'is not supported; set it to ~ and use TensorBoard.')


def _no_such(what: str, name: object, names: Iterable[str]) -> str:
    return f"there is no {what} '{name}'; {_advice(name, names, 'there are')}"


def _advice(name: object, names: Iterable[str], otherwise: str) -> str:
    """The nearest right name, whatever its case, or all of them."""
    by_lower_case = {known.lower(): known for known in sorted(names)}
    near = difflib.get_close_matches(str(name).lower(), by_lower_case, 1, 0.5)
    if near:
        return f"did you mean '{by_lower_case[near[0]]}'?"
    return f'{otherwise}: {", ".join(by_lower_case.values())}.'


def _check_value(value: Any, key: Key, path: str) -> Any:
    """The value, as the key's type."""
    if value is None and key.default is None:
        return None
    fits = {
        'str': isinstance(value, str),
        'bool': isinstance(value, bool),
        'int': isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
        'float': isinstance(value, int | float) and not isinstance(value, bool),
        'list': isinstance(value, list | tuple),
        'any': True,
    }
    if not fits[key.kind]:
        name = {'str': 'text', 'bool': 'true or false', 'int': 'a whole number', 'float': 'a number', 'list': 'a list'}
        raise OptionError(path, f'must be {name[key.kind]}, not {value!r}.')
    if key.choices and value not in key.choices:
        raise OptionError(path, _no_such('choice', value, [str(choice) for choice in key.choices]))
    return int(value) if key.kind == 'int' else value


def _check_section(opt: Any, form: Section, prefix: str) -> None:
    if not isinstance(opt, dict):
        raise OptionError(prefix.rstrip(':'), f'must be a mapping of keys to values, not {opt!r}.')
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
    return f'is not a key that is known here; {_advice(name, known, "known here")}'


def _check_entry(opt: dict[str, Any], name: str, entry: Any, prefix: str) -> None:
    path = f'{prefix}{name}'
    if isinstance(entry, Key):
        if name not in opt:
            if entry.default is REQUIRED:
                raise OptionError(path, f'is missing. {entry.help}')
            opt[name] = entry.default
        opt[name] = _check_value(opt[name], entry, path)
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
        raise OptionError(path, f'must be a mapping with at least one entry, not {opt!r}.')
    for name in opt:
        if form.prefixes and str(name).split('_')[0] not in form.prefixes:
            allowed = ' or '.join(f'{prefix} or {prefix}_NAME' for prefix in form.prefixes)
            raise OptionError(f'{path}:{name}', f'is not known here; entries are called {allowed}.')
        entry = form.entry
        if entry is DATASET:
            _check_dataset(opt[name], f'{path}:{name}')
        else:
            _check_entry(opt, name, entry, f'{path}:')


def _check_dataset(opt: Any, path: str) -> None:
    """A data set class is given the whole mapping, so BasicSR's own keys are known and a user's class may have more."""
    if not isinstance(opt, dict):
        raise OptionError(path, f'must be a mapping of keys to values, not {opt!r}.')
    kind = opt.get('type', DEFAULT_DATASET)
    if kind not in DATASET_REGISTRY:
        raise OptionError(f'{path}:type', _no_such('data set', kind, DATASET_REGISTRY.keys()))
    of_basicsr = dict(iter(DATASET_REGISTRY))[kind].__module__.startswith(('basicsr.', 'mipkd_sr.'))
    own_keys = None if of_basicsr else {'': Key('any', "The data set class's own.")}
    _check_section(opt, Section(DATASET_KEYS, own_keys), f'{path}:')


def _check_component(opt: Any, form: Component, path: str) -> None:
    if not isinstance(opt, dict):
        raise OptionError(path, f'must be a mapping with a type, not {opt!r}.')
    if not isinstance(opt.get('type'), str):
        raise OptionError(f'{path}:type', f'is missing; name one of: {", ".join(sorted(form.names()))}.')
    try:
        target = form.find(opt['type'])
    except KeyError:
        raise OptionError(f'{path}:type', _no_such(form.what, opt['type'], form.names())) from None
    arguments, is_open = _arguments(target)
    for name in form.skip:
        arguments.pop(name, None)
    extra = form.extra or {}
    for name, value in opt.items():
        if name == 'type':
            continue
        if name in extra:
            _check_value(value, extra[name], f'{path}:{name}')
        elif name in arguments:
            _check_argument(value, arguments[name], f'{path}:{name}')
        elif not is_open:
            raise OptionError(f'{path}:{name}', _unknown(name, [*arguments, *extra]))
    for name, argument in arguments.items():
        if argument.default is inspect.Parameter.empty and name not in opt:
            raise OptionError(f'{path}:{name}', f'is missing; {opt["type"]} needs it.')


def _arguments(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a class or function, and whether it takes any others.

    BasicSR's ``**kwargs`` swallow misspelt keys, so they do not count as taking others.
    """
    arguments: dict[str, inspect.Parameter] = {}
    is_open = False
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            is_open = not target.__module__.startswith(('basicsr.', 'mipkd_sr.'))
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = parameter
    return arguments, is_open


def _check_argument(value: Any, argument: inspect.Parameter, path: str) -> None:
    """Compare a value with the argument's annotation, or, where BasicSR gives none, with the type of its default.

    Only plain types are compared; anything else is left to the class.
    """
    if argument.annotation is not inspect.Parameter.empty:
        annotation = argument.annotation
        kinds = {_kind(typing.get_origin(part) or part) for part in _union_members(annotation)}
    elif argument.default in (None, inspect.Parameter.empty):
        return
    else:
        kinds = {_kind(type(argument.default))}
        if 'int' in kinds:  # BasicSR writes whole defaults, such as res_scale=1, for real numbers
            kinds.add('float')
    plain = kinds - {'any', 'none'}  # of `float | Tensor`, a YAML file can give the float alone
    if not plain or (value is None and 'none' in kinds):
        return
    for kind in sorted(plain):
        try:
            _check_value(value, Key(kind, '', REQUIRED), path)
            return
        except OptionError as error:
            problem = error
    raise problem


def _union_members(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _kind(python_type: Any) -> str:
    """The name under which ``_check_value`` knows a type."""
    if python_type in (bool, int, float, str):
        return python_type.__name__
    if python_type in (list, tuple, Sequence):
        return 'list'
    return 'none' if python_type is type(None) else 'any'
