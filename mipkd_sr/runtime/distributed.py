"""Starting and ending torch.distributed, on GPUs and on CPUs."""

import os
import subprocess
from typing import Any

import torch
import torch.distributed

from mipkd_sr.runtime.errors import OptionError


def start(launcher: str, opt: dict[str, Any]) -> None:
    """Join the other processes, choose this one's device, and note ``dist``, ``rank``, ``world_size``, ``num_gpu``.

    Args:
        launcher: 'none', 'pytorch' (torchrun) or 'slurm'.
        opt: The run's options; changed in place.

    Raises:
        OptionError: If more GPUs are asked for than one process can use, or the launcher's variables are absent.
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
    if 'RANK' not in os.environ:
        raise OptionError(
            '--launcher', f"'{launcher}' was given, but the launcher's variables are absent; use torchrun."
        )
    if opt['num_gpu']:
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
    _join(opt['dist_params']['backend'] if opt['num_gpu'] else 'gloo')
    opt['rank'], opt['world_size'] = torch.distributed.get_rank(), torch.distributed.get_world_size()


def _join(backend: str) -> None:
    """Join the other processes through the store that ``MASTER_ADDR`` and ``MASTER_PORT`` name.

    When torchrun starts processes again after a failure, its store still has the addresses of those before, and gloo
    would connect to them. So on one node each start has its own part of the store. (On several nodes the counts of
    restarts can differ; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun open a new store.)
    """
    store, rank, size = next(iter(torch.distributed.rendezvous('env://')))
    if os.environ.get('GROUP_WORLD_SIZE') == '1':
        store = torch.distributed.PrefixStore(f'start_{os.environ["TORCHELASTIC_RESTART_COUNT"]}', store)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)


def _take_slurm_variables(opt: dict[str, Any]) -> None:
    """Give torch.distributed under Slurm the variables that torchrun would set."""
    if 'SLURM_PROCID' not in os.environ:
        raise OptionError('--launcher', "'slurm' was given, but Slurm's variables are absent; use srun.")
    nodes = os.environ['SLURM_NODELIST']
    first = subprocess.run(['scontrol', 'show', 'hostname', nodes], capture_output=True, text=True, check=True)
    os.environ.setdefault('MASTER_ADDR', first.stdout.split()[0])
    os.environ.setdefault('MASTER_PORT', str(opt.get('dist_params', {}).get('port', 29500)))
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']


def stop() -> None:
    """Leave the other processes."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
