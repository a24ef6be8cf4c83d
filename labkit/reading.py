"""Files that others wrote, read within bounds: a refusal is one ValueError that names the file.

A size is compared with its limit before that much is read or unpacked.
"""

import gzip
import io
import json
import stat
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TEXT_BYTES = 2**26  # 64 MiB: JSON and YAML; Python holds about ten times as much
DATA_BYTES = 2**30  # 1 GiB: arrays and data sets, unpacked


def read_bytes(path: Path, most: int, what: str) -> bytes:
    """A file's content; ValueError, in which ``what`` is at fault, if it has more than ``most`` bytes."""
    check_file(path, what)
    with path.open("rb") as file:
        return _bounded(file, most, f"{what} must be at most {most:,} bytes; {path} has more")


def check_file(path: Path, what: str) -> None:
    """ValueError for a folder, a device or a pipe, which would be waited for; OSError for nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{what} must be a file; {path} is none")


def gunzip(content: bytes, most: int, what: str, path: Path) -> bytes:
    """Unpacked gzip; ValueError as ``read_bytes``; gzip's own errors if it is damaged."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        return _bounded(file, most, f"{what} must unpack to at most {most:,} bytes; {path} has more")


def read_json(path: Path, what: str) -> Any:
    """What a JSON file holds; ValueError if it is too big, too deep, no JSON or no text."""
    content = read_bytes(path, TEXT_BYTES, what)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be valid JSON; {path} is not: {error}") from None


def read_npz(path: Path, what: str) -> "dict[str, np.ndarray]":
    """The arrays of an npz without pickle; ValueError if they would take more than ``DATA_BYTES``.

    A damaged file makes zipfile, zlib and numpy stumble in many ways: their errors come as they are.
    """
    import numpy as np  # late: the command line starts without it

    check_file(path, what)
    with zipfile.ZipFile(path) as archive:  # unpacking ends at the size that stands here
        size = sum(member.file_size for member in archive.infolist())
    if size > DATA_BYTES:
        raise ValueError(f"{what} must unpack to at most {DATA_BYTES:,} bytes; {path} has {size:,}")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _bounded(file: IO[bytes] | gzip.GzipFile, most: int, problem: str) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(problem)
    return content
