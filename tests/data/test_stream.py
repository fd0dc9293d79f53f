"""The order in which a training run reads its images."""

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mipkd_sr.data.stream import SeededDataset, StreamSampler
from mipkd_sr.runtime.seeding import preserved_random_state, seed_everything

sizes = {'length': st.integers(1, 20), 'batch': st.integers(1, 7), 'total': st.integers(1, 30)}


@given(**sizes, seed=st.integers(0, 2**40))
def test_exactly_as_many_batches_as_asked_for_and_whole_epochs(length, batch, total, seed):
    batches = list(StreamSampler(length, batch, 1, total, seed))
    assert [len(one) for one in batches] == [batch] * total
    places = [place for one in batches for place in one]
    for epoch in range(len(places) // length):
        part = places[epoch * length : (epoch + 1) * length]
        assert sorted(part) == [(epoch, index) for index in range(length)]


@given(**sizes, world=st.integers(1, 4))
def test_ranks_read_together_what_one_rank_reads(length, batch, total, world):
    alone = list(StreamSampler(length, batch * world, 1, total, seed=5))
    ranks = [list(StreamSampler(length, batch, 1, total, 5, rank, world)) for rank in range(world)]
    assert [[place for part in parts for place in part] for parts in zip(*ranks, strict=True)] == alone


@given(**sizes, done=st.integers(0, 29))
def test_a_resumed_run_reads_on_where_it_stopped(length, batch, total, done):
    whole = list(StreamSampler(length, batch, 1, total, seed=5))
    assert list(StreamSampler(length, batch, done + 1, total, seed=5)) == whole[done:]


def test_samples_depend_on_seed_epoch_and_index_alone():
    class Draws:
        def __getitem__(self, index):
            return index, random.random()

    dataset = SeededDataset(Draws(), seed=7)
    first = dataset[0, 3]
    random.seed(1)
    before = random.getstate()
    assert dataset[0, 3] == first
    assert random.getstate() == before
    assert len({dataset[epoch, 3] for epoch in range(5)}) == 5
    assert SeededDataset(Draws(), seed=8)[0, 3] != first


def test_a_sample_draws_as_after_seeding_everything_and_no_other_device_is_seeded(monkeypatch):
    class Draws(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return random.random(), np.random.rand(), torch.rand(()).item()

    with preserved_random_state():
        seed_everything(7, 2, 3)
        expected = Draws()[0]
    monkeypatch.setattr(torch, 'manual_seed', None)
    assert SeededDataset(Draws(), seed=7)[2, 3] == expected
