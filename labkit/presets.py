"""Which notebooks, with which parameters: presets/*.yaml, -p overrides, and the checks on both."""

import ast
import math
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from labkit.checks import did_you_mean
from labkit.paths import ROOT

NOTEBOOKS = ROOT / "notebooks"
TYPES = {"bool": bool, "int": int, "float": (int, float), "str": str, "list": list, "dict": dict}
PLAIN = "null, a bool, a finite number, text, a list or a mapping with text as keys"  # what JSON can keep
DEPTH_LIMIT = 20  # lists in lists; Python reads 200
VALUE_LIMIT = 1_000_000  # YAML's anchors write 10^9 values in ten lines
INT_BITS = 1024  # as far as a float reaches
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 100


class _Date(str):
    """A date or time that stood unquoted in YAML, as it was written."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without objects, but 1e-3 and -.5 are numbers, and a date keeps its text."""

    def construct_date(self, node: yaml.Node) -> _Date:
        self.construct_yaml_timestamp(node)  # ValueError for 2020-13-45
        return _Date(node.value)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_date)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$|[-+]\.\d+$"),
    list("-+.0123456789"),
)


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """Paths for ``names`` (a path, a stem or its number: ``03``); all notebooks if none is named."""
    known = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not names:
        return known
    found: dict[str, Path] = {}
    for name in names:
        matches = [path for path in known if path.stem == name or path.stem.split("_")[0] == name]
        if Path(name).suffix == ".ipynb" and Path(name).is_file():
            matches = [Path(name).resolve()]
        if len(matches) != 1:
            stems = ", ".join(path.stem for path in known)
            raise ValueError(f"NOTEBOOK must be a .ipynb file or one of {stems}; got {name!r}")
        if found.setdefault(matches[0].stem, matches[0]) != matches[0]:
            raise ValueError(f"NOTEBOOK must be of another name than the others; got {name!r} twice")
    return list(found.values())


def read_yaml(path: Path, option: str) -> Any:
    """What a YAML file holds; ValueError says in one line what is wrong, where, for which option."""
    try:
        return load_yaml(path.read_text())
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
    for _ in _walk(value):
        pass
    return value


def _walk(value: Any) -> Iterator[Any]:
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


def load_preset(preset: str, notebooks: Sequence[Path] = ()) -> dict[str, dict[str, Any]]:
    """{notebook stem: {parameter: value}} from presets/<preset>.yaml or a YAML file.

    A flat file (parameters at the top, as "Copy as preset" writes it) applies to every notebook
    of the run: it is returned under the key ``*``. A stem that is neither a notebook of the lab nor one
    of ``notebooks`` is refused, for its parameters would go unused.
    """
    path = NOTEBOOKS / "presets" / f"{preset}.yaml"
    if not path.exists():
        path = Path(preset)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in (NOTEBOOKS / "presets").glob("*.yaml")))
        raise ValueError(f"preset must be one of {names} or a YAML file; got {preset!r}")
    content = read_yaml(path, "preset") or {}
    if not isinstance(content, dict):
        raise ValueError(f"preset must be a mapping; {path} holds a {type(content).__name__}")
    if not any(isinstance(value, dict) for value in content.values()):
        return {"*": content}
    stems = {path.stem for path in (*find_notebooks(), *notebooks)}
    for stem, values in content.items():
        if stem not in stems:
            hint = did_you_mean(stem, stems)
            raise ValueError(f"preset must name notebooks that exist; {path} names {stem!r}{hint}")
        if not isinstance(values, dict | None):
            raise ValueError(
                f"preset must hold one mapping of parameters per notebook; {path} has {stem}: {values!r}"
            )
    return {stem: values or {} for stem, values in content.items()}


def parse_overrides(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """``-p name value`` pairs; values are YAML, so ``false`` is False and ``[1, 2]`` a list."""
    overrides = {}
    for name, value in pairs:
        try:
            overrides[name] = load_yaml(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a YAML value; got {_brief.repr(value)}: {error}") from None
    return overrides


def parameters_for(notebook: Path, preset: dict, overrides: dict[str, Any]) -> dict[str, Any]:
    """What to inject into ``notebook``.

    ValueError for an unknown name, a value of a wrong type or one that would not arrive unchanged, and for
    a file that is no notebook.
    """
    import nbformat
    import papermill

    try:  # read here, for in a path papermill takes braces for places of parameters
        known = papermill.inspect_notebook(nbformat.read(notebook, as_version=4))
    except Exception as error:  # a damaged file makes nbformat stumble in many ways
        problem = " ".join(str(error).split())
        raise ValueError(f"NOTEBOOK must be a valid notebook; {notebook} is not: {problem}") from None
    chosen = {**preset.get("*", {}), **preset.get(notebook.stem, {}), **overrides}
    for name, value in chosen.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(
                f"parameter must be one of {', '.join(known) or '(none)'} "
                f"for {notebook.stem}; got {name!r}{hint}"
            )
        wanted = known[name]["inferred_type_name"]
        if wanted == "float":
            value = chosen[name] = as_float(value)
        elif isinstance(value, _Date) and (wanted == "str" or _is_text(known[name]["default"])):
            value = chosen[name] = str(value)
        allowed = TYPES.get(wanted)
        wrong_bool = isinstance(value, bool) and wanted != "bool"
        if allowed and (wrong_bool or not isinstance(value, allowed)):
            raise ValueError(f"{name} must be a {wanted} for {notebook.stem}; got {_brief.repr(value)}")
        try:
            problem = next(filter(None, map(_not_plain, _walk(value))), "")
        except ValueError as error:
            problem = f"one that is too big: {error}"
        if problem:
            raise ValueError(f"{name} must be {PLAIN} for {notebook.stem}; got {problem}")
    return chosen


def _is_text(default: str) -> bool:
    """Whether a default, given as its source, is a string."""
    try:
        return isinstance(ast.literal_eval(default), str)
    except (SyntaxError, ValueError):
        return False


def _not_plain(value: Any) -> str:
    """Why ``value`` would not come into the notebook, and out of its JSON files, as it is; else empty."""
    if isinstance(value, _Date):
        return f"the date {value}; its text is \"'{value}'\""
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str)]
        return f"the key {_brief.repr(odd[0])}" if odd else ""
    if isinstance(value, int) and value.bit_length() > INT_BITS:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"text with half a character, {_brief.repr(value)}"
    fine = isinstance(value, None | int | str | list) or (isinstance(value, float) and math.isfinite(value))
    return "" if fine else _brief.repr(value)


def as_float(value: Any) -> Any:
    """Text that is a number, such as the quoted "1e-3" or "inf", as that number; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
