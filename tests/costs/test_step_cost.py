"""What a step of each method does, in counts that do not depend on the machine."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.autograd import DeviceType

from mipkd_sr.cli import main as mipkd
from mipkd_sr.costs.comparing import StepComparison, Turn, device_work
from mipkd_sr.costs.counting import PeakMemory, count_floor, count_needed, measure_memory
from mipkd_sr.costs.methods import METHODS, batch_for, first_step, model_for, take_step
from mipkd_sr.costs.planner import plan_step
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.runtime import compiling
from tests.conftest import ROOT
from tests.costs.counts import count_step
from tests.gradients import tiny_vgg, tiny_vqgan

PIXELS = 8 * 24 * 24
STUDENT = 9 * (3 * 16 + 9 * 16 * 16 + 16 * 64 + 4 * 16 * 3) * PIXELS
TEACHER = 9 * (3 * 32 + 21 * 32 * 32 + 32 * 128 + 4 * 32 * 3) * PIXELS
"""Multiply-adds of one forward of the demo's networks by hand: all convolutions are 3 x 3, the last is at HR."""
FIRST = 9 * 3 * 16 * PIXELS
"""The student's first convolution, whose input needs no gradient."""
FLOOR = TEACHER + 3 * STUDENT - FIRST

EXPECTED = {
    # teacher forwards, student forwards, and the most operators that a step may take after the first
    'scratch': (0, 1, 360),
    'KD': (1, 1, 436),
    'RKD': (1, 1, 620),
    'AT': (1, 1, 560),
    'FitNet': (1, 1, 596),
    'CrossKD': (1, 1, 654),
    'FAKD': (1, 1, 1100),
    'CSD': (1, 1, 1500),
    'wavelet': (1, 1, 800),
    'ECO': (1, 1, 600),
    'DCKD': (1, 1, 3000),
    'DUKD': (2, 2, 749),
    'DCKD + DUKD': (2, 2, 3300),
    'MiPKD': (1, 1, 1100),
    'MiPKD + DUKD': (2, 2, 1410),
}
"""LR patch and zoom-in share a forward; zoom-out, of another size, has its own."""


@pytest.fixture
def opt(monkeypatch):
    monkeypatch.setattr('mipkd_sr.losses.csd_loss.vgg19_features', tiny_vgg)
    monkeypatch.setattr('mipkd_sr.losses.dckd_loss.load_vqgan', tiny_vqgan)
    options = load_options(ROOT / 'options/train/demo/mipkd.yml', is_train=True).data
    options['num_gpu'] = 0
    return options


@pytest.mark.parametrize('method', METHODS)
def test_forwards_and_operators_of_a_step(method, opt):
    if method == 'CSD':  # defined for a student of the teacher's depth
        opt['network_g']['num_block'] = opt['network_t']['num_block']
    model, batch = model_for(opt, method), batch_for(opt, torch.device('cpu'))
    teacher, student, operators = EXPECTED[method]
    take_step(model, batch, 1)  # creates the optimizer's state
    for iteration in (500, 501, 502):
        counts = count_step(model, batch, iteration)
        assert (counts.teacher_forwards, counts.student_forwards) == (teacher, student)
        assert counts.operators <= operators, counts


ZOOM_OUT = 8 * 3 * (12 * 24 * 24 + 12 * 24 * 12)
"""The downsampling of the LR batch by 2, as two matrix products."""


@pytest.mark.parametrize(('method', 'times', 'more'), [('KD', 1, 0), ('DUKD', 2.25, ZOOM_OUT)])
def test_a_step_does_the_arithmetic_that_it_cannot_do_without(method, times, more, opt):
    """DUKD at x2: zoom-in is as large as the LR batch, zoom-out a quarter of it."""
    model, batch = model_for(opt, method), batch_for(opt, torch.device('cpu'))
    assert count_floor(model, batch) == FLOOR
    assert count_step(model, batch, 1).multiply_adds == times * FLOOR + more


def test_mipkd_does_its_mixers_and_the_paths_that_it_takes(opt):
    """Counted by hand at three positions; a path through the teacher needs its input's gradient, and no weights'.

    Its body is computed again for that, but for the last convolution of each of at most six parts.
    """
    for probability in (0.0, 1.0):
        opt['train']['mipkd_opt'] = None
        changes = {'type': 'MiPKDLoss', 'drop_probability': 0.0, 'student_probability': probability}
        model = model_for(opt, 'MiPKD', mipkd_opt=changes)
        batch = batch_for(opt, torch.device('cpu'))
        mixer = 9 * (16 * 8 + 32 * 8 + 8 * 32) * PIXELS
        to_student = 32 * 16 * PIXELS
        backward = 3 * mixer - 9 * 32 * 8 * PIXELS  # the teacher's feature map needs no gradient
        paths = again = 0
        for index_s, index_t in zip((1, 3, 4), (3, 7, 10), strict=True):
            if probability:
                rest = 9 * ((2 * (4 - index_s) + 1) * 256 + 16 * 64 + 4 * 16 * 3) * PIXELS
                paths += 3 * (rest + to_student)
            else:
                rest = 9 * ((2 * (10 - index_t) + 1) * 1024 + 32 * 128 + 4 * 32 * 3) * PIXELS
                units = 10 - index_t
                paths += 2 * rest
                again += 9 * (2 * units - min(6, units)) * 1024 * PIXELS
        assert model.objectives['mipkd'].unit_pairs == [(1, 3), (3, 7), (4, 10)]
        needed = FLOOR + 3 * backward + paths
        assert count_needed(model, batch, 500) == needed
        assert count_step(model, batch, 500).multiply_adds == needed + again


def test_mipkd_needs_at_most_six_tenths_more_memory_than_kd(opt):
    """For a pair in the proportions of EDSR 64/32 under 256/32, whichever path a step takes, with l_ae and without."""
    opt['network_g'] |= {'num_feat': 8, 'num_block': 32}
    opt['network_t'] |= {'num_feat': 32, 'num_block': 32}
    peaks = {}
    for method in ('KD', 'MiPKD'):
        model, batch = model_for(opt, method), batch_for(opt, torch.device('cpu'))
        take_step(model, batch, 1)
        memory = [measure_memory(model, batch, iteration) for iteration in (*range(2, 10), *range(500, 512))]
        peaks[method] = {step.peak for step in memory}
        held = {step.held for step in memory}
        assert len(held) == 1
    assert len(peaks['KD']) == 1
    assert len(peaks['MiPKD']) >= 4  # no path, and paths of different lengths
    assert max(peaks['MiPKD']) <= 1.6 * max(peaks['KD'])


def test_memory_is_that_of_the_tensors_alive_at_a_time():
    """Three maps of 4 MiB: the input, the first product and the second; then the first is let go."""
    first = torch.ones(2**20)
    with PeakMemory([first]) as memory:
        second = first * 2
        third = second.view(2**10, 2**10).t() + 1
        del second
        assert memory.live == 2 * 2**22
        fourth = third.sum()
    assert memory.held == 2**22
    assert memory.peak == 3 * 2**22
    assert memory.live == 2 * 2**22 + 4
    assert fourth.item() == 3 * 2**20


def test_no_autograd_state_is_kept_of_the_teachers_own_forward(opt):
    model, batch = model_for(opt, 'KD'), batch_for(opt, torch.device('cpu'))
    kept = []

    def note(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    addresses = {parameter.data_ptr() for parameter in model.net_t.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        take_step(model, batch, 1)
    assert kept
    assert not addresses & set(kept)


def test_the_benchmark_of_a_step_gives_its_figures_to_a_program(tmp_path, capsys):
    file = tmp_path / 'step.json'
    arguments = ['-opt', str(ROOT / 'options/train/demo/mipkd.yml'), '--batch', '1', '--patch', '8', '--repeats', '2']
    assert mipkd(['benchmark', 'step', *arguments, '--methods', 'DUKD', 'MiPKD', '--profile', '--json', str(file)]) == 0
    steps = json.loads(file.read_text())['steps']
    assert list(steps) == ['floor of KD', 'KD', 'DUKD', 'MiPKD']
    assert 1 < steps['DUKD']['peak_memory_mib'] < 100
    assert steps['KD']['mean_times_kd'] == 1
    assert steps['KD']['arithmetic_times_floor'] == 1
    assert steps['DUKD']['arithmetic_times_floor'] == pytest.approx(2.25, abs=0.01)
    assert all(step['seconds'] > 0 for step in steps.values())
    assert all(step['device_seconds'] is None and step['launches'] is None for step in steps.values())
    said = capsys.readouterr().out
    assert '1 patches of 8 x 8, 2 to 2 steps of each, CPU' in said
    assert 'A CPU has no device time and launches nothing.' in said
    assert 'aten::' in said


@pytest.fixture
def comparison(opt, monkeypatch):
    """A function that compares methods on two patches of 8 x 8; each takes the seconds of ``takes``, by a clock."""

    def compare(*methods, **takes):
        opt['datasets']['train'] |= {'batch_size_per_gpu': 2, 'gt_size': 16}
        clock = SimpleNamespace(now=0.0)
        compared = StepComparison(opt, methods, torch.device('cpu'))
        build = compared._build

        def built(name):
            model = build(name)
            optimize = model.optimize_parameters

            def timed(iteration):
                clock.now += takes.get(name, 1.0)
                optimize(iteration)

            model.optimize_parameters = timed
            return model

        monkeypatch.setattr(compared, '_build', built)
        monkeypatch.setattr('mipkd_sr.costs.comparing.time', SimpleNamespace(monotonic=lambda: clock.now))
        monkeypatch.setattr('mipkd_sr.costs.comparing.timed', lambda work, device: (work(), Turn(1.0, 0.5))[1])
        return compared

    return compare


def test_a_method_that_cannot_be_compiled_is_left_out_of_the_benchmark(comparison, monkeypatch):
    def refuse(*_):
        raise BackendCompilerFailed(torch.compile, TypeError('no order'), None)

    compared = comparison('DUKD', 'FitNet')
    monkeypatch.setattr('mipkd_sr.losses.dukd_loss.DUKDLoss.forward', refuse)
    assert [name for name, _ in compared.measure(2)] == ['floor of KD', 'KD', 'FitNet']
    assert 'DUKD is left out: torch.compile failed' in compared.left_out[0]
    monkeypatch.setattr(compared.kd, 'optimize_parameters', refuse)
    with pytest.raises(BackendCompilerFailed):
        list(compared.measure(2))


def test_a_comparison_ends_in_time_and_tells_each_method_as_it_is_known(comparison):
    """Ten seconds: FitNet's share is 5, in which come its 3 first steps and 3 more; for DUKD none are left."""
    compared = comparison('FitNet', 'AT', 'DUKD', FitNet=1.0, AT=2.0)
    costs = compared.measure(100, 12.0)
    assert next(costs)[0] == 'floor of KD'
    assert not compared.left_out
    costs = dict(costs)
    assert list(costs) == ['KD', 'FitNet', 'AT']
    assert costs['FitNet'].steps == 3  # the least
    assert costs['KD'].steps == 100  # which the clock does not see
    assert compared.left_out == ['DUKD is left out: no time was left for it; give more with --minutes.']


def test_a_step_counts_the_same_compiled_or_not(opt, monkeypatch):
    monkeypatch.setattr(compiling, 'BACKEND', 'aot_eager')
    opt['datasets']['train'] |= {'batch_size_per_gpu': 1, 'gt_size': 16}
    counts = []
    for mode in (False, 'graphs'):
        model, batch = model_for(opt, 'KD', compile=mode), batch_for(opt, torch.device('cpu'))
        take_step(model, batch, 1)
        counts.append((count_step(model, batch, 2), count_needed(model, batch, 2), measure_memory(model, batch, 2)))
    assert counts[0] == counts[1]
    assert model.compiled == 'graphs'


def test_device_time_is_that_in_which_anything_works_and_launches_are_what_the_cpu_starts():
    def event(name, kind, start, end, note=False):
        span = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(name=name, device_type=kind, time_range=span, is_user_annotation=note)

    cpu, cuda = DeviceType.CPU, DeviceType.CUDA
    started = ('cudaLaunchKernel', 'cuLaunchKernelEx', 'cudaGraphLaunch', 'cudaMemcpyAsync', 'cudaMemsetAsync')
    events = [event(name, cpu, 0, 100) for name in (*started, 'cudaDeviceSynchronize', 'aten::add', 'cudaMalloc')]
    events += [event('kernel', cuda, *span) for span in ((50, 60), (10, 20), (15, 30), (16, 18))]
    events += [event('Optimizer.step', cuda, 0, 1000, note=True)]
    assert device_work(events) == (pytest.approx(30e-6), 5)


def test_the_benchmark_sets_what_training_sets(opt, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    StepComparison(opt, ['KD'], torch.device('cpu'))
    assert torch.backends.cudnn.benchmark


def test_a_plan_grows_with_the_batch_and_shrinks_with_the_device(opt):
    plans = {}
    for batch in (2, 4):
        opt['datasets']['train']['batch_size_per_gpu'] = batch
        for speed in (1, 2):
            plans[batch, speed] = plan_step(opt, 'KD', speed * 1e12, speed * 1e11, steps=1)
    assert plans[4, 1].seconds == pytest.approx(2 * plans[2, 1].seconds)
    assert plans[4, 2].seconds == pytest.approx(plans[4, 1].seconds / 2)
    assert plans[4, 2].memory == plans[4, 1].memory > plans[2, 1].memory
    arithmetic = 2 * FLOOR * 4 / 8 / 1e12
    assert arithmetic < plans[4, 1].seconds < 10 * arithmetic


@pytest.mark.parametrize('method', ['KD', 'MiPKD'])
def test_the_memory_that_a_plan_expects_from_one_sample_is_that_of_a_batch(method, opt):
    model, batch = model_for(opt, method), batch_for(opt, torch.device('cpu'))
    take_step(model, batch, 1)
    first = first_step(opt)
    peak = max(measure_memory(model, batch, number).peak for number in (first, first + 1))
    assert peak == pytest.approx(plan_step(opt, method, 1e12, 1e11, steps=2).memory, rel=0.03)


def test_the_planner_says_hours_and_memory(capsys):
    recipe = str(ROOT / 'options/train/demo/mipkd.yml')
    assert mipkd(['benchmark', 'plan', '-opt', recipe, '--gpu', 'V100', '--gpus', '4', '--utilisation', '0.5']) == 0
    said = capsys.readouterr().out
    assert [line.split('|')[1].strip() for line in said.splitlines()[2:7]] == [
        'scratch',
        'KD',
        'DUKD',
        'MiPKD',
        'MiPKD + DUKD',
    ]
    assert '1,000 steps of 8 patches of 24 x 24 on each of 4 x V100 (32 GB), 50% of its roofline' in said
