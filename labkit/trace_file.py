"""What every trace is: a dataclass of arrays and plain values, checked, kept as one npz without pickle."""

import json
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from labkit.checks import fail, whole
from labkit.paths import write_atomic
from labkit.reading import read_npz

FORMAT = 1
KINDS = {"bool": "b", "int": "biu", "float": "f", "number": "biuf"}  # numpy's dtype.kind


@dataclass
class Trace:
    """Save and load for the dataclasses of ``traces``: arrays go into the npz, the rest into its JSON.

    A field ``Annotated[np.ndarray, "int b L"]`` is an array of that kind and those dimensions: a letter is
    the same size in all fields, "..." is any further dimensions. A dict may hold such arrays by name.
    """

    def __post_init__(self) -> None:
        """ValueError names the field that is not what its class says."""
        sizes: dict[str, int] = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if _is_array(spec):
                _check(spec.name, value, _what(spec), sizes)
            elif what := _what(spec):
                for name, item in _of_type(spec.name, value, dict).items():
                    # an npz cannot hold others
                    if not isinstance(name, str) or "\0" in name or not whole(name):
                        fail(f"names of {spec.name}", name, "text without NUL or half characters")
                    _check(f"{spec.name}[{name!r}]", item, what, sizes)
            else:
                _of_type(spec.name, value, dict if spec.name == "meta" else list)

    def save(self, path: str | Path) -> Path:
        """Write one ``.npz`` (compressed, no pickle); the file appears whole or not at all."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"path must end in .npz; got {str(path)!r}")
        self.__post_init__()  # a field may have changed since: what cannot be loaded is not saved
        content: dict[str, Any] = {}
        plain = {"kind": json.dumps(type(self).__name__), "format": json.dumps(FORMAT)}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if _is_array(spec):
                content[spec.name] = value
            elif _what(spec):
                content |= {f"{spec.name}/{key}": item for key, item in value.items()}
            else:
                plain[spec.name] = _as_json(spec.name, value)
        parts = (f"{json.dumps(name)}: {text}" for name, text in plain.items())
        content["json"] = np.array(f"{{{', '.join(parts)}}}")
        return write_atomic(path, lambda temporary: np.savez_compressed(temporary, **content))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote (``Trace.load``: of any kind). ValueError if it is no whole trace."""
        try:
            content = read_npz(Path(path), "path")
            plain = json.loads(str(content.pop("json")))
            kind, number = plain.pop("kind", None), plain.pop("format", None)
            known = {one.__name__: one for one in (cls, *cls.__subclasses__())}
            if number == FORMAT and (made := known.get(kind)):
                for spec in fields(made):
                    if _what(spec) and not _is_array(spec):
                        prefix = spec.name + "/"
                        keys = [key for key in content if key.startswith(prefix)]
                        plain[spec.name] = {key.removeprefix(prefix): content.pop(key) for key in keys}
                return made(**content, **plain)
        except Exception as error:  # a damaged file makes zip, numpy and JSON stumble in many ways
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of opening it; a seek to where a damaged file points names none
            raise ValueError(f"path must be a {cls.__name__} npz; {path} is not ({error})") from None
        raise ValueError(
            f"path must hold a {cls.__name__} of format {FORMAT}; {path} holds {kind} {number}"
        )


def _as_json(name: str, value: Any) -> str:
    """JSON of a plain field, numpy's numbers as Python's; ValueError names the field."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        raise TypeError(f"{type(item).__name__} is not")

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must hold what JSON can, to be saved ({error})") from None


def _what(spec: Field) -> str:
    """What its annotation says of an array, or of each array of a dict; empty for any other field."""
    return getattr(spec.type, "__metadata__", ("",))[0]


def _is_array(spec: Field) -> bool:
    return getattr(spec.type, "__origin__", None) is np.ndarray


def _check(name: str, value: Any, what: str, sizes: dict[str, int]) -> None:
    """``sizes`` has the letters seen so far, and takes those seen here."""
    kind, *letters = what.split()
    shape = f"({', '.join(str(sizes.get(letter, letter)) for letter in letters)})"
    if not isinstance(value, np.ndarray):
        fail(name, type(value).__name__, f"a numpy array, {kind} {shape}")
    given = value.shape
    if letters[-1] == "...":
        letters, given = letters[:-1], given[: len(letters) - 1]
    fits = len(given) == len(letters) and all(
        sizes.setdefault(letter, size) == size for letter, size in zip(letters, given, strict=True)
    )
    if not fits or value.dtype.kind not in KINDS[kind]:
        raise ValueError(f"{name} must be {kind} {shape}; got {value.dtype} {value.shape}")


def _of_type(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        fail(name, type(value).__name__, f"a {kind.__name__}")
    return value
