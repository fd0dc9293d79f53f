"""The papers' tables of costs: what this machine measures, beside what is published."""

import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import torch

from mipkd_sr.archs import build_network
from mipkd_sr.costs.comparing import random_vgg
from mipkd_sr.costs.measuring import this_device
from mipkd_sr.costs.methods import batch_for, first_step, take_step
from mipkd_sr.evaluation.complexity import count_multiply_adds, count_parameters, measure_speed, seconds_of
from mipkd_sr.evaluation.results import markdown_table
from mipkd_sr.losses import csd_loss
from mipkd_sr.models import build_model
from mipkd_sr.option_types import TrainingOptions
from mipkd_sr.studies.estimate import machine
from mipkd_sr.studies.paper_tables import Cell

SIDE = 256
"""Side of the LR image of MiPKD's Table 1, in pixels."""
COLUMNS = {
    'parameters': ('parameters, M', 1e6, '.2f'),
    'multiply_adds': (f'multiply-adds of {SIDE} x {SIDE} LR pixels, G', 1e9, '.2f'),
    'images_a_second': ('images a second', 1, '.3g'),
    'seconds': ('seconds a step', 1, '.3g'),
}
MEASURED = {'machine': str, 'repeats': int, 'rows': {str: {str: float}}}
"""The form of what ``measure_costs`` gives."""


def measure_costs(cells: Sequence[Cell], what: str, repeats: int) -> dict[str, Any]:
    """Measure a table of costs: on which machine, how often, and each cell's costs, in the order of the cells.

    ``what`` is ``networks`` or ``steps``; each is run ``repeats`` times, and the median counts.
    """
    measured = network_costs(cells, repeats) if what == 'networks' else step_costs(cells, repeats)
    names = [f'{cell.row} x{cell.scale}' for cell in cells]
    return {
        'machine': machine(torch.get_num_threads()),
        'repeats': repeats,
        'rows': dict(zip(names, measured, strict=True)),
    }


def cost_section(cells: Sequence[Cell], measured: Mapping[str, Any]) -> list[str]:
    """The text of a table of costs: for each row a line of ours, from ``measure_costs``, and one of the published
    values."""
    columns = [name for name in COLUMNS if any(name in costs for costs in measured['rows'].values())]
    rows: list[list[str]] = []
    for cell in cells:
        name = f'{cell.row} x{cell.scale}'
        rows.append([name, 'ours', *_texts(measured['rows'].get(name, {}), columns)])
        if cell.published:
            rows.append(['', 'published', *_texts(cell.published.get('costs', {}), columns)])
    text = markdown_table(['row', '', *(COLUMNS[name][0] for name in columns)], rows)
    return [text, f'Ours on {measured["machine"]}; medians of {measured["repeats"]}.']


def _texts(costs: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f'{costs[name] / COLUMNS[name][1]:{COLUMNS[name][2]}}' if name in costs else '-' for name in columns]


def network_costs(cells: Sequence[Cell], repeats: int) -> list[dict[str, float]]:
    """Parameters, multiply-adds and images a second of each cell's student, on an image of SIDE x SIDE pixels."""
    found = []
    for cell in cells:
        print(f'  {cell.row} x{cell.scale}', flush=True)
        net = build_network(cell.options['network_g'])
        counts = {'parameters': count_parameters(net), 'multiply_adds': count_multiply_adds(net, SIDE)}
        found.append(counts | {'images_a_second': measure_speed(net, SIDE, this_device(), repeats)[0]})
    return found


def step_costs(cells: Sequence[Cell], repeats: int) -> list[dict[str, float]]:
    """Seconds of a training step of each cell, in turn, on noise and with random weights, without reading images."""
    device, work = this_device(), []
    for cell in cells:
        print(f'  {cell.row} x{cell.scale}', flush=True)
        own: dict[str, Any] = deepcopy(cell.options)
        own['path'].update(pretrain_network_t=None, pretrain_network_g=None, init_network_g=None)
        own.update(num_gpu=int(device.type == 'cuda'), rank=0, world_size=1, dist=False, is_train=True)
        opt = cast(TrainingOptions, own)
        with patch.object(csd_loss, 'vgg19_features', random_vgg):
            work.append(partial(take_step, build_model(opt), batch_for(opt, device), first_step(opt)))
    turns = [[seconds_of(step, device) for step in work] for _ in range(repeats + 1)]
    # the first step of each has more to do, and does not count
    return [{'seconds': statistics.median(own)} for own in zip(*turns[1:], strict=True)]
