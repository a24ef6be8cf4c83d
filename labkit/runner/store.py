"""Executed notebooks by content: the same source, parameters, code and device give the same key.

``labkit run --resume`` and sweeps look here before they execute; only finished runs are put in.
"""

import fcntl
import hashlib
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

from labkit.checks import number
from labkit.device import class_of
from labkit.light_nbformat import nbformat
from labkit.paths import BENCHES, KERNELS, PACKAGE, cache_dir, write_atomic, write_json
from labkit.provenance import kernel_threads, versions

CODE = (PACKAGE, KERNELS / "sparse24", KERNELS / "tokenstats", BENCHES)  # with checkpoints and records


@cache
def code_digest() -> str:
    """SHA-256 over every file that can change what a notebook computes."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted(folder.rglob("[!.]*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
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


def get(key: str) -> tuple[Path, float] | None:
    """(executed notebook, the seconds it took) of a finished execution, or None.

    A notebook or record that was cut off or edited counts as absent, and a line on stderr says so.
    """
    notebook, record = _files(key)
    try:
        found = json.loads(record.read_text())
        seconds = number("seconds", found["seconds"], 0)
        if found["sha256"] == _sha256(notebook):
            return notebook, seconds
    except FileNotFoundError:  # not put in, or not all of it
        return None
    except (ValueError, TypeError, KeyError):  # no JSON, or not what ``put`` wrote
        pass
    print(f"{record}: damaged, or its notebook is; it is executed again", file=sys.stderr)
    return None


def put(key: str, executed: Path, seconds: float) -> None:
    """Keep a finished execution; the record goes last, so a killed writer leaves nothing that counts.

    Of two that finish the same at once one waits, or the record could be of the other's notebook.
    """
    notebook, record = _files(key)
    with (notebook.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        write_atomic(notebook, lambda temporary: shutil.copyfile(executed, temporary))
        write_json(record, {"seconds": seconds, "sha256": _sha256(notebook)})


def _files(key: str) -> tuple[Path, Path]:
    folder = cache_dir("notebooks")
    return folder / f"{key}.ipynb", folder / f"{key}.json"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
