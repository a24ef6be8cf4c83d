"""The lab's notebooks: which there are, and which parameters each takes."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.checks import did_you_mean
from labkit.paths import ROOT
from labkit.yaml_values import PLAIN, Date, as_float, brief, not_plain, walk

NOTEBOOKS = ROOT / "notebooks"
TYPES = {"bool": bool, "int": int, "float": (int, float), "str": str, "list": list, "dict": dict}


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
        elif isinstance(value, Date) and (wanted == "str" or _is_text(known[name]["default"])):
            value = chosen[name] = str(value)
        allowed = TYPES.get(wanted)
        wrong_bool = isinstance(value, bool) and wanted != "bool"
        if allowed and (wrong_bool or not isinstance(value, allowed)):
            raise ValueError(f"{name} must be a {wanted} for {notebook.stem}; got {brief.repr(value)}")
        try:
            problem = next(filter(None, map(not_plain, walk(value))), "")
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
