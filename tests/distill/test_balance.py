"""Terms that balance themselves: the gradients measured against autograd's by hand, and weights that stay exact."""

import json

import pytest
import torch
from torch import nn

from mipkd_sr.archs import build_network
from mipkd_sr.cli import main as mipkd
from mipkd_sr.distill.gradients import KEPT, is_due
from mipkd_sr.distill.objective import ImageObjective
from mipkd_sr.distill.step import DistillStep
from mipkd_sr.distill.teacher import FrozenTeacher
from mipkd_sr.distill.weight_schedule import Schedule
from mipkd_sr.losses.fitnet_loss import FitNetLoss
from mipkd_sr.losses.logits_kd_loss import LogitsKDLoss
from mipkd_sr.runtime.checkpoint import load_file
from mipkd_sr.train import main
from tests.conftest import STUDENT, TEACHER, experiment, same, state

BALANCED = {'type': 'FitNetLoss', 'positions': 2, 'balance': 0.5}


def step_of(**options):
    torch.manual_seed(0)
    student, teacher = build_network(STUDENT), FrozenTeacher(build_network(TEACHER))
    fitnet = FitNetLoss(positions=2)
    for name, value in options.items():
        setattr(fitnet, name, value)
    fitnet.balance_by(0.5)
    terms = {'pixel': ImageObjective('l_pix', nn.L1Loss()), 'kd': LogitsKDLoss(), 'fitnet': fitnet}
    for term in terms.values():
        term.attach(student, teacher.net, 8, 2)
    return DistillStep(student, teacher, terms, 100, 1)


def batch(samples=4):
    torch.manual_seed(1)
    return torch.rand(samples, 3, 8, 8), torch.rand(samples, 3, 16, 16)


def gradient(step, *losses):
    found = torch.autograd.grad(sum(losses), list(step.student.parameters()), retain_graph=True, allow_unused=True)
    pairs = zip(step.student.parameters(), found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def test_the_weight_makes_the_gradient_the_asked_multiple_of_the_others():
    step = step_of()
    assert step(*batch(), 1).losses['l_fitnet'].item() == 0  # not yet measured
    step.finish()
    losses = step(*batch(), 3).losses
    own, others = gradient(step, losses['l_fitnet']), gradient(step, losses['l_pix'], losses['l_kd'])
    assert (own.norm() / others.norm()).item() == pytest.approx(0.5, rel=1e-4)


def test_the_schedule_multiplies_the_balanced_weight():
    step = step_of(schedule=Schedule('linear', 0.25, 0.25))
    step(*batch(), 1)
    step.finish()
    output = step(*batch(), 3)
    own = gradient(step, output.losses['l_fitnet'])
    others = gradient(step, output.losses['l_pix'], output.losses['l_kd'])
    assert (own.norm() / others.norm()).item() == pytest.approx(0.125, rel=1e-4)


def test_the_average_moves_by_a_measurement_and_not_by_a_skipped_or_a_bad_one():
    step = step_of()
    for iteration in (1, 2):
        step(*batch(), iteration)
        step.finish(torch.tensor(False))
    norms = step.objectives['fitnet'].balance_norms.clone()
    losses = step(*batch(), 3).losses  # no step is taken, so every measurement is the same
    others = gradient(step, losses['l_pix'], losses['l_kd']).norm()
    assert norms[0].item() == pytest.approx((1 - KEPT**2) * others.item(), rel=1e-4)
    step(*batch(), 4)
    step.finish(torch.tensor(True))
    step(batch()[0] * float('nan'), batch()[1], 8)
    step.finish()
    assert torch.equal(step.objectives['fitnet'].balance_norms, norms)
    step(*batch(2), 9)  # no measurement is due
    step.finish()
    assert torch.equal(step.objectives['fitnet'].balance_norms, norms)


@pytest.mark.parametrize('scale', [1.0, torch.tensor(1024.0)])
def test_parts_of_a_batch_measure_what_the_whole_does(scale):
    whole, parts = step_of(), step_of()
    for step in (whole, parts):  # FitNet's division is by each part's own size
        step.objectives['fitnet'].normalize = False
    whole(*batch(), 1)
    for part, (lq, gt) in enumerate(zip(*(images.chunk(2) for images in batch()), strict=True)):
        parts(lq, gt, 1, (2 * part, 4), scale=scale)
    measured = [step.finish() for step in (whole, parts)]
    weights = [step(*batch(), 3).logs['weight/fitnet'].item() for step in (whole, parts)]
    assert measured == [{}, {}]
    assert weights[1] == pytest.approx(weights[0], rel=1e-4)


def test_what_is_measured_for_the_log_is_the_pixel_terms_multiple_and_cosine():
    step = step_of()
    step(*batch(), 1)
    step.finish()
    losses = step(*batch(), 3, measure=True).losses
    found = step.finish()
    pixel = gradient(step, losses['l_pix'])
    assert found.keys() == {'l_pix', 'l_kd', 'l_fitnet'}
    for name, (norm, cosine) in found.items():
        own = gradient(step, losses[name])
        assert norm.item() == pytest.approx((own.norm() / pixel.norm()).item(), rel=1e-4)
        assert cosine.item() == pytest.approx((own @ pixel / own.norm() / pixel.norm()).item(), abs=1e-4)


def test_measuring_changes_nothing_that_a_run_computes(training_options, write_options, tmp_path):
    states = []
    for every in (0, 1):
        opt = training_options('mipkd', logger={'gradients': every})
        assert main(['-opt', str(write_options(opt)), '--force_yml', f'name=tiny{every}']) == 0
        states.append(load_file(tmp_path / 'experiments' / f'tiny{every}' / 'training_states' / '4.state'))
    assert same(states[0]['networks'], states[1]['networks'])
    assert same(states[0]['optimizers'], states[1]['optimizers'])
    lines = (tmp_path / 'experiments' / 'tiny1' / 'gradients.jsonl').read_text().splitlines()
    assert [json.loads(line)['iter'] for line in lines] == [1, 2, 3, 4]
    assert not (tmp_path / 'experiments' / 'tiny0' / 'gradients.jsonl').exists()


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_a_balanced_run_resumes_exactly(precision, training_options, write_options, tmp_path):
    file = write_options(training_options('kd', train={'fitnet_opt': BALANCED, 'precision': precision}))
    assert main(['-opt', str(file)]) == 0
    whole = state(tmp_path, 4)
    assert 'fitnet.balance_norms' in whole['objectives']
    assert whole['objectives']['fitnet.balance_norms'].min() > 0
    (experiment(tmp_path) / 'training_states' / '4.state').unlink()
    assert main(['-opt', str(file), '--auto_resume']) == 0
    again = state(tmp_path, 4)
    assert same(again['networks'], whole['networks'])
    assert same(again['objectives'], whole['objectives'])


@pytest.mark.parametrize('loss_weight', [1.0, 1e4])
def test_half_precision_measures_what_single_does_however_large_the_term(
    loss_weight, training_options, write_options, tmp_path
):
    """If its scaled gradient overflowed, it would have no weight for ever: the scaler sees it times its weight, 0."""
    norms = {}
    for precision in ('fp32', 'fp16'):
        fitnet = BALANCED | {'loss_weight': loss_weight}
        file = write_options(training_options('kd', train={'fitnet_opt': fitnet, 'precision': precision}))
        assert main(['-opt', str(file), '--force_yml', f'name={precision}']) == 0
        kept = load_file(tmp_path / 'experiments' / precision / 'training_states' / '4.state')['objectives']
        norms[precision] = kept['fitnet.balance_norms'].tolist()
    assert norms['fp16'] == pytest.approx(norms['fp32'], rel=0.1)


def test_measurements_are_often_at_first_and_every_fifty_steps_later():
    assert [i for i in range(1, 201) if is_due(i)] == [1, 2, 4, 8, 16, 32, 50, 100, 150, 200]


def test_what_cannot_be_balanced_is_refused(training_options, write_options, capsys):
    file = str(write_options(training_options(train={'pixel_opt': {'type': 'L1Loss', 'balance': 1.0}})))
    assert main(['-opt', file]) != 0
    assert 'balances every term' in capsys.readouterr().err
    for option in ('balance', 'gate'):
        assert main(['-opt', file, '--force_yml', f'train:pixel_opt:{option}=-1']) != 0
        assert f'train:pixel_opt:{option}: must be at least 0' in capsys.readouterr().err


def test_gradients_of_a_run_are_drawn(tmp_path, monkeypatch, capsys):
    line = json.dumps({'iter': 10, 'losses': {'l_pix': [1.0, 1.0], 'l_feat': [5.0, -0.1]}})
    run = tmp_path / 'experiments' / 'tiny'
    (run / 'models').mkdir(parents=True)
    (run / 'gradients.jsonl').write_text(f'{line}\n{line}\n{line[:9]}')
    monkeypatch.chdir(tmp_path)
    assert mipkd(['plot', 'gradients', 'tiny']) == 0
    assert (run / 'gradients.png').stat().st_size > 1000
    assert mipkd(['plot', 'gradients', 'tiny', '--run', str(run)]) == 2  # one at a time
    capsys.readouterr()
    assert mipkd(['plot', 'gradients', str(tmp_path / 'none')]) == 2
    assert capsys.readouterr().err.count(str(tmp_path / 'none')) == 2  # the place is named once
