"""Trying a case in a process of its own, and judging what came of it."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mipkd_sr.cli import main as mipkd
from mipkd_sr.models.distill_model import DistillModel
from mipkd_sr.studies import estimate
from mipkd_sr.test import main as run_test
from mipkd_sr.train import main as run_training
from tests.fuzz.confine import confine, watch
from tests.fuzz.mutations import Case

DOCUMENTED = {'dry run': (0, 2, 3, 4), 'run': (0, 4)}
"""Exit codes; a run must not refuse (2) what its dry run passed."""
STEPS = 2
LONGEST_ERROR = 1000


class Enough(BaseException):
    """The steps that a case is given have been taken."""


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        codes: The exit code of each stage.
        faults: What was wrong, a line each.
        trace: The traceback, where there was an exception.
    """

    codes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    trace: str = ''


def start(case: Case, folder: Path) -> int:
    """Try a case in a new process, confined to ``folder``/run; returns the process's number.

    ``folder`` gets ``out``, ``err`` and, at the end, ``outcome.json``.
    """
    inside = folder / 'run'
    inside.mkdir(parents=True)
    (inside / 'case.yml').write_bytes(case.text)
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        os.chdir(inside)
        outcome_file = os.open(folder / 'outcome.json', os.O_WRONLY | os.O_CREAT, 0o600)
        for number, name in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.update(
            TMPDIR=str(inside), HOME=str(inside), TORCH_HOME=str(inside / 'torch'), XDG_CACHE_HOME=str(inside)
        )
        tempfile.tempdir = str(inside)
        for stream, number in (('stdout', 1), ('stderr', 2)):
            setattr(sys, stream, os.fdopen(number, 'w', encoding='utf-8', errors='backslashreplace', buffering=1))
        outcome, tried = Outcome(), list[str]()
        watch(inside, tried)
        confine(inside)
        _try(case, inside, folder / 'err', outcome)
        outcome.faults += [f'tried to change what is outside: {attempt}' for attempt in dict.fromkeys(tried)]
        os.write(outcome_file, json.dumps(asdict(outcome)).encode())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _try(case: Case, inside: Path, err: Path, outcome: Outcome) -> None:
    """The dry run, and, if it passes, the run."""
    if case.kind in ('table', 'study'):
        estimate.STEPS = estimate.COUNTED = 1
        command = ['table'] if case.kind == 'table' else ['compare']
        _stage('dry run', mipkd, [*command, 'case.yml', '--plan', '--root', '.'], err, outcome)
        return
    main = run_training if case.kind == 'train' else run_test
    arguments = ['-opt', 'case.yml', *(['--force_yml', *case.force] if case.force else [])]
    before = _files(inside)
    _stage('dry run', main, [*arguments, '--dry_run'], err, outcome)
    wrote = {file for file in _files(inside) - before if not file.startswith('torch')}  # its cache of downloads
    if wrote or before - _files(inside):
        outcome.faults.append(f'the dry run wrote {", ".join(sorted(wrote))[:200]}')
    if outcome.codes.get('dry run') == 0 and not outcome.faults:
        _stop_after(STEPS)
        _stage('run', main, arguments, err, outcome)


def _stage(name: str, main: Callable[[list[str]], int], arguments: list[str], err: Path, outcome: Outcome) -> None:
    said_before = err.stat().st_size
    try:
        code = main(arguments)
    except Enough:
        code = 0
    except SystemExit as error:  # argparse's
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if 'mipkd_sr' in frame.filename]
        where = f'{_place(own[-1]) if own else ""} > {_place(place)}'
        outcome.faults.append(f'{name}: {type(error).__name__} at {where}: {str(error)[:120]!r}')
        outcome.trace = traceback.format_exc()
        return
    outcome.codes[name] = code
    if code not in DOCUMENTED[name]:
        outcome.faults.append(f'{name}: exit code {code}')
    sys.stderr.flush()
    with err.open('rb') as stream:
        stream.seek(said_before)
        said = stream.read().decode('utf-8', 'replace')
    outcome.faults += [f'{name}: {fault}' for fault in _judge_errors(said, code)]


def _judge_errors(said: str, code: int) -> list[str]:
    """What is wrong with what was said on standard error."""
    faults = []
    if 'Traceback' in said:
        faults.append('a traceback was printed')
    # split at line feeds alone, as a terminal does
    errors = [line for line in said.split('\n') if line.startswith('error: ')]
    if code in (2, 4) and len(errors) != 1 and 'usage: ' not in said:
        faults.append(f'{len(errors)} errors were printed')
    for line in errors:
        if len(line) > LONGEST_ERROR:
            faults.append(f'an error of {len(line)} characters: {line[:150]!r}')
        if not line.endswith(('.', '?')):
            faults.append(f'an error that is no sentence: {line[-150:]!r}')
        if not line.isprintable():
            faults.append(f'an error with control characters: {line[:150]!r}')
    return faults


def _place(frame: traceback.FrameSummary) -> str:
    return f'{Path(frame.filename).name}:{frame.lineno}'


def _files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob('*')}


def _stop_after(steps: int) -> None:
    """Let a training take so many steps, however many it is asked for."""
    usual, taken = DistillModel.optimize_parameters, [0]

    def step(self: DistillModel, current_iter: int) -> None:
        if taken[0] == steps:
            raise Enough
        taken[0] += 1
        usual(self, current_iter)

    DistillModel.optimize_parameters = step  # type: ignore[method-assign]


def finish(folder: Path, status: int) -> Outcome:
    """The outcome of a case whose process has ended with ``status`` (None-like negative numbers: killed)."""
    file = folder / 'outcome.json'
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return Outcome(**json.loads(file.read_bytes()))
    err = (folder / 'err').read_text(encoding='utf-8', errors='replace') if (folder / 'err').exists() else ''
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        reason = 'it used up its processor time' if number == signal.SIGXCPU else signal.Signals(number).name
        return Outcome(faults=[f'killed: {reason}'], trace=err[-3000:])
    return Outcome(faults=['the process ended by itself'], trace=err[-3000:])


def wait_for_one(running: dict[int, tuple[Any, float]], longest: float) -> tuple[int, int]:
    """Wait until one of the processes ends; those that take longer than ``longest`` seconds are killed.

    Returns:
        Its number and its status.
    """
    while True:
        for process, (_, started) in running.items():
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process, signal.SIGKILL)  # what it may have left behind
                return process, status
            if time.monotonic() - started > longest:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process, signal.SIGKILL)
        time.sleep(0.002)
