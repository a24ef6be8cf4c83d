"""One clear error for bad input: it names the argument, what was given and what is allowed."""

import math
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, NoReturn

INT64 = 2**63 - 1  # what torch and numpy count in


def fail(name: str, value: Any, allowed: str) -> NoReturn:
    """Raise ``ValueError("<name> must be <allowed>; got <value>")``."""
    raise ValueError(f"{name} must be {allowed}; got {value!r}")


def visible(text: str) -> str:
    """``text`` with what a terminal would obey, such as escape codes, as numbers: \\x1b."""
    return re.sub(r"[^\n\t -~\xa0-\u202d\u202f-\U0010ffff]", lambda sign: ascii(sign[0])[1:-1], text)


def whole(text: str) -> bool:
    """Whether ``text`` holds no half of a character (a lone surrogate), which no tokenizer takes."""
    return not re.search("[\ud800-\udfff]", text)


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """The end of an error that names the closest of ``known`` in brackets; empty if nothing is close."""
    close = get_close_matches(str(given), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` as int if it is a whole number in [low, high] and fits 64 bits; bool is refused."""
    span = f"an integer >= {low}" if high is None else f"an integer between {low} and {high}"
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < low or value > (INT64 if high is None else high):
        fail(name, value, span)
    return int(value)


def number(name: str, value: Any, low: float, high: float = float("inf")) -> float:
    """Return ``value`` as float if it is a finite number in [low, high]; bool is refused."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    try:
        result = float(value) if real else math.nan
    except OverflowError:  # a whole number beyond the floats
        result = math.inf
    if not low <= result <= high or math.isinf(result):  # NaN: not <=
        span = f">= {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"
        fail(name, value, f"a finite number {span}" if math.isinf(result) else f"a number {span}")
    return result


def choice(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return ``value`` if it is one of ``allowed``."""
    try:
        known = value in allowed
    except (ValueError, RuntimeError, TypeError):  # an array or tensor compares element by element
        known = False
    if not known:
        fail(name, value, "one of " + ", ".join(map(repr, allowed)))
    return value
