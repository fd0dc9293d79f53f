"""The learning rate: what each schedule gives, under a warm-up, after a resume, and where it would fail."""

import re

import pytest
import torch
from torch import nn

from mipkd_sr.models import build_model
from mipkd_sr.models.training_state import restore, what_trains
from mipkd_sr.options.registries import schedulers
from mipkd_sr.runs.run_options import load_options
from mipkd_sr.train import main

TOTAL = 12
SCHEDULES = {
    'ConstantLR': {'factor': 0.3, 'total_iters': 5},
    'CosineAnnealingLR': {'T_max': 7},
    'CosineAnnealingRestartLR': {'periods': [5, 8], 'restart_weights': [1, 0.5]},
    'CosineAnnealingWarmRestarts': {'T_0': 4, 'T_mult': 2},
    'CyclicLR': {'base_lr': 1e-4, 'max_lr': 1e-3, 'step_size_up': 3},
    'ExponentialLR': {'gamma': 0.9},
    'LinearLR': {'total_iters': 6},
    'MultiStepLR': {'milestones': [3, 8], 'gamma': 0.1},
    'MultiStepRestartLR': {'milestones': [3, 8], 'restarts': [0, 6], 'restart_weights': [1, 0.5]},
    'OneCycleLR': {'max_lr': 1e-2, 'total_steps': TOTAL},
    'PolynomialLR': {'total_iters': 10, 'power': 2},
    'StepLR': {'step_size': 4, 'gamma': 0.5},
}


@pytest.fixture
def make_model(training_options, write_options):
    def make(scheduler, **train):
        opt = training_options(train={'total_iter': TOTAL, **train})
        opt['train']['scheduler'] = scheduler
        return build_model(
            load_options(write_options(opt), True).training | {'rank': 0, 'dist': False, 'world_size': 1}
        )

    return make


def rates(model, first, last):
    """The learning rate, and Adam's first beta, of the steps ``first`` to ``last``."""
    found = []
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration, model.opt['train']['warmup_iter'])
        model.optimizer_g.step()
        group = model.optimizer_g.param_groups[0]
        found.append((group['lr'], group['betas'][0]))
    return found


def alone(scheduler):
    """The rates of torch's or BasicSR's schedule by itself, as its documentation has it used."""
    arguments = dict(scheduler)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], 1e-3)
    schedule = schedulers()[arguments.pop('type')](optimizer, **arguments)
    found = []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step() if len(found) < TOTAL else None
    return found


def test_every_schedule_is_tested():
    ours = {'HalvedLR', 'HalvingLR'}  # of other tests
    assert SCHEDULES.keys() == schedulers().keys() - ours


@pytest.mark.parametrize('warmup', [-1, 5])
@pytest.mark.parametrize('kind', SCHEDULES)
def test_after_the_warm_up_the_rate_is_what_the_schedule_alone_gives(kind, warmup, make_model):
    scheduler = {'type': kind, **SCHEDULES[kind]}
    model = make_model(scheduler, warmup_iter=warmup)
    found, expected = [rate for rate, _ in rates(model, 1, TOTAL)], alone(scheduler)
    assert found[max(0, warmup - 1) :] == pytest.approx(expected[max(0, warmup - 1) :], rel=1e-12)
    initial = model.optimizer_g.param_groups[0]['initial_lr']
    assert found[: max(0, warmup - 1)] == pytest.approx([initial * i / 5 for i in range(1, max(1, warmup))])


@pytest.mark.parametrize('done', [3, 7])
@pytest.mark.parametrize('kind', SCHEDULES)
def test_every_schedule_resumes_exactly(kind, done, make_model):
    scheduler = {'type': kind, **SCHEDULES[kind]}
    whole = make_model(scheduler, warmup_iter=5)
    expected = rates(whole, 1, TOTAL)
    first, second = (make_model(scheduler, warmup_iter=5) for _ in range(2))
    rates(first, 1, done)
    restore(second, {'iter': done, 'networks': first._networks()} | what_trains(first))
    assert rates(second, done + 1, TOTAL) == expected[done:]


@pytest.mark.parametrize(
    ('before', 'now'),
    [
        ({'type': 'OneCycleLR', **SCHEDULES['OneCycleLR']}, {'type': 'OneCycleLR', 'max_lr': 5e-3, 'total_steps': 20}),
        ({'type': 'OneCycleLR', **SCHEDULES['OneCycleLR']}, {'type': 'MultiStepLR', 'milestones': [9]}),
    ],
)
def test_a_new_schedule_takes_back_what_the_old_one_has_set(before, now, make_model):
    expected = rates(make_model(now), 1, TOTAL)
    first, second = make_model(before), make_model(now)
    rates(first, 1, 6)
    restore(second, {'iter': 6, 'networks': first._networks()} | what_trains(first))
    assert rates(second, 7, TOTAL) == expected[6:]


FAILING = {
    'too short': (
        {'type': 'OneCycleLR', 'max_lr': 0.01, 'total_steps': 8},
        'iteration 10 of 12 .*total steps is 8',
    ),
    'no length': ({'type': 'CosineAnnealingLR', 'T_max': 0}, 'iteration 2 of 12 .*ZeroDivisionError'),
    'no step': ({'type': 'StepLR', 'step_size': 0}, 'iteration 2 of 12 .*ZeroDivisionError'),
    'negative': (
        {'type': 'MultiStepLR', 'milestones': [9], 'restarts': [4], 'restart_weights': [-1]},
        'iteration 5 of 12 .*rate is -0.001',
    ),
}


@pytest.mark.parametrize('dry_run', [[], ['--dry_run']])
@pytest.mark.parametrize(('scheduler', 'message'), FAILING.values(), ids=FAILING)
def test_a_schedule_that_fails_in_the_middle_is_found_before_the_start(
    scheduler, message, dry_run, training_options, write_options, tmp_path, capsys
):
    opt = training_options(train={'total_iter': TOTAL})
    opt['train']['scheduler'] = scheduler
    assert main(['-opt', str(write_options(opt)), *dry_run]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert 'train:scheduler: ' in error
    assert re.search(message, error), error
    assert not (tmp_path / 'experiments').exists()


def test_the_end_of_a_long_training_is_looked_at(training_options, write_options, capsys):
    opt = training_options(train={'total_iter': 10**9})
    opt['train']['scheduler'] = {'type': 'OneCycleLR', 'max_lr': 0.01, 'total_steps': 10**9 - 5}
    assert main(['-opt', str(write_options(opt)), '--dry_run']) == 2
    assert 'fails at iteration 999,999,997 of 1,000,000,000' in capsys.readouterr().err
