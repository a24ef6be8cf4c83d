"""What one takes away from a run panel: its preset, the commands that use it, and who made the number."""

import html
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml
from traitlets import Unicode

from labkit.device import backend
from labkit.notebooks import parameters_for
from labkit.paths import NOTEBOOKS, ROOT
from labkit.provenance import provenance
from labkit.widgets.base import static
from labkit.widgets.esm import esm
from labkit.widgets.export import Instrument


class CopyText(Instrument):
    """A folded block with the preset as YAML and as shell commands, each with a button that copies it."""

    _entry = "copy_text.js"
    _esm = esm(_entry)
    _css = static("instrument.css")
    preset = Unicode().tag(sync=True)
    command = Unicode().tag(sync=True)
    problem = Unicode().tag(sync=True)


def preset(notebook: Path, values: Mapping[str, object]) -> tuple[str, str]:
    """(YAML, shell commands that write it and run ``notebook`` with it), from the checkout's folder if any.

    ValueError if a value is no parameter of the notebook or of a wrong type.
    """
    parameters_for(notebook, {}, dict(values))
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    path = notebook.relative_to(ROOT) if ROOT and notebook.is_relative_to(ROOT) else notebook
    ours = notebook.parent == NOTEBOOKS
    commands = (
        f"cat > preset.yaml <<'END'\n{text}END\n"
        f"LABKIT_HEADLESS=1 papermill {shlex.quote(str(path))} out.ipynb"
        f" --cwd {shlex.quote(str(path.parent))} -f preset.yaml\n"
        "# or, with checks and a report:\n"
        f"labkit run {shlex.quote(notebook.stem if ours else str(path))} --preset preset.yaml\n"
    )
    return text, commands


def strip(values: Mapping[str, object], seconds: float | None = None) -> str:
    """One line of HTML: device, backend, seed, versions, commit and how long the run took."""
    facts = provenance()
    versions = ", ".join(
        f"{name} {number}" for name, number in facts["versions"].items() if name != "labkit"
    )
    items = {
        "device": facts["device"],
        "backend": backend(),
        **({"seed": values["seed"]} if "seed" in values else {}),
        "versions": versions,
        "commit": facts["commit"],
        "ran": f"{seconds:.1f} s, {facts['time']}" if seconds is not None else "not yet",
    }
    words = " · ".join(f"<b>{key}</b> {html.escape(str(value))}" for key, value in items.items())
    style = "font-size:11px;line-height:1.5;color:var(--jp-ui-font-color2,#5b6270)"
    return f"<div class='labkit-provenance' style='{style}'>{words}</div>"
