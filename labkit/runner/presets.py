"""Named sets of parameters: notebooks/presets/*.yaml, or any YAML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.checks import did_you_mean
from labkit.notebooks import find_notebooks
from labkit.paths import NOTEBOOKS
from labkit.yaml_values import read_yaml


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
