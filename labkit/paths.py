"""Where the lab reads (the checkout, else the installed data) and writes (runs/), and atomic writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

LINE = 300  # characters of JSON that may stand in one line
PACKAGE = Path(__file__).resolve().parent
CHECKPOINTS = PACKAGE / "checkpoints"
# A wheel carries these folders inside the package (pyproject.toml, package-dir), a checkout beside it.
ROOT = None if (PACKAGE / "_notebooks").is_dir() else PACKAGE.parent  # the checkout, if there is one
NOTEBOOKS = ROOT / "notebooks" if ROOT else PACKAGE / "_notebooks"
BASELINES = ROOT / "tests" / "baselines" if ROOT else PACKAGE / "_baselines"
KERNELS = ROOT / "kernels" if ROOT else PACKAGE.parent
BENCHES = ROOT / "kernels" / "results" if ROOT else PACKAGE / "_benches"


def runs_dir() -> Path:
    """The folder for generated files: $LABKIT_RUNS, else runs/ in the checkout, else ./runs."""
    if env := os.environ.get("LABKIT_RUNS"):
        return Path(env).resolve()
    return (ROOT or Path.cwd()) / "runs"


def cache_dir(name: str) -> Path:
    """A folder under runs/cache that survives runs (tokenizers, downloads, small trained models)."""
    path = runs_dir() / "cache" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary_path)`` in the same folder, then rename: never a half-written file.

    The bytes are on the disk before they have the name: a power cut leaves the old file or the new one.

    An OSError that names no file (a full disk's does not) is raised again with ``path`` in it. ValueError
    for a folder, a device or a pipe: renaming over /dev/null would take it away from the whole machine.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"path must be a file or new; got {str(path)!r}, a folder, device or pipe")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_page(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8, whole or not at all; half characters show as \\udcff: it has none."""
    return write_atomic(path, lambda part: part.write_text(text, "utf-8", "backslashreplace"))


def write_json(path: Path, content: object, *, strict: bool = False) -> None:
    """Write readable JSON, whole or not at all: what fits stands in one line.

    strict  NaN and inf, which JSON does not know, are a ValueError
    """
    text = _json(content, 0, strict) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text))


def _json(value: object, depth: int, strict: bool) -> str:
    flat = json.dumps(value, allow_nan=not strict)
    if not isinstance(value, (dict, list)) or not value or (depth and len(flat) <= LINE):
        return flat
    if isinstance(value, dict):
        start, end = "{", "}"
        parts = [f"{json.dumps(key)}: {_json(item, depth + 1, strict)}" for key, item in value.items()]
    else:
        start, end = "[", "]"
        parts = [_json(item, depth + 1, strict) for item in value]
    inner = f",\n{' ' * (depth + 1)}".join(parts)
    return f"{start}\n{' ' * (depth + 1)}{inner}\n{' ' * depth}{end}"


def is_json(path: Path) -> bool:
    """Whether the file is there and holds whole JSON; False where its writer was killed."""
    try:
        json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return True
