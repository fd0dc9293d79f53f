"""Being asked to stop: Ctrl-C, or a cluster's SIGTERM before it takes the machine away.

What a training then does, saving and ending, is in ``mipkd_sr.training.loop``.
"""

import os
import signal
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CANNOT_GO_ON = 255
"""Stands for a signal when a process that cannot go on asks all to stop."""


class StopRequests:
    """Collects SIGINT and SIGTERM instead of dying of them, so that a run can save and stop between two iterations.

    A context manager. A second signal has its usual effect, but not under torchrun. torchrun passes on a signal that
    its processes may have had already, and kills them itself if they take too long.

    Args:
        timeout: For how long a process waits for the others, where there are others.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._request = 0
        self._usual = {number: signal.getsignal(number) for number in SIGNALS}
        self._shared: tuple[torch.Tensor, Any] | None = None
        self._group: Any = None
        if torch.distributed.is_initialized():  # on the CPU: no GPU has to wait for it
            self._group = torch.distributed.new_group(backend='gloo', timeout=timeout)

    def __enter__(self) -> 'StopRequests':
        for number in SIGNALS:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._request = max(number, self._request)
        if 'TORCHELASTIC_RUN_ID' not in os.environ:
            signal.signal(number, self._usual[signal.Signals(number)])

    def ask(self) -> None:
        """Ask all processes to stop after the next iteration, as this one cannot go on after it."""
        self._request = CANNOT_GO_ON

    def tell(self) -> None:
        """Let the other processes know what this one knows; to be called before each iteration."""
        if self._group is not None:
            flag = torch.tensor(self._request)
            work = torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group, async_op=True)
            self._shared = flag, work

    def agreed(self) -> int:
        """The signal for which all stop now, or ``CANNOT_GO_ON``; 0 to go on. To be called after each iteration.

        Signals reach the ranks at different moments. All must stop after the same iteration, or one would wait for
        gradients that never come. So they act on what ``tell`` sent before the iteration, which has arrived meanwhile.
        """
        if self._shared is None:
            return self._request
        flag, work = self._shared
        work.wait()
        self._shared = None
        return int(flag.item())
