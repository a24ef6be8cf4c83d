"""One notebook, one process: ``python -m labkit.runner.execute SOURCE TARGET PARAMETERS.json``.

Exit code 0 when every cell ran, 1 otherwise; TARGET holds what was executed either way. Papermill's engine,
with an upper size for what a notebook prints.
"""

import json
import logging
import os
import sys
import traceback
from pathlib import Path

from labkit.light_nbformat import WIDGET, nbformat  # before papermill, which imports it too

# isort: split
import papermill
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

from labkit.paths import runs_dir, write_atomic
from labkit.provenance import kernel_threads
from labkit.runner.processes import FAILED, end_children_on_signals

ENGINE = "labkit"
PRINTED = 10_000_000  # characters, all cells of a notebook
CUT = "\n[cut by labkit: a notebook may print {:,} characters]\n"
START_TIMEOUT = 120
IOPUB_TIMEOUT = 600  # seconds between a cell's end and its last output: 200 MB take more than nbclient's 4
START_ATTEMPTS = 3
VISUAL = ("image/png", "image/svg+xml", "application/vnd.plotly.v1+json", "text/html")


class Client(PapermillNotebookClient):
    """Keeps the first ``PRINTED`` characters of the streams; results, figures and errors are all kept."""

    room: int | None = None  # characters; None: the notebook has not printed yet

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int):
        if msg["msg_type"] == "stream":
            room, text = PRINTED if self.room is None else self.room, msg["content"]["text"]
            if room < 0:
                return None
            if len(text) > room:
                msg["content"]["text"] = text[:room] + CUT.format(PRINTED)
            self.room = -1 if len(text) > room else room - len(text)
        try:
            return super().output(outs, msg, display_id, cell_index)
        except nbformat.ValidationError as error:  # no mimebundle: it costs itself alone
            text = f"[labkit: an output is damaged and left out: {error.message}]\n"
            outs.append(nbformat.v4.new_output("stream", name="stderr", text=text))
            return None


class Engine(NBClientEngine):
    """What papermill's own engine does, with ``Client``."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, start_timeout, input_path="", **options):
        options |= {"startup_timeout": start_timeout, "log": logger, "timeout": None}
        options["iopub_timeout"] = IOPUB_TIMEOUT
        return Client(nb_man, kernel_name=kernel_name, **options).execute()


papermill_engines.register(ENGINE, Engine)


def drop_widget_views(notebook) -> None:
    """Remove widget views where the same output has a picture; their state is not stored."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data and any(kind in data for kind in VISUAL):
                del data[WIDGET]


def execute(source: str, target: str, parameters: dict) -> str:
    """Run SOURCE with papermill in its own folder; returns the error, empty when all cells ran."""
    runs = str(runs_dir())  # of this process: the kernel's own ./runs would lie beside the notebook
    os.environ |= {"LABKIT_HEADLESS": "1", "LABKIT_RUNS": runs, "OMP_NUM_THREADS": kernel_threads()}
    for attempt in range(START_ATTEMPTS):
        try:
            failure = ""
            papermill.execute_notebook(
                _as_is(source),
                _as_is(target),
                parameters=parameters,
                engine_name=ENGINE,
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
    # a half character cannot be told
    text = f"{name}: {message}".encode(errors="backslashreplace").decode()
    return " ".join(text.split())


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
