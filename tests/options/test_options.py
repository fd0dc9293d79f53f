"""Option files: reading, merging, checking."""

import re
from pathlib import Path

import pytest
import yaml

from mipkd_sr.options.reading import compose_options, dump_options, force_options, read_options
from mipkd_sr.options.recipes import find_root
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime.errors import OptionError
from mipkd_sr.test import main as run_test
from mipkd_sr.train import main as train_main
from tests.conftest import ROOT

RECIPES = [
    file
    for file in sorted((ROOT / 'options').rglob('*.yml'))
    if not any(part.startswith('_') or part == 'tables' for part in file.relative_to(ROOT).parts)  # no recipes
]


def read(folder: Path, text: str, **others: str):
    for name, content in {'main': text, **others}.items():
        (folder / f'{name}.yml').write_text(content)
    return read_options(folder / 'main.yml')


def test_numbers_with_exponents_are_numbers(tmp_path):
    text = 'a: 1e-4\nb: 2E5\nc: -1.5e+3\nd: !!float 5e3\ne: 1e\nf: x1e4\ng: .5e1\n'
    assert read(tmp_path, text).data == {
        'a': 1e-4, 'b': 2e5, 'c': -1.5e3, 'd': 5e3, 'e': '1e', 'f': 'x1e4', 'g': 5.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    'text', ['a: !!python/object/apply:os.system [true]', 'a: [', 'a: 1\na: 2', '- 1', 'base: main.yml']
)
def test_unsafe_broken_or_ambiguous_yaml_is_refused_with_its_file(tmp_path, text):
    with pytest.raises(OptionError, match=r'main\.yml'):
        read(tmp_path, text)


ODD_YAML = {
    'a date that is none': ('name: 2024-13-45', {'name': '2024-13-45'}),
    'a date': ('name: 2024-01-02', {'name': '2024-01-02'}),
    'keys are text, as written': ('{1: a, on: b, 1.0: c}', {'1': 'a', 'on': 'b', '1.0': 'c'}),
    'merged keys': ('x: &x {1: a, b: 2}\ny: {<<: *x, b: 3}', {'x': {'1': 'a', 'b': 2}, 'y': {'1': 'a', 'b': 3}}),
    'a number of 5,000 digits': (f'a: {"9" * 5000}', r'is no value; put it in quotes if it is text \(line 1\)'),
    'no number': ('x: 1\na: !!int x', r"'x' is no value; put it in quotes if it is text \(line 2\)"),
    'an empty number': ('a: !!int ""', 'is no value'),
    'no truth value': ('a: !!bool maybe', 'is no value'),
    'itself': ('a: &a [*a]', 'holds itself'),
    'itself, in a mapping': ('a: &a {b: *a}', 'holds itself'),
    'billions': ('a0: &a0 [1, 1]\n' + '\n'.join(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 12)),
                 'holds more than 100,000 values, as aliases repeat them'),
    'nests too deeply': (f'a: {"[" * 3000}', 'nests too deeply'),
    'a list as a key': ('{? [1, 2] : b}', r'a key must be text \(line 1\)'),
    'NUL': ('a: "x\\0y"', 'holds a character that no name or text can have'),
    'half a character': ('a: "\\ud800"', 'holds a character that no name or text can have'),
    'a base that is none': ('base: 5', 'base: must be the path of an option file, or a list of them'),
    'bases that are none': ('base: [[x]]', 'base: must be the path of an option file, or a list of them'),
    'a base that is a device': ('base: /dev/null', r'/dev/null: cannot be read \(there is no such file'),
    'another kind of value': ('a: !!set {b}', 'could not determine a constructor'),
    'tabs': ('a:\n\tb: 1', 'is not valid YAML'),
}  # fmt: skip


@pytest.mark.parametrize(('text', 'expected'), ODD_YAML.values(), ids=ODD_YAML)
def test_what_a_file_may_hold_and_what_not(tmp_path, text, expected):
    if isinstance(expected, dict):
        assert read(tmp_path, text).data == expected
        return
    with pytest.raises(OptionError, match=expected) as found:
        read(tmp_path, text)
    assert len(str(found.value)) < 400
    assert str(found.value).isprintable()


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / 'main.yml').write_bytes(b'name: \xff\xe9')
    with pytest.raises(OptionError, match=r'main\.yml: is not a text file'):
        read_options(tmp_path / 'main.yml')


def test_bases_are_merged_key_by_key(tmp_path):
    options = read(
        tmp_path,
        'base: [one.yml, two.yml]\nx: {b: 5}\nsame: {type: A, q: 2}\n',
        one='x: {a: 1, b: 2}\nlist: [1, 2]\nsame: {type: A, p: 1}',
        two='x: {c: 3}\nlist: [3]',
    )
    assert options.data == {
        'x': {'a': 1, 'b': 5, 'c': 3},
        'list': [3],
        'same': {'type': 'A', 'p': 1, 'q': 2},
    }
    assert options.origin['x:a'].endswith('one.yml')
    assert options.origin['x:b'].endswith('main.yml')


BASE = (
    'network_g: {type: StagedEDSR, num_feat: 8, num_block: 2, res_scale: 0.1, upscale: 2}\n'
    'train: {optim_g: {type: Adam, lr: 1e-3, amsgrad: true}, kd_opt: {type: LogitsKDLoss, loss_weight: 3}}\n'
    'datasets: {train: {type: PairedImageDataset, gt_size: 16, dataroot_gt: a}}\n'
    'other: {type: A, p: 1}\n'
)


def test_another_type_keeps_what_both_know_and_the_rest_is_said(tmp_path):
    text = 'base: one.yml\nnetwork_g: {type: StagedRCAN, num_group: 3}\nother: {type: B}\n'
    options = read(tmp_path, text, one=BASE)
    kept = {'num_feat': 8, 'num_block': 2, 'res_scale': 0.1, 'upscale': 2}
    assert options.data['network_g'] == {'type': 'StagedRCAN', 'num_group': 3} | kept
    assert options.data['other'] == {'type': 'B'}  # nobody knows what such a thing takes
    assert [note.partition(': ')[2] for note in options.notes] == [
        'network_g: type is now StagedRCAN, not StagedEDSR; of what was set for that, num_feat: 8, num_block: 2, '
        'res_scale: 0.1, upscale: 2 is kept',
        'other: type is now B, not A; of what was set for that, p is dropped',
    ]
    force_options(
        options,
        ['train:optim_g:type=SGD', 'train:kd_opt:type=FitNetLoss', 'datasets:train:type=PairedPatchDataset'],
    )
    assert options.data['train'] == {
        'optim_g': {'type': 'SGD', 'lr': 1e-3},
        'kd_opt': {'type': 'FitNetLoss', 'loss_weight': 3},
    }
    assert options.data['datasets']['train'] == {'type': 'PairedPatchDataset', 'gt_size': 16, 'dataroot_gt': 'a'}
    assert options.notes[2] == (
        '--force_yml: train:optim_g: type is now SGD, not Adam; of what was set for that, amsgrad is dropped and '
        'lr: 0.001 is kept'
    )


def test_what_is_given_beside_the_new_type_is_kept_whatever_it_is(tmp_path):
    text = 'base: two.yml\nnetwork_g: {num_block: 7}\n'
    two = 'base: one.yml\nnetwork_g: {type: StagedSwinIR, num_feat: 9, depths: [2]}\n'
    opt = read(tmp_path, text, two=two, one=BASE).data
    assert opt['network_g'] == {'type': 'StagedSwinIR', 'num_feat': 9, 'depths': [2], 'upscale': 2, 'num_block': 7}


def test_force_yml_reads_values_as_yaml(tmp_path):
    options = read(tmp_path, 'a: {b: 1}\n')
    force_options(options, ['a:b=1e-4', 'a:new=[1, 2]', 'c:d=~', 'e=1=2'])
    assert options.data == {'a': {'b': 1e-4, 'new': [1, 2]}, 'c': {'d': None}, 'e': '1=2'}
    for entry in ('a', '=1', 'a:b:c=1', 'a:b=['):
        with pytest.raises(OptionError, match='--force_yml'):
            force_options(options, [entry])


def test_root_is_the_folder_above_options_wherever_one_calls_from(tmp_path, monkeypatch):
    file = tmp_path / 'project' / 'options' / 'train' / 'x.yml'
    file.parent.mkdir(parents=True)
    assert find_root(file) == tmp_path / 'project'
    monkeypatch.chdir(file.parent)
    assert find_root(Path('x.yml')) == tmp_path / 'project'
    assert find_root(tmp_path / 'y.yml') == tmp_path


def test_resolved_options_read_back_as_they_are(training_options, write_options, tmp_path):
    opt = load_options(write_options(training_options('mipkd')), is_train=True).data
    (tmp_path / 'dump.yml').write_text(dump_options(opt))
    assert read_options(tmp_path / 'dump.yml').data == yaml.safe_load(dump_options(opt)) == opt


BAD = {
    'unknown key': ({'trian': {}}, "trian: is not a key that is known here; did you mean 'train'"),
    'unknown nested key': ({'train': {'total_iters': 3}}, "train:total_iters.*did you mean 'total_iter'"),
    'unknown argument': ({'network_g': {'num_feats': 3}}, "network_g:num_feats.*did you mean 'num_feat'"),
    'unknown loss argument': ({'train': {'mipkd_opt': {'feat_wieght': 1}}}, "did you mean 'feat_weight'"),
    'unknown optimizer': ({'train': {'optim_g': {'type': 'Adm'}}}, "optim_g:type.*did you mean 'Adam'"),
    'unknown network': ({'network_g': {'type': 'edsr'}}, "network_g:type.*did you mean 'EDSR'"),
    'unknown model': ({'model_type': 'MiPKD'}, "model_type: there is no model 'MiPKD'; did you mean 'MiPKDModel'"),
    'wrong type': ({'scale': 'two'}, "scale: must be a whole number, not 'two'"),
    'wrong nested type': ({'train': {'optim_g': {'lr': 'fast'}}}, 'train:optim_g:lr: must be a number'),
    'not a mapping': ({'train': {'pixel_opt': 'L1Loss'}}, 'train:pixel_opt: must be a mapping'),
    'absent file': ({'path': {'pretrain_network_t': 'no.pth'}}, 'path:pretrain_network_t: there is no .*no.pth'),
    'absent folder': ({'datasets': {'val': {'dataroot_lq': 'no'}}}, 'datasets:val:dataroot_lq: there is no .*no;'),
    'other scale, student': ({'network_g': {'upscale': 3}}, 'network_g:upscale: is 3, but scale is 2'),
    'other teacher': ({'network_t': {'num_feat': 20}}, 'path:pretrain_network_t: .*teacher.pth holds another network'),
    'other architecture': (
        {'network_t': {'type': 'RCAN', 'num_group': 2, 'num_block': 1, 'num_feat': 16}},
        'path:pretrain_network_t: .*teacher.pth holds another network than this StagedRCAN',
    ),
    'no weights': ({'path': {'pretrain_network_t': None}}, 'path:pretrain_network_t: is missing'),
    'weights of no teacher': (
        {'network_t': None, 'train': {'kd_opt': None, 'mipkd_opt': None}},
        'path:pretrain_network_t: is given, but there is no network_t',
    ),
    'no loss': ({'train': {'pixel_opt': None, 'mipkd_opt': None, 'kd_opt': None}}, 'train: names no loss'),
    'no total': ({'train': {'total_iter': None}}, 'train:total_iter: must be a whole number'),
    'patch size': ({'datasets': {'train': {'gt_size': 17}}}, 'datasets:train:gt_size: must be a multiple of scale, 2'),
    'position': ({'train': {'mipkd_opt': {'positions': [7]}}}, 'train:mipkd_opt: position 7 is outside'),
    'choice': ({'train': {'mipkd_opt': {'mask': 'rnd'}}}, "train:mipkd_opt: mask 'rnd' is not one of random"),
    'GPUs': ({'num_gpu': 2}, 'num_gpu: is 2, .* torchrun --nproc_per_node=2'),
    'wrong model': ({'model_type': 'MiPKDModel', 'train': {'mipkd_opt': None}}, 'train: MiPKDModel needs a MiPKDLoss'),
    'no stages': ({'network_g': {'type': 'Bicubic', 'upscale': 2}}, 'Bicubic, the student, has no head'),
    'not finite': ({'train': {'ema_decay': float('nan')}}, 'train:ema_decay: must be finite, not nan'),
    'not finite in a list': (
        {'train': {'optim_g': {'betas': [float('inf'), 0.9]}}},
        r'train:optim_g:betas: must be finite, not \[inf, 0.9\]',
    ),
    'too large for a number': ({'train': {'grad_clip': 10**400}}, 'train:grad_clip: must be finite'),
    'below its range': ({'val': {'val_freq': 0}}, 'val:val_freq: must be at least 1, not 0'),
    'no scale': ({'scale': 0}, 'scale: must be at least 1, not 0'),
    'a negative seed': ({'manual_seed': -1}, 'manual_seed: must be at least 0, not -1'),
    'too many readers': (
        {'datasets': {'train': {'num_worker_per_gpu': 2**31}}},
        'datasets:train:num_worker_per_gpu: must be at most 256, not 2147483648',
    ),
    'a decay of 1': ({'train': {'ema_decay': 1}}, 'train:ema_decay: must be less than 1, not 1'),
    'no list': ({'train': {'scheduler': {'milestones': 5}}}, 'train:scheduler:milestones: must be a list, not 5'),
    'entries': ({'train': {'scheduler': {'milestones': ['x']}}}, "milestones:0: must be a whole number, not 'x'"),
    'entries of an argument': (
        {'train': {'optim_g': {'betas': [0.9, 'x']}}},
        'train:optim_g:betas: must be a list whose entries are each a number',
    ),
    'length of an argument': ({'train': {'optim_g': {'betas': [0.9]}}}, 'betas: must be a list of 2 entries'),
    'a count of layers': ({'network_g': {'num_block': 2**31}}, 'network_g:num_block: must be at most 65536'),
    'metric': (
        {'val': {'metrics': {'psnr': {'crop_border': '-'}}}},
        "psnr:crop_border: must be a whole number, not '-'",
    ),
    'mean': ({'datasets': {'train': {'mean': [0.5]}}}, 'datasets:train:mean: must have 3 entries, not 1'),
    'wandb': ({'logger': {'wandb': {'resume_id': 'x'}}}, 'logger:wandb:resume_id: is given, but there is no project'),
}


@pytest.mark.parametrize(('changes', 'message'), BAD.values(), ids=BAD)
def test_bad_options_are_one_sentence_and_leave_nothing(
    changes, message, training_options, write_options, tmp_path, capsys
):
    opt = training_options('kd', 'mipkd', **changes)
    for part in ('network_g', 'network_t'):  # as a changed type would in a file: replace the whole
        if 'type' in (changes.get(part) or {}):
            opt[part] = changes[part]
    file = write_options(opt)
    assert train_main(['-opt', str(file)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error:')]
    assert re.search(message, line), line
    assert 'options.yml' in line
    assert list(tmp_path.iterdir()) == [file]


def test_a_kd_without_teacher_is_refused(training_options, write_options, capsys):
    opt = training_options(train={'kd_opt': {'type': 'LogitsKDLoss'}})
    assert train_main(['-opt', str(write_options(opt))]) == 2
    assert 'train:kd_opt: LogitsKDLoss needs a teacher' in capsys.readouterr().err


def test_dry_run_checks_everything_prints_it_and_writes_nothing(training_options, write_options, tmp_path, capsys):
    file = write_options(training_options('kd', 'mipkd'))
    assert train_main(['-opt', str(file), '--dry_run']) == 0
    out = capsys.readouterr().out
    assert 'position 1: student after unit 1 of 2, 8 x 8 x 8; teacher after unit 2 of 4, 12 x 8 x 8' in out
    assert 'waves, 5 images, gone through 2 times' in out
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize('file', RECIPES, ids=lambda file: str(file.relative_to(ROOT / 'options')))
def test_every_option_file_passes_a_dry_run(file, capsys):
    main = run_test if file.is_relative_to(ROOT / 'options' / 'test') else train_main
    code = main(['-opt', str(file), '--dry_run'])
    captured = capsys.readouterr()
    assert code in (0, 3), captured.err
    assert (code == 3) == ('missing:' in captured.out)


BASICSR_FILE = """
# written as BasicSR writes its own
name: 101_{kind}_x2_f64b16_DIV2K_B16G1
model_type: {model}
scale: 2
num_gpu: 1  # set num_gpu: 0 for cpu mode
manual_seed: 10
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    filename_tmpl: '{{}}'
    io_backend:
      type: disk
    gt_size: 32
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    io_backend:
      type: disk
network_g:
  type: {kind}
{network}
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [200000]
    gamma: 0.5
  total_iter: 3
  warmup_iter: -1  # no warm up
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false
logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~
dist_params:
  backend: nccl
  port: 29500
"""


@pytest.mark.parametrize(
    ('kind', 'model', 'network'),
    [
        ('EDSR', 'SRModel', 'num_in_ch: 3\nnum_out_ch: 3\nnum_feat: 8\nnum_block: 2\nres_scale: 0.1\nimg_range: 255.'),
        ('RCAN', 'SRModel', 'num_in_ch: 3\nnum_out_ch: 3\nnum_feat: 8\nnum_group: 2\nnum_block: 1\nsqueeze_factor: 4'),
        ('SwinIR', 'SwinIRModel', "img_size: 16\nwindow_size: 8\nembed_dim: 12\ndepths: [2]\nnum_heads: [2]\n"
         "in_chans: 3\nimg_range: 1.\nmlp_ratio: 2\nupsampler: 'pixelshuffle'\nresi_connection: '1conv'"),
        ('MSRResNet', 'SRModel', 'num_in_ch: 3\nnum_out_ch: 3\nnum_feat: 8\nnum_block: 1'),
    ],
)  # fmt: skip
def test_basicsrs_own_option_files_train(kind, model, network, pairs, tmp_path):
    lines = [*network.split('\n'), 'upscale: 2']
    text = BASICSR_FILE.format(
        kind=kind,
        model=model,
        gt=pairs / 'HR',
        lq=pairs / 'LR_x2',
        network='\n'.join(f'  {line}' for line in lines),
    )
    file = tmp_path / 'train.yml'
    file.write_text(text)
    assert train_main(['-opt', str(file)]) == 0
    name = f'101_{kind}_x2_f64b16_DIV2K_B16G1'
    assert (tmp_path / 'experiments' / name / 'models' / 'net_g_latest.pth').is_file()
    assert (tmp_path / 'tb_logger' / name).is_dir()


def test_the_scale_is_filled_in_as_the_command_line_leaves_it(tmp_path):
    (tmp_path / 'base.yml').write_text(
        "scale: 4\nname: run_x{scale}\nnetwork_g: {upscale: '{scale}'}\n"
        "datasets: {train: {dataroot_lq: 'LR_x{scale}', filename_tmpl: '{}x{scale}', lq_size: 48}}\n"
    )
    (tmp_path / 'own.yml').write_text('base: base.yml\nlist: ["a{scale}", 1]\n')
    options = read_options(tmp_path / 'own.yml')
    assert options.data['name'] == 'run_x4'
    force_options(options, ['scale=3', 'network_g:num_feat=8'])
    assert options.data == {
        'scale': 3,
        'name': 'run_x3',
        'network_g': {'upscale': 3, 'num_feat': 8},
        'datasets': {'train': {'dataroot_lq': 'LR_x3', 'filename_tmpl': '{}x3', 'gt_size': 144}},
        'list': ['a3', 1],
    }
    force_options(options, ['datasets:train:gt_size=144'])
    with pytest.raises(OptionError, match=r'datasets:train:gt_size: is not scale x lq_size, 3 x 48'):
        force_options(options, ['datasets:train:gt_size=96'])


def test_composed_options_are_those_of_a_file_with_these_bases(tmp_path):
    (tmp_path / 'a.yml').write_text('scale: 2\ntrain: {x: 1, y: 1}\n')
    (tmp_path / 'b.yml').write_text('train: {y: 2}\n')
    (tmp_path / 'own.yml').write_text('base: [a.yml, b.yml]\ntrain: {z: {"{scale}": 3}}\n')
    bases = [tmp_path / 'a.yml', tmp_path / 'b.yml']
    composed = compose_options(tmp_path / 'own.yml', bases, [{'train': {'z': {'{scale}': 3}}}])
    assert composed == read_options(tmp_path / 'own.yml')
    assert composed.origin['train:y'] == str(tmp_path / 'b.yml')
