"""What may stand in an option file, and in a run's options: every key once, with its type, its default and its help.

A class here is a section of an option file. Type checkers and editors know the options of a run by it
(``opt['train']['total_iter']`` is an int); at run time they are plain dictionaries. ``mipkd_sr.options.keys`` makes the
forms of it by which files are checked and documented.

``load_options`` fills in every key, so that all are there in a run, but for what is ``NotRequired``: ask for that with
``get``, or ``in``.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from typing_extensions import NotRequired, TypedDict

REQUIRED = object()
"""The default of a key that must be given."""
COMPLETED = object()
"""Marks what stands in no option file: the program adds it to a run's options."""
GREATEST_STEPS = 10**9
"""Of a training."""


@dataclass(frozen=True)
class Key:
    """One value of an option file."""

    kind: str  # 'str', 'int', 'float', 'bool', 'list' or 'any'. A float that is a whole number counts as an int
    help: str  # what it is for
    default: Any = None  # where it is absent; REQUIRED if it must be given. A key whose default is None may be ~
    choices: tuple[Any, ...] = ()  # the allowed values, if they are few
    minimum: float | None = None  # the least value of a number, or of each number in a list
    above: float | None = None  # as ``minimum``, but this value itself is not allowed
    maximum: float | None = None  # the greatest
    below: float | None = None  # as ``maximum``, but this value itself is not allowed
    items: str = 'any'  # the kind of a list's entries
    length: int | None = None  # how many entries a list must have


def key(help: str, default: Any = None, kind: str = '', **bounds: Any) -> Key:
    """A key whose kind, and choices, its annotation tells, unless ``kind`` says otherwise; see ``Key``."""
    return Key(kind, help, default, **bounds)


Component = dict[str, Any]
"""A ``type``, and the arguments of the class that it names."""
Network = Annotated[Component, 'network']
Metric = Annotated[Component, 'metric']


class IoBackendOptions(TypedDict):
    """Where images are stored."""

    type: Annotated[Literal['disk', 'lmdb', 'memcached'], key('Where images are stored.', 'disk')]


class DatasetOptions(TypedDict):
    """An entry of ``datasets``; ``phase`` and ``scale`` are the run's."""

    name: Annotated[str, key('Name in logs and tables.', REQUIRED)]
    type: Annotated[str, key('Registered data set class.', 'PairedImageDataset')]
    dataroot_gt: Annotated[str | None, key('Folder (or lmdb) of HR images.')]
    dataroot_lq: Annotated[str | None, key('Folder (or lmdb) of LR images.')]
    meta_info_file: Annotated[
        str | None, key('Text file with the names of the images to use; every image of the folder if ~.')
    ]
    scan: Annotated[bool, key('Whether to look at every file before a run; see mipkd_sr.data.scan.', True)]
    filename_tmpl: Annotated[str, key("From an HR image's name to its LR image's, such as '{}x4'.", '{}')]
    io_backend: IoBackendOptions
    color: Annotated[Literal['y'] | None, key("'y' to read the Y channel alone.")]
    mean: Annotated[list[float] | None, key('Mean to subtract from images in [0, 1], a value a channel.', length=3)]
    std: Annotated[
        list[float] | None, key('Standard deviation to divide images by, a value a channel.', length=3, above=0)
    ]
    gt_size: Annotated[int, key('Side of a training HR patch, in pixels; a multiple of the scale.', minimum=1)]
    lq_size: Annotated[
        int | None,
        key('Side of a training LR patch, in pixels, instead of gt_size, which is scale times that.', minimum=1),
    ]
    use_hflip: Annotated[bool, key('Whether to flip training patches.', True)]
    use_rot: Annotated[bool, key('Whether to rotate training patches.', True)]
    batch_size_per_gpu: Annotated[int, key('Training patches a step and process.', 16, minimum=1, maximum=2**16)]
    num_worker_per_gpu: Annotated[int, key('Readers of images, for each training process.', 0, minimum=0, maximum=256)]
    pin_memory: Annotated[bool, key('Whether to read into page-locked memory; faster transfer to a GPU.', True)]
    persistent_workers: Annotated[bool, key("BasicSR's; readers live as long as the run here.", False)]
    prefetch_mode: Annotated[str | None, key("BasicSR's; batches are always transferred ahead of use here.")]
    num_prefetch_queue: Annotated[int, key("BasicSR's; not used.", 1)]
    dataset_enlarge_ratio: Annotated[int, key("BasicSR's, against costly epoch ends; there are none here.", 1)]
    use_shuffle: Annotated[bool, key("BasicSR's; training images are always shuffled.", True)]
    weight: Annotated[float, key('How often it is drawn from, relative to the other sets of a mix.', 1.0, above=0)]
    others: Annotated[list[Any] | None, key('Further sets: a list under train is its first and these.', kind='any')]
    phase: Annotated[str, COMPLETED]
    scale: Annotated[int, COMPLETED]


class StudentPathOptions(TypedDict):
    """What ``path`` of a training run and of a test have in common; paths are absolute in a run."""

    pretrain_network_g: Annotated[
        str | None, key("Checkpoint of the student's weights to start from (train) or to test.")
    ]
    strict_load_g: Annotated[
        bool, key('Whether that file must fit exactly; else weights that do not fit are left out.', True)
    ]
    log: Annotated[str, COMPLETED]
    visualization: Annotated[str, COMPLETED]


class PathOptions(StudentPathOptions):
    """``path`` of a training run: checkpoints, and the folders that it writes to."""

    param_key_g: Annotated[str, key('Which weights of that file: params or params_ema.', 'params')]
    pretrain_network_t: Annotated[str | dict[str, str] | None, key("Checkpoint of the teacher's weights.")]
    param_key_t: Annotated[
        str | dict[str, str],
        key('Which weights of that file: params_ema where it has them, or params.', 'params_ema'),
    ]
    init_network_g: Annotated[
        Literal['teacher_slice'] | None,
        key('teacher_slice starts the student from the first channels of the teacher; ~ as it is.'),
    ]
    resume_state: Annotated[str | None, key('Training state to resume from.')]
    ignore_resume_networks: Annotated[Any, key("BasicSR's; not used: a training state holds its networks.")]
    experiments_root: Annotated[str, COMPLETED]
    models: Annotated[str, COMPLETED]
    training_states: Annotated[str, COMPLETED]


TestedWeights = Annotated[str, key('Which weights of the file: params_ema where it has them, or params.', 'params_ema')]


class TestingPathOptions(StudentPathOptions):
    """``path`` of a test."""

    param_key_g: TestedWeights
    results_root: Annotated[str, COMPLETED]


class TrainOptions(TypedDict):
    """``train``, but for the terms of the loss, whose names are the user's."""

    total_iter: Annotated[int, key('Optimizer steps to take.', REQUIRED, minimum=1, maximum=GREATEST_STEPS)]
    warmup_iter: Annotated[int, key('Steps over which the learning rate rises from 0; -1 for none.', -1, minimum=-1)]
    ema_decay: Annotated[float, key('Decay of the moving average of the weights; 0 for none.', 0.0, minimum=0, below=1)]
    ema_warmup: Annotated[
        bool,
        key(
            'Whether the decay of step i is at most (1 + i) / (10 + i), so that the average soon forgets the '
            'random start; false: ema_decay throughout, as BasicSR has it.',
            True,
        ),
    ]
    accumulation_steps: Annotated[
        int,
        key(
            'Batches of batch_size_per_gpu whose gradients are averaged for one optimizer step.',
            1,
            minimum=1,
            maximum=2**16,
        ),
    ]
    second_step: Annotated[
        list[str] | None,
        key(
            "Losses, such as dukd_opt, with an optimizer step of their own after the others', on top of its "
            "gradient, as in DUKD's authors' program: twice the optimizer's steps."
        ),
    ]
    grad_clip: Annotated[
        float, key('Greatest norm of the gradient, scaled down to it if larger; 0 for none.', 0.0, minimum=0)
    ]
    max_skipped_steps: Annotated[
        int,
        key(
            'Steps in a row that are skipped because a loss or gradient is not finite; one more ends the run.',
            20,  # under fp16 the scaler alone may need 16, from 2^16 down to 1
            minimum=0,
        ),
    ]
    precision: Annotated[
        Literal['fp32', 'bf16', 'fp16'],
        key('Arithmetic of the networks: fp32, or mixed with bf16 or (with loss scaling) fp16.', 'fp32'),
    ]
    teacher_precision: Annotated[
        Literal['fp32', 'bf16', 'fp16'] | dict[str, str | None] | None,
        key("Arithmetic of the teacher's own forward, which needs no gradient; ~: as precision."),
    ]
    tf32: Annotated[
        bool | None, key("Whether GPUs may round factors to TF32 in fp32 arithmetic; ~: as PyTorch's default.")
    ]
    channels_last: Annotated[bool, key('Whether feature maps are stored with their channels last.', False)]
    compile: Annotated[
        Literal[False, True, 'auto', 'graphs'],
        key(
            'Whether torch.compile compiles networks and losses: true; graphs, into CUDA graphs, too; or auto: '
            'graphs on a GPU with a C++ compiler beside it, for 5,000 steps or more, else false.',
            'auto',
        ),
    ]
    compile_cache: Annotated[str | None, key("Folder of compiled code, which runs may share; PyTorch's own if ~.")]
    optim_g: Annotated[Component, 'optimizer']
    scheduler: Annotated[Component, 'scheduler']


class MeasuringOptions(TypedDict):
    """What ``val`` of a training run and of a test have in common."""

    save_img: Annotated[bool, key('Whether to save the SR images.', False)]
    suffix: Annotated[str | None, key("Ending of saved images' names; the run's name if ~.")]
    pbar: Annotated[bool, key('Whether to show a progress bar.', True)]
    tile: Annotated[
        int,
        key('Side of the squares, in LR pixels, that images are cut into to bound memory; 0 for none.', 0, minimum=0),
    ]
    tile_overlap: Annotated[
        int, key("Surroundings that each square is given, in LR pixels; a receptive field's reach.", 32, minimum=0)
    ]
    metrics: NotRequired[dict[str, Metric]]


class ValOptions(MeasuringOptions):
    """``val`` of a training run."""

    val_freq: Annotated[int, key('Steps between validations.', REQUIRED, minimum=1)]
    images_shown: Annotated[
        int, key('Images of each set whose SR image is shown in TensorBoard and W&B.', 0, minimum=0)
    ]


class TestingValOptions(MeasuringOptions):
    """``val`` of a test."""

    self_ensemble: Annotated[
        Literal[False, True, 'both'],
        key('Whether networks are run on 8 turned copies: true, false, or both for a row each.', False),
    ]
    grey: Annotated[
        Literal['colour', 'as_is'],
        key(
            'How grey HR images are measured: colour (three equal channels, as BasicSR reads them) or as_is (one '
            'channel).',
            'colour',
        ),
    ]


class WandbOptions(TypedDict):
    """``logger:wandb``."""

    project: Annotated[str | None, key('Project at Weights & Biases to log to; needs mipkd_sr[wandb].')]
    resume_id: Annotated[str | None, key('Identity of an earlier run there, to go on with.')]


class LoggerOptions(TypedDict):
    """``logger``."""

    print_freq: Annotated[int, key('Steps between log lines.', 100, minimum=1)]
    save_checkpoint_freq: Annotated[int, key('Steps between checkpoints.', 5000, minimum=1)]
    keep_last: Annotated[
        int, key('How many checkpoints and training states to keep, the newest; 0 for all.', 0, minimum=0)
    ]
    gradients: Annotated[
        int, key("Steps between measurements of each loss's gradient on the student; 0 for none.", 0, minimum=0)
    ]
    use_tb_logger: Annotated[bool, key('Whether to write TensorBoard logs.', True)]
    wandb: WandbOptions


class DistOptions(TypedDict):
    """``dist_params``."""

    backend: Annotated[str, key('Of torch.distributed on GPUs; CPUs use gloo.', 'nccl')]
    port: Annotated[int, key('Port of the first process under Slurm.', 29500, minimum=1, maximum=65535)]
    timeout: Annotated[
        float,
        key(
            'Minutes for which a process waits for one that has stopped or hangs, before it gives up.',
            30.0,
            minimum=0.1,
            maximum=10080,
        ),
    ]


_Imports = TypedDict(
    '_Imports',
    {
        'import': Annotated[
            list[str] | None,
            key('Packages or modules of yours that register networks, losses, data sets or models.'),
        ]
    },
)
"""A word of Python cannot be declared otherwise."""


class CommonOptions(_Imports):
    """What the options of a training run and of a test have in common."""

    name: Annotated[str, key('Name of the run, and of its folder.', REQUIRED)]
    model_type: Annotated[str, key('Registered model class.', 'DistillModel')]
    scale: Annotated[int, key('Super-resolution factor.', REQUIRED, minimum=1, maximum=64)]
    num_gpu: Annotated[
        int, key('GPUs of this process: 0 for the CPU, 1, or auto (1 if there is a GPU, else 0).', 'auto', kind='any')
    ]
    manual_seed: Annotated[int, key('Seed of everything random.', 0, minimum=0, maximum=2**63 - 1)]
    dist_params: DistOptions
    is_train: Annotated[bool, COMPLETED]
    auto_resume: NotRequired[Annotated[bool, COMPLETED]]
    root_path: Annotated[str, COMPLETED]
    dist: Annotated[bool, COMPLETED]
    rank: Annotated[int, COMPLETED]
    world_size: Annotated[int, COMPLETED]


class TrainingOptions(CommonOptions):
    """The options of a training run."""

    datasets: Annotated[dict[str, DatasetOptions], ('train', 'val')]
    network_g: Network
    network_t: NotRequired[Network | dict[str, Network]]
    degradation: NotRequired[Annotated[Component, 'degradation']]
    path: PathOptions
    train: TrainOptions
    val: NotRequired[ValOptions]
    logger: LoggerOptions
    find_unused_parameters: Annotated[bool, key("BasicSR's; not needed.", False)]


class TestedNetworkOptions(TypedDict):
    """An entry of ``networks``."""

    network: Network
    path: Annotated[str | None, key('Checkpoint of its weights; ~ for a network without parameters.')]
    param_key: TestedWeights


class FigureOptions(TypedDict):
    """``figure``."""

    image: Annotated[
        str | list[str],
        key('Name of a test image, without ending, or a list of names: a picture each.', REQUIRED, kind='any'),
    ]
    box: Annotated[
        list[int] | None,
        key(
            'Top, left and side of the crop to show, in HR pixels; ~: 64 wide, where the networks differ most.',
            length=3,
            minimum=0,
        ),
    ]
    caption: Annotated[
        Literal['image', 'crop'],
        key(
            "What the metrics under each crop are of: the whole image, or the crop alone, as the papers' are.", 'image'
        ),
    ]


class TestingOptions(CommonOptions):
    """The options of a test."""

    datasets: Annotated[dict[str, DatasetOptions], ('test', 'val')]
    network_g: NotRequired[Network]
    networks: NotRequired[dict[str, TestedNetworkOptions]]
    path: TestingPathOptions
    val: TestingValOptions
    teacher: Annotated[str | None, key('Name of the network whose agreement with the others is measured.')]
    skip_missing: Annotated[
        bool, key('Whether networks whose weights, and test sets whose images, are not there are left out.', False)
    ]
    published: Annotated[
        list[str] | None,
        key('Names of published results for the table; see mipkd_sr/evaluation/published.yml.'),
    ]
    published_file: Annotated[str | None, key('File of published results, of the same form; the package has one.')]
    figure: NotRequired[FigureOptions]
    # written by BasicSR's older test files at the top level; the same as in val
    save_img: Annotated[bool, key('Whether to save the SR images.', False)]
    suffix: Annotated[str | None, key("Ending of saved images' names; the run's name if ~.")]
    crop_border: Annotated[int | None, key("BasicSR's; metrics have their own.")]


RunOptions = TrainingOptions | TestingOptions
