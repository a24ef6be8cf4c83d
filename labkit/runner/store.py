"""Executed notebooks by content: the same source, parameters, code and device give the same key.

``labkit run --resume`` and sweeps look here before they execute; only finished runs are put in.
"""

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from labkit.device import class_of
from labkit.paths import ROOT, cache_dir, write_atomic
from labkit.provenance import kernel_threads, versions

CODE = (
    "labkit/**/*.py", "labkit/widgets/static/**/*", "labkit/checkpoints/**/*",
    "labkit/studies/*/results/**/*", "kernels/**/*.py", "kernels/**/*.json",
)  # fmt: skip


@cache
def code_digest() -> str:
    """SHA-256 over every file that can change what a notebook computes."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in CODE for path in ROOT.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint(notebook: Path, parameters: dict[str, Any]) -> str:
    """Key of one execution: cell sources and tags, parameters, package code, versions, device, threads."""
    cells = nbformat.read(notebook, as_version=4).cells
    content = {
        "cells": [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells],
        "parameters": parameters,
        "code": code_digest(),
        "versions": versions(),
        "device": class_of(parameters.get("device", "auto")),
        "threads": kernel_threads(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def get(key: str) -> tuple[Path, dict] | None:
    """(executed notebook, result) of a finished execution, or None."""
    folder = cache_dir("notebooks")
    notebook, result = folder / f"{key}.ipynb", folder / f"{key}.json"
    if not (notebook.is_file() and result.is_file()):
        return None
    return notebook, json.loads(result.read_text())


def put(key: str, notebook: Path, result: dict) -> None:
    """Keep a finished execution; the result goes last, so a killed writer leaves nothing that counts."""
    folder = cache_dir("notebooks")
    write_atomic(folder / f"{key}.ipynb", lambda temporary: shutil.copyfile(notebook, temporary))
    write_atomic(folder / f"{key}.json", lambda temporary: temporary.write_text(json.dumps(result)))
