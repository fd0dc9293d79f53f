"""Several processes: the same gradients, the same table, stops and restarts."""

import os
import subprocess
import sys

import pytest
import torch

from .conftest import ROOT
from .gradients import all_gradients

ENVIRONMENT = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}


@pytest.fixture(scope='module')
def both_gradients(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Every case's gradients on one process, and on two with half the batch each."""
    file = tmp_path_factory.mktemp('gradients') / 'two.pth'
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    done = subprocess.run(
        [*launch, '-m', 'tests.gradients', str(file)], env=ENVIRONMENT, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return all_gradients(), torch.load(file, weights_only=True)


def test_two_processes_have_the_gradient_of_one_with_twice_the_batch(both_gradients):
    """In double precision, for every method, the block prior mixer through student, teacher and both."""
    one, two = both_gradients
    assert one.keys() == two.keys()
    for case, expected in one.items():
        assert expected.keys() == two[case].keys(), case
        largest = max(value.abs().max().item() for value in expected.values())
        assert largest > 0, case
        for name, value in expected.items():
            size = max(value.abs().max().item(), 1e-6 * largest)  # a bias that a loss does not feel has rounding errors
            assert (two[case][name] - value).abs().max().item() < 1e-6 * size, (case, name)
