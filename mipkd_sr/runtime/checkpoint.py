"""Reading and writing checkpoints and training states, as files."""

import json
import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from mipkd_sr.runtime.files import written_whole


def save_atomically(content: Any, file: str | os.PathLike[str]) -> None:
    """``torch.save``, so that ``file`` is never half-written.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    buffer = BytesIO()  # torch.save into a file reports a full disk as an error of its own zip writer
    torch.save(content, buffer)
    with written_whole(file, durable=True) as part:
        part.write_bytes(buffer.getbuffer())


def write_json(content: Any, file: str | os.PathLike[str]) -> None:
    """Write JSON, so that ``file`` is never half-written.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    with written_whole(file, durable=True) as part:
        part.write_text(json.dumps(content, indent=1), encoding='utf-8')


def load_file(file: str | os.PathLike[str], verify: bool = False) -> Any:
    """Load a file of tensors and plain values onto the CPU. Pickled code is refused.

    Args:
        file: The file.
        verify: Whether to compare its contents with the checksums that ``torch.save`` keeps in it.

    Raises:
        ValueError: If the file cannot be read as one. The message names it.
    """
    try:
        if verify:
            with zipfile.ZipFile(file) as archive:
                if broken := archive.testzip():
                    raise ValueError(f'{broken} in it does not have its checksum')
        return torch.load(file, map_location='cpu', weights_only=True)
    except OSError as error:
        raise ValueError(f'{file} cannot be read ({error.strerror})') from None
    except Exception as error:  # torch.load has no exception of its own for broken or hostile files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f'{file} is not a checkpoint that can be loaded safely ({reason})') from None


def numbered_states(folder: str | os.PathLike[str]) -> list[Path]:
    """The training states in ``folder``, ``<iteration>.state`` each, the newest first."""
    states = [file for file in Path(folder).glob('*.state') if file.stem.isdigit()]
    return sorted(states, key=lambda file: int(file.stem), reverse=True)
