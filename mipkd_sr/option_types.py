"""The types of a run's options, for type checkers and editors; at run time they are plain dictionaries.

What the keys mean, their defaults and ranges stand in ``mipkd_sr.options.keys``; a test holds that the two agree.
``load_options`` fills in every key, so that all of them are there in a run, but for
what is ``NotRequired``: ask for that with ``get``, or ``in``.
"""

from typing import Any, TypedDict

from typing_extensions import NotRequired

Component = dict[str, Any]
"""A ``type``, and the arguments of the class that it names."""


class IoBackendOptions(TypedDict):
    """Where images are stored."""

    type: str


class DatasetOptions(TypedDict):
    """An entry of ``datasets``; ``phase`` and ``scale`` are the run's."""

    name: str
    type: str
    dataroot_gt: str | None
    dataroot_lq: str | None
    meta_info_file: str | None
    scan: bool
    filename_tmpl: str
    io_backend: IoBackendOptions
    color: str | None
    mean: list[float] | None
    std: list[float] | None
    gt_size: int
    lq_size: int | None
    use_hflip: bool
    use_rot: bool
    batch_size_per_gpu: int
    num_worker_per_gpu: int
    pin_memory: bool
    persistent_workers: bool
    prefetch_mode: str | None
    num_prefetch_queue: int
    dataset_enlarge_ratio: int
    use_shuffle: bool
    phase: str
    scale: int


class StudentPathOptions(TypedDict):
    """What ``path`` of a training run and of a test have in common; paths are absolute."""

    pretrain_network_g: str | None
    param_key_g: str
    strict_load_g: bool
    log: str
    visualization: str


class PathOptions(StudentPathOptions):
    """``path`` of a training run: checkpoints, and the folders that it writes to."""

    pretrain_network_t: Any
    param_key_t: Any
    init_network_g: str | None
    resume_state: str | None
    ignore_resume_networks: Any
    experiments_root: str
    models: str
    training_states: str


class TestingPathOptions(StudentPathOptions):
    """``path`` of a test."""

    results_root: str


class TrainOptions(TypedDict):
    """``train``, but for the terms of the loss, whose names are the user's."""

    total_iter: int
    warmup_iter: int
    ema_decay: float
    ema_warmup: bool
    accumulation_steps: int
    second_step: list[str] | None
    grad_clip: float
    max_skipped_steps: int
    precision: str
    teacher_precision: Any
    tf32: bool | None
    channels_last: bool
    compile: bool
    optim_g: Component
    scheduler: Component


class MeasuringOptions(TypedDict):
    """What ``val`` of a training run and of a test have in common."""

    save_img: bool
    suffix: str | None
    pbar: bool
    metrics: NotRequired[dict[str, Component]]


class ValOptions(MeasuringOptions):
    """``val`` of a training run."""

    val_freq: int
    images_shown: int


class TestingValOptions(MeasuringOptions):
    """``val`` of a test."""

    self_ensemble: Any
    tile: int
    tile_overlap: int
    grey: str


class LoggerOptions(TypedDict):
    """``logger``."""

    print_freq: int
    save_checkpoint_freq: int
    keep_last: int
    gradients: int
    use_tb_logger: bool
    wandb: dict[str, None]


class DistOptions(TypedDict):
    """``dist_params``."""

    backend: str
    port: int
    timeout: float


class CommonOptions(TypedDict):
    """What the options of a training run and of a test have in common."""

    name: str
    model_type: str
    scale: int
    num_gpu: int
    manual_seed: int
    datasets: dict[str, DatasetOptions]
    dist_params: DistOptions
    is_train: bool
    root_path: str
    dist: bool
    rank: int
    world_size: int


class TrainingOptions(CommonOptions):
    """The options of a training run."""

    network_g: Component
    network_t: NotRequired[Component]
    path: PathOptions
    train: TrainOptions
    val: NotRequired[ValOptions]
    logger: LoggerOptions
    find_unused_parameters: bool


class TestedNetworkOptions(TypedDict):
    """An entry of ``networks``."""

    network: Component
    path: str | None
    param_key: str


class FigureOptions(TypedDict):
    """``figure``."""

    image: str | list[str]
    box: list[int] | None
    caption: str


class TestingOptions(CommonOptions):
    """The options of a test."""

    network_g: NotRequired[Component]
    networks: NotRequired[dict[str, TestedNetworkOptions]]
    path: TestingPathOptions
    val: TestingValOptions
    teacher: str | None
    skip_missing: bool
    published: list[str] | None
    published_file: str | None
    figure: NotRequired[FigureOptions]
    save_img: bool
    suffix: str | None
    crop_border: int | None


RunOptions = TrainingOptions | TestingOptions
