"""Reading and writing checkpoints and training states, as files."""

import hashlib
import os
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from mipkd_sr.runtime.files import atomic_write

NUMPYS: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + '?'),
    *((np.float64(0).__reduce__()[0], f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
]
"""The types of a saved numpy number, such as the PSNR beside some weights, under both names of numpy's core."""


def save_atomically(content: Any, file: str | os.PathLike[str]) -> None:
    """``torch.save``, so that ``file`` is never half-written. Tensors become the CPU's: any machine loads it."""
    buffer = BytesIO()  # torch.save into a file reports a full disk as an error of its own zip writer
    torch.save(tree_map_only(Tensor, lambda tensor: tensor.cpu(), content), buffer)
    with atomic_write(file, durable=True) as part:
        part.write_bytes(buffer.getbuffer())


def write_digest(file: str | os.PathLike[str]) -> None:
    """Write ``FILE.sha256`` beside a file without checksums of its own, as ``sha256sum`` does; ``load_file`` reads
    it.
    """
    file = Path(file)
    with atomic_write(_digest_file(file)) as part:
        part.write_text(f'{file_digest(file)}  {file.name}\n', encoding='utf-8')


def _digest_file(file: Path) -> Path:
    return file.with_name(f'{file.name}.sha256')


def file_digest(file: Path) -> str:
    """A file's SHA-256, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with file.open('rb') as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def verify(file: str | os.PathLike[str]) -> None:
    """Compare a file with the checksums that there are, as torch.load does not: ``FILE.sha256``, and those in the file.

    A file of PyTorch before 1.6, or one that was saved with ``set_crc32_options(False)``, has none in it.

    Raises:
        ValueError: If it differs.
        OSError: If it cannot be read.
    """
    file = Path(file)
    beside = _digest_file(file)
    if beside.exists() and beside.read_text(encoding='utf-8', errors='replace').split()[:1] != [file_digest(file)]:
        raise ValueError(f'it does not have the checksum in {beside.name}')
    with file.open('rb') as stream:
        if stream.read(4) != b'PK\x03\x04':
            return
        with zipfile.ZipFile(stream) as archive:
            kept = any(record.CRC for record in archive.infolist())  # torch.serialization.set_crc32_options(False)
            if kept and (broken := archive.testzip()):
                raise ValueError(f'{broken} in it does not have its checksum')


def is_whole(file: str | os.PathLike[str]) -> bool:
    """Whether a file is there and has its checksums."""
    try:
        verify(file)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return True


def load_file(file: str | os.PathLike[str]) -> Any:
    """Load a file of tensors and plain values onto the CPU. Checksums are compared, and pickled code is refused.

    Raises:
        ValueError: If the file cannot be read as one. The message names it.
    """
    try:
        verify(file)
        with torch.serialization.safe_globals(NUMPYS):
            return torch.load(file, map_location='cpu', weights_only=True)
    except OSError as error:
        raise ValueError(f'{file} cannot be read ({error.strerror})') from None
    except Exception as error:  # neither zipfile nor torch.load has one exception for broken or hostile files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if found := re.search(r'Unsupported (?:global|class):? (?:GLOBAL )?(\S+)', str(error)):
            reason = f'it holds a {found[1]}, which is neither a tensor nor a plain value'
        raise ValueError(f'{file} is not a checkpoint that can be loaded safely ({reason})') from None
