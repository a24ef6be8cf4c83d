"""The **Cost.** line of a notebook: what its baselines' runs took, on which device."""

from pathlib import Path

from labkit.light_nbformat import nbformat
from labkit.paths import write_atomic
from labkit.runner import baselines

START = "**Cost.** "
DEVICES = {"cpu": "a CPU", "cuda": "a GPU"}


def line(notebook: str) -> str:
    """The line for a notebook's stem: each preset, on each device that has a baseline."""
    told = []
    for preset in ("smoke", "full"):
        paths = {device: baselines.path_of(notebook, preset, device) for device in DEVICES}
        found = {device: baselines.load(path) for device, path in paths.items() if path.is_file()}
        took = [f"{one['seconds']:.0f} s on {_where(kind, one['recorded'])}" for kind, one in found.items()]
        rest = [
            f"; on {words} not measured" for kind, words in DEVICES.items() if found and kind not in found
        ]
        told.append(f"{preset.capitalize()} preset: {', '.join(took) or 'not measured'}{''.join(rest)}")
    return START + ". ".join(told) + "."


def _where(device: str, recorded: dict[str, str]) -> str:
    if device == "cuda":
        return f"an {recorded['processor']}"
    threads = recorded["threads"]
    return "one CPU core" if threads == "1" else f"{threads} CPU threads"


def write(path: Path) -> None:
    """Put the line into a notebook of the lab, in place of the one that stands there."""
    content = nbformat.read(path, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "markdown" and START in cell.source:
            before, old = cell.source.split(START)
            _, newline, after = old.partition("\n")
            cell.source = before + line(path.stem) + newline + after
    write_atomic(path, lambda temporary: nbformat.write(content, temporary))
