"""Where the lab reads and writes: the project root, runs/ for everything generated, atomic writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


def runs_dir() -> Path:
    """The folder for generated files: $LABKIT_RUNS, else runs/ in the project, else ./runs."""
    if env := os.environ.get("LABKIT_RUNS"):
        return Path(env).resolve()
    return (ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()) / "runs"


def cache_dir(name: str) -> Path:
    """A folder under runs/cache that survives runs (tokenizers, downloads, small trained models)."""
    path = runs_dir() / "cache" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary_path)`` in the same folder, then rename: never a half-written file.

    An OSError that names no file (a full disk's does not) is raised again with ``path`` in it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def is_json(path: Path) -> bool:
    """Whether the file is there and holds whole JSON; False where its writer was killed."""
    try:
        json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return True
