"""Starting and ending torch.distributed, on GPUs and on CPUs."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed

from mipkd_sr.option_types import RunOptions
from mipkd_sr.runtime.errors import OptionError, RunError, shown


def longest_silence(opt: RunOptions) -> timedelta:
    """How long a process of a run waits for another that has stopped or hangs, before it gives up."""
    return timedelta(minutes=opt['dist_params']['timeout'])


def start(launcher: str, opt: RunOptions) -> None:
    """Join the other processes, choose this one's device, and note ``dist``, ``rank``, ``world_size``, ``num_gpu``.

    Args:
        launcher: 'none', 'pytorch' (torchrun) or 'slurm'.
        opt: The run's options; changed in place.
    """
    asked = opt['num_gpu']
    available = torch.cuda.device_count()
    if asked != 'auto' and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 0):
        raise OptionError('num_gpu', f'must be auto, 0 or a number of GPUs, not {asked!r}.')
    opt['num_gpu'] = min(1, available) if asked in ('auto', 1) else asked
    opt['dist'] = launcher != 'none'
    opt['rank'], opt['world_size'] = 0, 1
    if launcher == 'none':
        if opt['num_gpu'] > 1:
            advice = f'start {asked} processes with torchrun --nproc_per_node={asked} and --launcher pytorch'
            raise OptionError('num_gpu', f'is {asked}, but one process uses one GPU; {advice}.')
        return
    opt['num_gpu'] = min(1, opt['num_gpu'], available)  # each process has one
    if launcher == 'slurm':
        _take_slurm_variables(opt)
    local_rank = _check_variables(launcher)
    if opt['num_gpu']:
        if local_rank >= available:
            raise OptionError('--launcher', f'process {local_rank} here has no GPU, as there are {available}.')
        torch.cuda.set_device(local_rank)
    _join(opt['dist_params']['backend'] if opt['num_gpu'] else 'gloo', longest_silence(opt))
    opt['rank'], opt['world_size'] = torch.distributed.get_rank(), torch.distributed.get_world_size()


def _check_variables(launcher: str) -> int:
    """See that the launcher's variables are there and fit; returns this process's number on its machine."""
    found = {name: os.environ.get(name, '') for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')}
    if missing := [name for name, value in found.items() if not value]:
        raise OptionError(
            '--launcher', f"'{launcher}' was given, but {', '.join(missing)} of the launcher is absent; use torchrun."
        )
    numbers = {name: found[name] for name in ('RANK', 'WORLD_SIZE', 'MASTER_PORT')}
    numbers['LOCAL_RANK'] = os.environ.get('LOCAL_RANK', '0')
    for name, value in numbers.items():
        if not value.isdecimal():
            raise OptionError('--launcher', f'{name} of the environment must be a whole number, not {shown(value)}.')
    if int(found['RANK']) >= int(found['WORLD_SIZE']):
        raise OptionError('--launcher', f'RANK is {found["RANK"]}, but WORLD_SIZE is {found["WORLD_SIZE"]}.')
    return int(numbers['LOCAL_RANK'])


@contextmanager
def in_touch(opt: RunOptions) -> Iterator[None]:
    """A context that turns losing another process into a RunError, as it is that process that failed.

    It has ended, or did not answer for as long as ``dist_params:timeout`` says.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and 'gloo' not in str(error):
            raise
        minutes = opt['dist_params']['timeout']
        raise RunError(
            f'process {os.environ.get("RANK", "0")}: another process has ended, or has not answered for '
            f'{minutes:g} minutes (dist_params:timeout); see what it said.'
        ) from None


def _join(backend: str, timeout: timedelta) -> None:
    """Join the other processes through the store that ``MASTER_ADDR`` and ``MASTER_PORT`` name.

    When torchrun restarts processes after a failure, its store still has the old processes' addresses, and gloo would
    connect to them. So on one node each start has its own part of the store. (On several nodes the counts of restarts
    can differ; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun open a new store.)
    """
    store, rank, size = next(iter(torch.distributed.rendezvous('env://', timeout=timeout)))
    if os.environ.get('GROUP_WORLD_SIZE') == '1':
        store = torch.distributed.PrefixStore(f'start_{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}', store)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _take_slurm_variables(opt: RunOptions) -> None:
    """Give torch.distributed under Slurm the variables that torchrun would set."""
    if 'SLURM_PROCID' not in os.environ:
        raise OptionError('--launcher', "'slurm' was given, but Slurm's variables are absent; use srun.")
    for name in ('SLURM_NODELIST', 'SLURM_NTASKS', 'SLURM_LOCALID'):
        if name not in os.environ:
            raise OptionError('--launcher', f"'slurm' was given, but {name} is absent; use srun.")
    if 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']]
        try:
            os.environ['MASTER_ADDR'] = subprocess.run(command, capture_output=True, text=True).stdout.split()[0]
        except (OSError, LookupError):
            message = f'{" ".join(command)} names no machine; set MASTER_ADDR to the name of the first.'
            raise OptionError('--launcher', message) from None
    os.environ.setdefault('MASTER_PORT', str(opt['dist_params']['port']))
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']


def stop() -> None:
    """Leave the other processes."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
