"""record("name", value): one number a notebook stands for, kept in the notebook file itself."""

import math
from collections.abc import Iterator
from numbers import Real
from pathlib import Path

MIME = "application/vnd.labkit.metric+json"
INPUT = "application/vnd.labkit.input+json"


def record(name: str, value: float, unit: str = "") -> None:
    """Show ``name = value unit`` and leave it in the cell's output for the runner to collect.

    ValueError if ``name`` is empty or ``value`` is not one finite number.
    """
    from IPython.display import display

    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a non-empty string; got {name!r}")
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"value must be one finite number for metric {name!r}; got {value!r}")
    text = f"{name} = {value:.6g} {unit}".rstrip()
    bundle = {MIME: {"name": name, "value": value, "unit": unit}, "text/plain": text}
    display(bundle, raw=True)


def record_input(name: str, fingerprint: str) -> None:
    """Show and keep what the metrics were computed from and the lab's code does not fix, such as a text.

    A baseline names it: a metric that moved because its input is another one should say so.
    """
    from IPython.display import display

    bundle = {INPUT: {"name": name, "fingerprint": fingerprint}, "text/plain": f"{name}: {fingerprint}"}
    display(bundle, raw=True)


def read_metrics(notebook: str | Path) -> dict[str, dict]:
    """{name: {"value", "unit"}} from an executed notebook, also one that failed half-way."""
    return {m["name"]: {"value": m["value"], "unit": m["unit"]} for m in _recorded(notebook, MIME)}


def read_inputs(notebook: str | Path) -> dict[str, str]:
    """{name: fingerprint} of ``record_input`` from an executed notebook."""
    return {one["name"]: one["fingerprint"] for one in _recorded(notebook, INPUT)}


def _recorded(notebook: str | Path, kind: str) -> Iterator[dict]:
    import nbformat

    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if kind in output.get("data", {}):
                yield output["data"][kind]
