"""The lab's notebooks: which there are, and which parameters each takes."""

import ast
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.checks import did_you_mean, fail
from labkit.light_nbformat import nbformat
from labkit.paths import NOTEBOOKS
from labkit.reading import DATA_BYTES, read_bytes
from labkit.yaml_values import PLAIN, Date, as_float, brief, not_plain, walk

TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "list": list,
    "dict": dict,
}
RANGE = re.compile(r"\((?:(?P<low>\S+) to (?P<high>\S+)|at least (?P<least>\S+))\)$")


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
            fail("NOTEBOOK", name, f"a .ipynb file or one of {', '.join(path.stem for path in known)}")
        if found.setdefault(matches[0].stem, matches[0]) != matches[0]:
            raise ValueError(f"NOTEBOOK must be of another name than the others; got {name!r} twice")
    return list(found.values())


def copy_notebooks(folder: Path) -> list[Path]:
    """Write copies of the notebooks and presets, to edit; ValueError unless ``folder`` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail("FOLDER", str(folder), "a new or empty folder")
    sources = [*find_notebooks(), *sorted(NOTEBOOKS.glob("presets/*.yaml"))]
    copies = [folder / source.relative_to(NOTEBOOKS) for source in sources]
    for source, copy in zip(sources, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    return copies


def describe(notebook: Path) -> dict[str, Any]:
    """{"notebook": stem, "title", "parameters": [{"name", "type", "default", "meaning"}]}, all text.

    A default is Python source; its meaning is the comment behind it.
    """
    keys = {"name": "name", "type": "inferred_type_name", "default": "default", "meaning": "help"}
    known = _inspect(notebook).values()
    return {
        "notebook": notebook.stem,
        "title": title(read_notebook(notebook).cells),
        "parameters": [{ours: one[theirs] for ours, theirs in keys.items()} for one in known],
    }


def title(cells: Sequence[Any]) -> str:
    """The first markdown heading; empty without one."""
    for cell in cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("#") and "papermill-error" not in line:
                return line.lstrip("# ").strip()
    return ""


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook, brought to format 4; ValueError for a file that is none, or too big."""
    content = read_bytes(path, DATA_BYTES, "NOTEBOOK")
    try:
        book = nbformat.reads(content.decode(), as_version=4)
        for cell in book.cells:  # what does not fit its schema is only logged
            parts = cell.cell_type, cell.source, *cell.metadata.get("tags", [])
            if not all(isinstance(part, str) for part in parts):
                raise ValueError("a cell's type, source and tags must be text")
        return book
    except Exception as error:  # a damaged file makes nbformat stumble in many ways
        problem = " ".join(str(error).split())
        raise ValueError(f"NOTEBOOK must be a valid notebook; {path} is not: {problem}") from None


def _inspect(notebook: Path) -> dict[str, dict[str, str]]:
    """Papermill's reading of the parameters cell; ValueError for a file that is no notebook."""
    import papermill

    # read here, for in a path papermill takes braces for places of parameters
    return papermill.inspect_notebook(read_notebook(notebook))


def parameters_for(notebook: Path, preset: dict, overrides: dict[str, Any]) -> dict[str, Any]:
    """What to inject into ``notebook``.

    ValueError for an unknown name, a value of a wrong type, out of the range that its comment ends with or
    one that would not arrive unchanged, and for a file that is no notebook.
    """
    known = _inspect(notebook)
    chosen = {**preset.get("*", {}), **preset.get(notebook.stem, {}), **overrides}
    for name, value in chosen.items():
        if name not in known:
            allowed = f"one of {', '.join(known) or '(none)'} for {notebook.stem}"
            raise ValueError(f"parameter must be {allowed}; got {name!r}{did_you_mean(name, known)}")
        wanted = known[name]["inferred_type_name"]
        if wanted == "float":
            value = chosen[name] = as_float(value)
        elif isinstance(value, Date) and (wanted == "str" or _is_text(known[name]["default"])):
            value = chosen[name] = str(value)
        kinds = TYPES.get(wanted)
        wrong_bool = isinstance(value, bool) and wanted != "bool"
        if kinds and (wrong_bool or not isinstance(value, kinds)):
            raise ValueError(f"{name} must be a {wanted} for {notebook.stem}; got {brief.repr(value)}")
        _check_range(name, value, known[name]["help"])
        try:
            problem = next(filter(None, map(not_plain, walk(value))), "")
        except ValueError as error:
            problem = f"one that is too big: {error}"
        if problem:
            raise ValueError(f"{name} must be {PLAIN} for {notebook.stem}; got {problem}")
    return chosen


def _check_range(name: str, value: Any, meaning: str) -> None:
    """ValueError unless a number, or each of a list, lies where its comment's end says: (1 to 16)."""
    found = RANGE.search(meaning)
    for item in value if isinstance(value, list) else [value]:
        if found and isinstance(item, (int, float)):
            low, high = float(found["low"] or found["least"]), float(found["high"] or "inf")
            if not low <= item <= high:
                fail(name, item, found[0].strip("()"))


def _is_text(default: str) -> bool:
    try:
        return isinstance(ast.literal_eval(default), str)
    except (SyntaxError, ValueError):
        return False
