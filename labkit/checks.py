"""One clear error for bad input: it names the argument, what was given and what is allowed."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, NoReturn


def fail(name: str, value: Any, allowed: str) -> NoReturn:
    """Raise ``ValueError("<name> must be <allowed>; got <value>")``."""
    raise ValueError(f"{name} must be {allowed}; got {value!r}")


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """The end of an error that names the closest of ``known`` in brackets; empty if nothing is close."""
    close = get_close_matches(str(given), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` as int if it is a whole number in [low, high]; bool is refused."""
    span = f"an integer >= {low}" if high is None else f"an integer between {low} and {high}"
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        fail(name, value, span)
    return int(value)


def number(name: str, value: Any, low: float, high: float = float("inf")) -> float:
    """Return ``value`` as float if it is a finite number in [low, high]; bool is refused."""
    span = f"a number >= {low:g}" if high == float("inf") else f"a number in [{low:g}, {high:g}]"
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not low <= value <= high or value in (float("inf"), float("-inf")):  # NaN: not <=
        fail(name, value, span)
    return float(value)


def choice(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return ``value`` if it is one of ``allowed``."""
    if value not in allowed:
        fail(name, value, "one of " + ", ".join(map(repr, allowed)))
    return value
