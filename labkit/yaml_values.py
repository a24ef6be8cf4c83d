"""Values that people type: YAML without surprises, and which of them JSON files keep as they are."""

import math
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from labkit.checks import whole
from labkit.reading import read_bytes

PLAIN = "null, a bool, a finite number, text, a list or a mapping with text as keys"  # what JSON can keep
DEPTH_LIMIT = 20  # lists in lists; Python reads 200
YAML_BYTES = 2**24  # 16 MiB of a file: more than a million values, and PyYAML reads 1 MB in about 10 s
VALUE_LIMIT = 1_000_000  # YAML's anchors write 10^9 values in ten lines
INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
INT_BITS = 1024  # as far as a float reaches
brief = reprlib.Repr()
brief.maxstring = brief.maxother = 100


class Date(str):
    """A date or time that stood unquoted in YAML, as it was written."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without objects, but numbers are those of YAML 1.2 and Python, and a date keeps its text.

    So 1e-3, -.5 and 0o17 are numbers; 010 (octal in 1.1) and 12:30 (750 in 1.1) are text. A key that stands
    twice in a mapping is an error, for one of its values would be lost.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ValueError(f"the key {brief.repr(key.value)} stands twice in a mapping")
                seen.add(key.value)
        return node

    def construct_date(self, node: yaml.ScalarNode) -> Date:
        self.construct_yaml_timestamp(node)  # ValueError for 2020-13-45
        return Date(node.value)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_date)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in pairs if tag not in (INT, FLOAT)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
WHOLE = r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)$"
REAL = (
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
for tag, form in ((INT, WHOLE), (FLOAT, REAL)):
    _Loader.add_implicit_resolver(tag, re.compile(form), list("-+.0123456789"))


def read_yaml(path: Path, option: str) -> Any:
    """What a YAML file holds; ValueError says in one line what is wrong, where, for which option."""
    try:
        return load_yaml(read_bytes(path, YAML_BYTES, option).decode())
    except ValueError as error:  # also bytes that are no text
        raise ValueError(f"{option} must be valid YAML; {path} is not: {error}") from None


def load_yaml(text: str) -> Any:
    """What YAML text holds; ValueError says in one line what is wrong with it, or that it is too deep."""
    try:
        value = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError(f"it nests deeper than {DEPTH_LIMIT}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: for instance a date that is none
        raise ValueError(" ".join(str(error).split())) from None
    except (AttributeError, LookupError, TypeError) as error:  # PyYAML's own, at `!!bool x`
        raise ValueError(f"a value does not fit its tag ({type(error).__name__}: {error})") from None
    for _ in walk(value):
        pass
    return value


def walk(value: Any) -> Iterator[Any]:
    """``value`` and all that its lists and mappings hold, keys too; ValueError if too deep or too many."""
    found, waiting = 0, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        found += 1
        if depth > DEPTH_LIMIT:  # a value that holds itself ends here
            raise ValueError(f"it nests deeper than {DEPTH_LIMIT}")
        if found > VALUE_LIMIT:
            raise ValueError(f"it holds more than {VALUE_LIMIT} values")
        yield item
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set):
            waiting += [(part, depth + 1) for part in item]


def parse_overrides(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """``-p name value`` pairs; values are YAML, so ``false`` is False and ``[1, 2]`` a list."""
    overrides = {}
    for name, value in pairs:
        try:
            overrides[name] = load_yaml(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a YAML value; got {brief.repr(value)}: {error}") from None
    return overrides


def not_plain(value: Any) -> str:
    """Why ``value`` would not come into the notebook, and out of its JSON files, as it is; else empty."""
    if isinstance(value, Date):
        return f"the date {value}; its text is \"'{value}'\""
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str)]
        return f"the key {brief.repr(odd[0])}" if odd else ""
    if isinstance(value, int) and value.bit_length() > INT_BITS:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str) and not whole(value):
        return f"text with half a character, {brief.repr(value)}"
    fine = isinstance(value, None | int | str | list) or (isinstance(value, float) and math.isfinite(value))
    return "" if fine else brief.repr(value)


def as_float(value: Any) -> Any:
    """Text that is a number, such as the quoted "1e-3" or "inf", as that number; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
