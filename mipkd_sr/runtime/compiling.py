"""Regions: the parts of a training step that torch.compile compiles, each as one graph, where a run asks for it.

With ``graphs`` PyTorch also captures each region's kernels in a CUDA graph (its "CUDA graph trees", which share one
pool of memory), so that the CPU launches a region and not its hundreds of kernels.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from mipkd_sr.runtime.errors import compiler_fault, cut
from mipkd_sr.runtime.ranks import rank_and_size

P = ParamSpec('P')
T = TypeVar('T')
BACKEND: Any = 'inductor'
"""What compiles."""
RANDOM = {'fallback_random': True}
"""Compiled code draws the same random numbers as uncompiled code."""
WAYS: dict[str, list[dict[str, Any]]] = {
    'true': [{'options': RANDOM}],
    'graphs': [{'fullgraph': True, 'options': {'triton.cudagraphs': True, **RANDOM}}, {'options': RANDOM}],
}
"""How a region is compiled in each mode. If one way fails, the next is tried; in the end it is not compiled."""
NEXT = ('is run as it is', 'is compiled in parts, without CUDA graphs')
REPAID = 5_000
"""Steps of a run that repay its warm-up: on one H200 95 s, against 23 ms a step (EDSR 64/32 under 256/32, KD)."""
_mode = 'false'


def choose_mode(wanted: bool | str, device: torch.device, steps: int) -> str:
    """The mode that ``train:compile``, ``wanted``, means for a training of ``steps`` on a device: 'false', 'true' or
    'graphs'.

    'auto' is 'graphs' on a GPU of compute capability 7.0 or more, with a C compiler beside it, for at least ``REPAID``
    steps.
    """
    if wanted != 'auto':
        return str(wanted).lower()
    has_compiler = any(shutil.which(name) for name in (os.environ.get('CC', 'cc'), 'gcc', 'clang'))
    fits = device.type == 'cuda' and torch.cuda.get_device_capability(device) >= (7, 0)
    return 'graphs' if fits and has_compiler and steps >= REPAID else 'false'


def prepare(mode: str, cache: str | None) -> None:
    """Set PyTorch's compiler up for a run; ``cache`` is the folder of compiled code, PyTorch's own if None."""
    if mode == 'false':
        return
    if cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = os.path.abspath(cache)
    torch._functorch.config.donated_buffer = False  # for a term's own gradient, before the step's
    # each part of a body between two distillation positions is compiled for itself, and for each size of image
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)


@contextmanager
def compiling(mode: str) -> Iterator[None]:
    """A context in which regions are compiled as ``mode`` says: 'false', 'true' or 'graphs'."""
    global _mode  # no ContextVar: on a GPU a backward pass, which runs regions again, has a thread of its own
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def region(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function of tensors a region: within ``compiling`` it is compiled, elsewhere it is not.

    It must compute the same from the same arguments, keep nothing, and draw nothing but torch's own random numbers. If
    it is a module's computation, its first argument is that module. If a module cannot be compiled, the log says so
    once, and it runs uncompiled from then on.
    """
    compiled: dict[object, list[Callable[P, T]]] = {}
    failures: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling() or _mode == 'false':
            return function(*args, **kwargs)
        if (key := (_mode, BACKEND)) not in compiled:
            ways = [{**way, 'options': way['options'] if BACKEND == 'inductor' else None} for way in WAYS[_mode]]
            compiled[key] = [torch.compile(function, backend=BACKEND, dynamic=False, **way) for way in ways]
        owner = args[0] if isinstance(args[0], nn.Module) else call
        while (number := failures.get(owner, 0)) < len(compiled[key]):
            try:
                return compiled[key][number](*args, **kwargs)
            except Exception as error:
                if not (fault := compiler_fault(error)):
                    raise
                failures[owner] = number + 1
                name = type(owner).__name__ if owner is not call else function.__name__.strip('_')
                left = len(compiled[key]) - number - 1
                logging.getLogger('basicsr').warning(f'{name} {NEXT[left]}: torch.compile failed ({cut(fault, 200)}).')
        return function(*args, **kwargs)

    return call


def alone(function: Callable[P, T]) -> Callable[P, T]:
    """As ``region``, for a function that communicates with other processes: it is compiled only if there are none."""
    compiled = region(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return (compiled if rank_and_size()[1] == 1 else function)(*args, **kwargs)

    return call
