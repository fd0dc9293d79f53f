"""What may stand in an option file: every key once, with its type, its default and what it is for.

What a class takes (a network, a loss, an optimizer, a metric) is not repeated here: it is read from the class's own
signature, see ``mipkd_sr.options.checking``.
"""

from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

from mipkd_sr.archs import network_class
from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, OneOrNamed, Section
from mipkd_sr.options.registries import finder, names_of, optimizers, schedulers

GREATEST_COUNT = 2**16
"""Of layers, channels, positions or whatever else a network or a loss may have a number of."""

GREATEST_STEPS = 10**9
"""Of a training."""

NETWORK = Component('network', network_class, names_of(ARCH_REGISTRY), greatest=GREATEST_COUNT)
OPTIONAL_NETWORK = Component('network', network_class, names_of(ARCH_REGISTRY), greatest=GREATEST_COUNT, optional=True)
LOSS = Component(
    'loss',
    finder(LOSS_REGISTRY),
    names_of(LOSS_REGISTRY),
    extra={
        'schedule': Key('any', 'How its weight goes with the training: shape, from, to, begin, end.'),
        'gate': Key(
            'int',
            'Side, in HR pixels, of patches where the teacher must be better to be heard; 0 for none.',
            0,
            minimum=0,
        ),
        'balance': Key(
            'float',
            'Norm of its gradient on the student, as a multiple of that of the terms without balance; ~: not balanced.',
            minimum=0,
            maximum=1000,
        ),
        'teacher': Key('any', 'Which of several teachers it learns from: a name, or weights by name; all alike if ~.'),
    },
    arguments={
        'intervals': Key(
            'list', "Steps between the history's moves, in each part of the training.", items='int', minimum=1
        ),
        'interval_length': Key('int', 'Steps of each part but the last.', 100_000, minimum=1, maximum=GREATEST_STEPS),
    },
    greatest=GREATEST_COUNT,
    optional=True,
)
OPTIMIZER = Component('optimizer', lambda name: optimizers()[name], optimizers, skip=('params',))
SCHEDULER = Component(
    'scheduler',
    lambda name: schedulers()[name],
    schedulers,
    skip=('optimizer', 'last_epoch'),
    arguments={
        'milestones': Key('list', 'Steps at which the learning rate is multiplied by gamma.', REQUIRED, items='int'),
        'gamma': Key('float', 'Factor of the learning rate.', 0.1, minimum=0),
        'periods': Key('list', 'Steps of each cosine period.', REQUIRED, items='int', minimum=1),
        'restarts': Key('list', 'Steps at which the schedule starts again.', (0,), items='int', minimum=0),
        'restart_weights': Key('list', 'Factor of the learning rate after each restart.', (1,), items='float'),
        'eta_min': Key('float', 'Least learning rate.', 0.0, minimum=0),
    },
)
"""BasicSR's classes do not say what type their arguments have."""

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
    'color': Key('str', "'y' to read the Y channel alone.", choices=('y',)),
    'mean': Key('list', 'Mean to subtract from images in [0, 1], a value a channel.', items='float', length=3),
    'std': Key('list', 'Standard deviation to divide images by, a value a channel.', items='float', length=3, above=0),
    'gt_size': Key('int', 'Side of a training HR patch, in pixels; a multiple of the scale.', minimum=1),
    'lq_size': Key(
        'int', 'Side of a training LR patch, in pixels, instead of gt_size, which is scale times that.', minimum=1
    ),
    'use_hflip': Key('bool', 'Whether to flip training patches.', True),
    'use_rot': Key('bool', 'Whether to rotate training patches.', True),
    'batch_size_per_gpu': Key('int', 'Training patches a step and process.', 16, minimum=1, maximum=2**16),
    'num_worker_per_gpu': Key(
        'int', 'Processes that read images, for each training process.', 0, minimum=0, maximum=256
    ),
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
    finder(METRIC_REGISTRY),
    names_of(METRIC_REGISTRY),
    skip=('img', 'img2', 'kwargs'),
    arguments={
        'crop_border': Key('int', 'Pixels at each edge that are left out.', REQUIRED, minimum=0, maximum=2**16),
        'input_order': Key('str', "BasicSR's; the order of an image's dimensions.", 'HWC', ('HWC',)),
        'test_y_channel': Key('bool', 'Whether the Y channel alone is compared.', False),
    },
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
    'tile': Key(
        'int', 'Side of the squares, in LR pixels, that images are cut into to bound memory; 0 for none.', 0, minimum=0
    ),
    'tile_overlap': Key(
        'int', "Surroundings that each square is given, in LR pixels; a receptive field's reach.", 32, minimum=0
    ),
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
    'import': Key(
        'list', 'Packages or modules of yours that register networks, losses, data sets or models.', items='str'
    ),
    'name': Key('str', 'Name of the run, and of its folder.', REQUIRED),
    'model_type': Key('str', 'Registered model class.', 'DistillModel'),
    'scale': Key('int', 'Super-resolution factor.', REQUIRED, minimum=1, maximum=64),
    'num_gpu': Key('any', 'GPUs of this process: 0 for the CPU, 1, or auto (1 if there is a GPU, else 0).', 'auto'),
    'manual_seed': Key('int', 'Seed of everything random.', 0, minimum=0, maximum=2**63 - 1),
    'dist_params': Section(
        {
            'backend': Key('str', 'Of torch.distributed on GPUs; CPUs use gloo.', 'nccl'),
            'port': Key('int', 'Port of the first process under Slurm.', 29500, minimum=1, maximum=65535),
            'timeout': Key(
                'float',
                'Minutes for which a process waits for one that has stopped or hangs, before it gives up.',
                30.0,
                minimum=0.1,
                maximum=10080,
            ),
        }
    ),
}

TRAIN = Section(
    {
        **COMMON_KEYS,
        'datasets': MapOf(DATASET, ('train', 'val')),
        'network_g': NETWORK,
        'network_t': OneOrNamed(OPTIONAL_NETWORK),
        'path': Section(
            {
                **NETWORK_PATHS,
                'pretrain_network_t': OneOrNamed(Key('str', "Checkpoint of the teacher's weights.")),
                'param_key_t': OneOrNamed(
                    Key('str', 'Which weights of that file: params_ema where it has them, or params.', 'params_ema')
                ),
                'init_network_g': Key(
                    'str',
                    'teacher_slice starts the student from the first channels of the teacher; ~ as it is.',
                    choices=('teacher_slice',),
                ),
                'resume_state': Key('str', 'Training state to resume from.'),
                'ignore_resume_networks': Key('any', "BasicSR's; not used: a training state holds its networks."),
            }
        ),
        'train': Section(
            {
                'total_iter': Key('int', 'Optimizer steps to take.', REQUIRED, minimum=1, maximum=GREATEST_STEPS),
                'warmup_iter': Key(
                    'int', 'Steps over which the learning rate rises from 0; -1 for none.', -1, minimum=-1
                ),
                'ema_decay': Key(
                    'float', 'Decay of the moving average of the weights; 0 for none.', 0.0, minimum=0, below=1
                ),
                'ema_warmup': Key(
                    'bool',
                    'Whether the decay of step i is at most (1 + i) / (10 + i), so that the average soon forgets the '
                    'random start; false: ema_decay throughout, as BasicSR has it.',
                    True,
                ),
                'accumulation_steps': Key(
                    'int',
                    'Batches of batch_size_per_gpu whose gradients are averaged for one optimizer step.',
                    1,
                    minimum=1,
                    maximum=2**16,
                ),
                'second_step': Key(
                    'list',
                    "Losses, such as dukd_opt, with an optimizer step of their own after the others', on top of its "
                    "gradient, as in DUKD's authors' program: twice the optimizer's steps.",
                    items='str',
                ),
                'grad_clip': Key(
                    'float', 'Greatest norm of the gradient, scaled down to it if larger; 0 for none.', 0.0, minimum=0
                ),
                'max_skipped_steps': Key(
                    'int',
                    'Steps in a row that are skipped because a loss or gradient is not finite; one more ends the run.',
                    20,  # under fp16 the scaler alone may need 16, from 2^16 down to 1
                    minimum=0,
                ),
                'precision': Key(
                    'str',
                    'Arithmetic of the networks: fp32, or mixed with bf16 or (with loss scaling) fp16.',
                    'fp32',
                    ('fp32', 'bf16', 'fp16'),
                ),
                'teacher_precision': OneOrNamed(
                    Key(
                        'str',
                        "Arithmetic of the teacher's own forward, which needs no gradient; ~: as precision.",
                        choices=('fp32', 'bf16', 'fp16'),
                    )
                ),
                'tf32': Key(
                    'bool', "Whether GPUs may round factors to TF32 in fp32 arithmetic; ~: as PyTorch's default."
                ),
                'channels_last': Key('bool', 'Whether feature maps are stored with their channels last.', False),
                'compile': Key('bool', 'Whether torch.compile compiles the networks; needs a C++ compiler.', False),
                'optim_g': OPTIMIZER,
                'scheduler': SCHEDULER,
            },
            patterns={'_opt': LOSS},
        ),
        'val': Section(
            {
                'val_freq': Key('int', 'Steps between validations.', REQUIRED, minimum=1),
                'images_shown': Key(
                    'int', 'Images of each set whose SR image is shown in TensorBoard and W&B.', 0, minimum=0
                ),
                **VAL_KEYS,
            },
            optional=True,
        ),
        'logger': Section(
            {
                'print_freq': Key('int', 'Steps between log lines.', 100, minimum=1),
                'save_checkpoint_freq': Key('int', 'Steps between checkpoints.', 5000, minimum=1),
                'keep_last': Key(
                    'int', 'How many checkpoints and training states to keep, the newest; 0 for all.', 0, minimum=0
                ),
                'gradients': Key(
                    'int',
                    "Steps between measurements of each loss's gradient on the student; 0 for none.",
                    0,
                    minimum=0,
                ),
                'use_tb_logger': Key('bool', 'Whether to write TensorBoard logs.', True),
                'wandb': Section(
                    {
                        'project': Key('str', 'Project at Weights & Biases to log to; needs mipkd_sr[wandb].'),
                        'resume_id': Key('str', 'Identity of an earlier run there, to go on with.'),
                    }
                ),
            }
        ),
        'find_unused_parameters': Key('bool', "BasicSR's; not needed.", False),
    }
)

TEST = Section(
    {
        **COMMON_KEYS,
        'datasets': MapOf(DATASET, ('test', 'val')),
        'network_g': OPTIONAL_NETWORK,
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
        'skip_missing': Key(
            'bool', 'Whether networks whose weights, and test sets whose images, are not there are left out.', False
        ),
        'published': Key(
            'list', 'Names of published results for the table; see mipkd_sr/evaluation/published.yml.', items='str'
        ),
        'published_file': Key('str', 'File of published results, of the same form; the package has one.'),
        'figure': Section(
            {
                'image': Key(
                    'any', 'Name of a test image, without ending, or a list of names: a picture each.', REQUIRED
                ),
                'box': Key(
                    'list',
                    'Top, left and side of the crop to show, in HR pixels; ~: 64 wide, where the networks differ most.',
                    items='int',
                    length=3,
                    minimum=0,
                ),
                'caption': Key(
                    'str',
                    "What the metrics under each crop are of: the whole image, or the crop alone, as the papers' are.",
                    'image',
                    ('image', 'crop'),
                ),
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
