"""Run pytest many times, each in a fork of one process that has imported the large packages.

    python tests/pytest_server.py PACKAGE...

It runs in the folder of a project. A line on stdin asks for one run, as JSON:
{"environment": {name: value, ...}, "arguments": [pytest's, ...]}. Two lines on stdout answer: at once the
number of the run's process, then its exit code. What a run prints goes to stderr.

A fork has no PACKAGE imported, and ends unless each of them would be imported from the project's folder.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import psutil

# Not pandas: it starts a thread. Not plotly: where it is, conftest.py sets its template after each test.
LARGE = (
    "conftest",  # first: it sets what Triton reads when it is imported
    "hypothesis.strategies",
    "ipywidgets",
    "jupyter_client.manager",
    "matplotlib.pyplot",
    "nbformat",
    "scipy.stats",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "triton",
)


def serve(packages: list[str]) -> None:
    """Answer until stdin ends. SystemExit if an import has started a thread, which no fork would have."""
    for name in LARGE:
        with contextlib.suppress(ImportError):  # the tests say what they cannot do without
            importlib.import_module(name)
    if (threads := psutil.Process().num_threads()) != 1:
        sys.exit(f"only a process with 1 thread is forked; this one has {threads}")
    keep_the_first_example()
    gc.freeze()  # or the first collection in each fork would write to, and so copy, all that they share
    for line in sys.stdin:
        if not (child := os.fork()):
            sys.exit(run(packages, **json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def keep_the_first_example() -> None:
    """A fault is caught by any example: hypothesis need not look for the smallest, which takes seconds."""
    if hypothesis := sys.modules.get("hypothesis"):
        phases = [phase for phase in hypothesis.Phase if phase.name in ("explicit", "generate")]
        hypothesis.settings.register_profile("first", phases=phases)
        hypothesis.settings.load_profile("first")


def run(packages: list[str], environment: dict[str, str], arguments: list[str]) -> int:
    """pytest's exit code, in this process; stdout and stdin are no longer the server's."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.environ |= environment
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is None or not Path(found.origin).is_relative_to(Path.cwd()):
            sys.exit(f"{package} must be imported from {Path.cwd()}; found {found}")
    return importlib.import_module("pytest").main(arguments)


if __name__ == "__main__":
    serve(sys.argv[1:])
