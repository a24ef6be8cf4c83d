"""Which notebooks, with which parameters: presets/*.yaml, -p overrides, and the checks on both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from labkit.checks import did_you_mean
from labkit.paths import ROOT

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


def read_yaml(path: Path, option: str) -> Any:
    """What a YAML file holds; ValueError says in one line what is wrong, where, for which option."""
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no text, or a date that is none
        problem = " ".join(str(error).split())
        raise ValueError(f"{option} must be valid YAML; {path} is not: {problem}") from None


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
            overrides[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ValueError(f"{name} must be a YAML value; got {value!r}") from None
    return overrides


def parameters_for(notebook: Path, preset: dict, overrides: dict[str, Any]) -> dict[str, Any]:
    """What to inject into ``notebook``.

    ValueError for an unknown name, a value of a wrong type or a file that is no notebook.
    """
    import papermill

    try:
        known = papermill.inspect_notebook(str(notebook))
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
        allowed = TYPES.get(wanted)
        wrong_bool = isinstance(value, bool) and wanted != "bool"
        if allowed and (wrong_bool or not isinstance(value, allowed)):
            raise ValueError(f"{name} must be a {wanted} for {notebook.stem}; got {value!r}")
    return chosen


def as_float(value: Any) -> Any:
    """ "1e-3" as 0.001: YAML, which wants 1.0e-3, reads it as a string. Anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
