"""Tiny notebooks, and a run of one, for the runner's tests."""

import json
import sys
from pathlib import Path

import nbformat


def write_notebook(path: Path, *cells: str, parameters: str = "") -> Path:
    """Write a notebook with a heading, a tagged parameters cell and ``cells``."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    heading = nbformat.v4.new_markdown_cell(f"# About {path.stem}")
    book = nbformat.v4.new_notebook(cells=[heading, tagged, *map(nbformat.v4.new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def write_run(folder: Path, *cells: nbformat.NotebookNode) -> Path:
    """A finished run of the notebook ``n`` of ``cells``: its folder with run.json and the notebook."""
    item = {
        "notebook": "n", "parameters": {}, "seconds": 1.0, "error": "", "ours": False, "metrics": {},
        "cached": False, "baseline": {}, "verdicts": {},
    }  # fmt: skip
    origin = {"versions": {}, "device": "a CPU", "commit": "abc", "time": "2026-01-01T12:30:00+00:00"}
    run = {"preset": "smoke", "overrides": {}, "device_class": "cpu", "seconds": 1.0, "provenance": origin}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**run, "notebooks": [item]}))
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), folder / "n.ipynb")
    return folder


def displayed(*outputs: dict) -> nbformat.NotebookNode:
    """An executed cell that displayed these mimebundles."""
    cell = nbformat.v4.new_code_cell("cell")
    cell.outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
    return cell


def taking(number: int, *command: str) -> list[str]:
    """``command`` with a signal as by default: a suite started in the background of a shell ignores some.

    subprocess's own preexec_fn runs in a fork, whose locks threads of pytest's process may have held.
    """
    code = "import os, signal, sys; signal.signal({}, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", code.format(int(number)), *command]
