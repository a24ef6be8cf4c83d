"""One notebook, one process: ``python -m labkit.runner.execute SOURCE TARGET PARAMETERS.json``.

Exit code 0 when every cell ran, 1 otherwise; TARGET holds what was executed either way.
"""

import json
import logging
import os
import sys
import traceback
from pathlib import Path

from labkit.light_nbformat import nbformat  # before papermill, which imports it too
from labkit.paths import runs_dir, write_atomic
from labkit.provenance import kernel_threads
from labkit.runner.processes import end_children_on_signals

START_TIMEOUT = 120
START_ATTEMPTS = 3
FAILED = "failed: "  # begins the line that tells the runner the error
WIDGET = "application/vnd.jupyter.widget-view+json"
VISUAL = ("image/png", "image/svg+xml", "application/vnd.plotly.v1+json", "text/html")


def drop_widget_views(notebook) -> None:
    """Remove widget views where the same output has a picture; their state is not stored."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data and any(kind in data for kind in VISUAL):
                del data[WIDGET]


def execute(source: str, target: str, parameters: dict) -> str:
    """Run SOURCE with papermill in its own folder; returns the error, empty when all cells ran."""
    import papermill

    from labkit.runner import engine

    runs = str(runs_dir())  # of this process: the kernel's own ./runs would lie beside the notebook
    os.environ |= {"LABKIT_HEADLESS": "1", "LABKIT_RUNS": runs, "OMP_NUM_THREADS": kernel_threads()}
    for attempt in range(START_ATTEMPTS):
        try:
            failure = ""
            papermill.execute_notebook(
                _as_is(source),
                _as_is(target),
                parameters=parameters,
                engine_name=engine.NAME,
                cwd=str(Path(source).resolve().parent),
                progress_bar=False,
                log_output=True,
                start_timeout=START_TIMEOUT,
                store_widget_state=False,
                extra_arguments=["--log-level=50"],  # its shutdown calls an interrupt an error
            )
        except papermill.PapermillExecutionError as error:
            failure = _one_line(error.ename, error.evalue)
        except (RuntimeError, TimeoutError) as error:  # a dead kernel: the saved cells all look completed
            failure = _one_line(type(error).__name__, error)
            # Kernels that start at the same moment can pick the same port. No cell has run yet.
            if "Kernel died before replying" in str(error) and attempt < START_ATTEMPTS - 1:
                continue
        break
    notebook = nbformat.read(target, as_version=4)
    drop_widget_views(notebook)
    write_atomic(target, lambda temporary: nbformat.write(notebook, temporary))
    return failure


def _one_line(name: str, message: object) -> str:
    """The runner reads one line, and a log shows it."""
    return " ".join(f"{name}: {message}".split())


def _as_is(path: str) -> str:
    """Papermill takes braces in a path for places of parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    end_children_on_signals()
    source, target, parameters = sys.argv[1:]
    try:
        failure = execute(source, target, json.loads(Path(parameters).read_text()))
    except Exception as error:
        traceback.print_exc()
        failure = _one_line(type(error).__name__, error)
    if failure:
        print(FAILED + failure)
        sys.exit(1)
