"""The files of a study: JSON written strictly and whole, the shape it must have, what tells two apart.

put          a value under keys of a file that other processes may be writing to
check        ValueError that names the place where a value has not its shape
digest       16 digits that change with a value or with a file
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from labkit.checks import fail
from labkit.paths import write_json

Join = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def put(path: Path, body: Mapping[str, Any], *keys: str, join: Join | None = None) -> None:
    """Write ``body`` under ``keys`` of a JSON file, beside what stands there; without keys, as the file.

    join  is given what stands under the keys and ``body``, and returns what will stand there
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        whole = json.loads(path.read_text()) if keys and path.exists() else {}
        place = whole
        for key in keys:
            place = place.setdefault(key, {})
        body = join(dict(place), dict(body)) if join and place else body
        place.clear()
        place.update(body)
        write_json(path, whole, strict=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: another process that writes there waits."""
    import fcntl  # late: not on Windows, where reading the records must work

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check(name: str, value: Any, shape: Any) -> None:
    """ValueError, naming the place, unless ``value`` (as JSON has it) has ``shape``.

    Args:
        name: What the value is called in the error.
        value: Dicts, lists, strings, numbers, booleans and None.
        shape: ``float``, ``int | None`` and so on: a value of that type, where an int is also a float and
            a bool is neither; ``object`` is any. ``[shape]``: a list of such. ``{str: shape}``: a dict of
            such under any keys. Another dict: those keys at least, each of its shape.
    """
    if isinstance(shape, list):
        _container(name, value, list)
        for index, item in enumerate(value):
            check(f"{name}[{index}]", item, shape[0])
    elif isinstance(shape, dict):
        _container(name, value, dict)
        wanted = dict.fromkeys(value, shape[str]) if set(shape) == {str} else shape
        if missing := [key for key in wanted if key not in value]:
            fail(name, sorted(value), f"a dict with {', '.join(map(repr, missing))}")
        for key, inner in wanted.items():
            check(f"{name}[{key!r}]", value[key], inner)
    elif not _is(value, shape):
        fail(name, value, f"of type {shape if isinstance(shape, UnionType) else shape.__name__}")


def _container(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        fail(name, value, f"a {kind.__name__}")


def _is(value: Any, kind: type | UnionType) -> bool:
    kinds = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    if isinstance(value, bool):
        return bool in kinds or object in kinds
    if isinstance(value, int) and float in kinds:
        return value.bit_length() < 1024  # beyond, no float is near
    return isinstance(value, kinds)


def digest(value: Any) -> str:
    """16 hexadecimal digits that change with ``value``: a file's path stands for its bytes, else JSON."""
    data = value.read_bytes() if isinstance(value, Path) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]
