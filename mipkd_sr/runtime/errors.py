"""Exceptions that end a command early: errors that a user can mend, and a request to stop."""

import difflib
import signal
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

OUT_OF_MEMORY = ('out of memory', 'not enough memory', "can't allocate memory", 'MemoryError', 'bad_alloc')
"""What PyTorch, Python or C++ says when memory is short."""
MOST_NAMES = 20
"""Names that a sentence lists."""


class OptionError(ValueError):
    """Something in the option file, or in a file that it names, is wrong. Whatever takes options or such files may
    raise it.

    Args:
        key: Where it stands, keys joined by colons: ``train:optim_g:lr``. Empty for the file as a whole.
        message: One sentence: what is wrong and what to do.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(printable(f'{key}: {message}' if key else message))
        self.key = key
        self.message = printable(message)


class BusyError(OptionError):
    """Another process holds what this one needs to write to, such as a run's folder."""

    exit_code = 5


class RunError(Exception):
    """A run cannot go on: an image that cannot be read, a full disk, numbers that are not finite.

    Args:
        message: One sentence: what is wrong, where, and what to do.
    """


class Interrupted(Exception):
    """The run was asked to stop by a signal, and has saved its state after ``iteration``."""

    def __init__(self, iteration: int, signal_number: int) -> None:
        super().__init__(f'stopped by {signal.Signals(signal_number).name} after iteration {iteration}')
        self.exit_code = 128 + signal_number


def sentence(error: BaseException) -> str:
    """An exception's message on one line, with one full stop at its end."""
    return ' '.join(str(error).split()).rstrip('.') + '.'


def traced(error: BaseException) -> str:
    """An exception on one line. Its kind and place are added unless the system or this package raised it."""
    trace = traceback.extract_tb(error.__traceback__)
    text = sentence(error).rstrip('.')
    if isinstance(error, OSError) or not trace or Path(__file__).parents[1] in Path(trace[-1].filename).parents:
        return text
    place = error if isinstance(error, SyntaxError) else trace[-1]
    return f'{type(error).__name__}{": " if text else ""}{text} ({place.filename}, line {place.lineno})'


def compiler_fault(error: BaseException) -> str:
    """The message in an error of torch.compile's (these fill pages) or of CUDA graphs'; empty for another error.

    Such errors are recognised by their class's name, so that a command need not load PyTorch for that.
    """
    if not any(kind.__name__ == 'TorchDynamoException' for kind in type(error).__mro__) and not (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in ('CUDAGraphs', 'is capturing'))
    ):
        return ''
    return ' '.join(str(error).strip().partition('\n\n')[0].split())  # what follows is how to see more


def compiler_problem(error: Exception) -> str:
    """One sentence for an error of torch.compile's own; nothing for any other error."""
    what = compiler_fault(error)
    return f'torch.compile failed ({what}); set train:compile=false.' if what else ''


def is_out_of_memory(error: object) -> bool:
    """Whether an exception, PyTorch's or another, or what a process has printed, says that memory is short."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def advice(name: object, names: Iterable[str], otherwise: str) -> str:
    """Advice on a name that does not exist: the nearest of ``names``, whatever its case; or ``otherwise`` and all of
    them.
    """
    by_lower_case = {known.lower(): known for known in sorted(names)}
    near = difflib.get_close_matches(str(name)[:200].lower(), by_lower_case, 1, 0.5)
    if near:
        return f"did you mean '{by_lower_case[near[0]]}'?"
    known, beyond = list(by_lower_case.values()), len(by_lower_case) - MOST_NAMES
    return f'{otherwise}: {", ".join(known[:MOST_NAMES])}{f" and {beyond} more" if beyond > 0 else ""}.'


def printable(text: str) -> str:
    """``text`` on one line and in characters that any terminal shows: others are written as escapes."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in text)


def cut(text: str, longest: int = 900) -> str:
    """``text`` without its middle where it is longer than ``longest``, as with paths of thousands of characters."""
    half = longest // 2
    return text if len(text) <= longest else f'{text[:half]} ... {text[-half:]}'


def shown(value: object) -> str:
    """``value`` as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = 'a number of thousands of digits'
    return text if len(text) <= 60 else f'{text[:60]}...'


@contextmanager
def blamed_on(key: str) -> Iterator[None]:
    """A context that turns any exception that is not the package's own into an OptionError about ``key``.

    It is for building objects from a user's options. Classes of BasicSR's, torch's or the user's raise anything for
    arguments that they cannot use.
    """
    try:
        yield
    except (OptionError, RunError):
        raise
    except (ValueError, AssertionError) as error:  # their messages are for whoever gave the value
        raise OptionError(key, sentence(error) if str(error) else 'cannot be built; look at its arguments.') from error
    except Exception as error:
        kind, text = type(error).__name__, sentence(error).rstrip('.')
        raise OptionError(key, f'cannot be built; look at its arguments ({kind}: {text[:300]}).') from error
