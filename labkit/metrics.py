"""record("name", value): one number a notebook stands for, kept in the notebook file itself."""

import contextlib
import math
import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path

MIME = "application/vnd.labkit.metric+json"
INPUT = "application/vnd.labkit.input+json"


def record(name: str, value: float, unit: str = "") -> None:
    """Show ``name = value unit`` and leave it in the cell's output for the runner to collect.

    Args:
        name: of the metric, unique in its notebook; its baseline is kept under it.
        value: one number; a tensor or array of one element and a bool will do.
        unit: shown behind the value.

    Raises:
        ValueError: ``name`` is empty, ``value`` is not one finite number, or ``unit`` is no text.
    """
    with contextlib.suppress(ValueError, RuntimeError):  # an array of several: told below
        value = value.item() if hasattr(value, "item") else value
    value = int(value) if isinstance(value, bool) else value
    _check(name, value, unit)
    _show(f"{name} = {value:.6g} {unit}".rstrip(), MIME, {"name": name, "value": value, "unit": unit})


def record_input(name: str, fingerprint: str) -> None:
    """Show and keep what the metrics were computed from and the lab's code does not fix, such as a text.

    A baseline names it: a metric that moved because its input is another one should say so.
    """
    _show(f"{name}: {fingerprint}", INPUT, {"name": name, "fingerprint": fingerprint})


def read_metrics(notebook: str | Path) -> dict[str, dict]:
    """{name: {"value", "unit"}} from an executed notebook.

    An output that only looks like ``record``'s costs itself alone: it is left out, in a line on stderr.
    """
    found = _read(notebook, MIME, {"name", "value", "unit"}, lambda bundle: _check(**bundle))
    return {metric.pop("name"): metric for metric in found}


def read_inputs(notebook: str | Path) -> dict[str, str]:
    """{name: fingerprint} of ``record_input`` from an executed notebook; others as in ``read_metrics``."""
    found = _read(notebook, INPUT, {"name", "fingerprint"}, _input)
    return {one["name"]: one["fingerprint"] for one in found}


def _input(bundle: dict) -> None:
    if not all(isinstance(text, str) for text in bundle.values()):
        raise ValueError(f"name and fingerprint must be text; got {bundle!r}")


def _check(name: object, value: object, unit: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a non-empty string; got {name!r}")
    try:
        finite = isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the floats
        finite = False
    if not finite:
        raise ValueError(f"value must be one finite number for metric {name!r}; got {value!r}")
    if not isinstance(unit, str):
        raise ValueError(f"unit must be text for metric {name!r}; got {unit!r}")
    for what, text in (("name", name), ("unit", unit)):
        if not text.isprintable():  # a line break or an escape code would spoil every table
            raise ValueError(f"{what} must be printable text; got {text!r}")


def _show(text: str, kind: str, bundle: dict) -> None:
    from IPython.display import display

    display({kind: bundle, "text/plain": text}, raw=True)


def _read(notebook: str | Path, kind: str, keys: set[str], check: Callable[[dict], None]) -> list[dict]:
    """The bundles of a kind with just ``keys`` that pass ``check``; what is wrong with others is told."""
    from labkit.light_nbformat import nbformat

    outputs = [o for cell in nbformat.read(notebook, as_version=4).cells for o in cell.get("outputs", [])]
    found = []
    for bundle in (output["data"][kind] for output in outputs if kind in output.get("data", {})):
        try:
            if not isinstance(bundle, dict) or bundle.keys() != keys:
                raise ValueError(f"{kind} must hold {', '.join(sorted(keys))}; got {bundle!r}")
            check(bundle)
            found.append(dict(bundle))
        except ValueError as problem:
            print(f"{notebook}: an output is left out: {problem}", file=sys.stderr)
    return found
