"""Long proofs that the test bench neither flakes nor grows; too long for CI.

    python tests/soak.py repeats [20]    smoke runs in a row: each must pass, all metrics must agree
    python tests/soak.py points [500]    points of a trivial notebook: memory must not grow
    python tests/soak.py widgets [20]    minutes of every instrument in use: nor memory, comms, threads

They run at low priority, print a table and exit 1 if the claim does not hold.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from notebook_maker import write_notebook
from rich.console import Console
from rich.table import Table

GROWTH = 1.05  # last quarter over second quarter of the run; the first quarter loads modules
console = Console(width=110)


def repeats(count: int) -> bool:
    """Run every notebook ``count`` times from one cache of models; compare all with the first run."""
    first: dict[str, float] = {}
    table = Table("run", "exit", "seconds", "metrics", "largest relative change", box=None)
    fine = True
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        for number in range(1, count + 1):
            begin = time.monotonic()
            command = [sys.executable, "-m", "labkit", "run", "--preset", "smoke", "--jobs", "2"]
            done = subprocess.run(command, env={**os.environ, "LABKIT_RUNS": folder}, capture_output=True)
            books = json.loads((Path(folder) / "latest" / "metrics.json").read_text())
            values = {f"{book}/{name}": v for book, metrics in books.items() for name, v in metrics.items()}
            first = first or values
            change = max(abs(values.get(k, np.inf) - v) / max(abs(v), 1e-12) for k, v in first.items())
            same = values.keys() == first.keys()
            fine &= done.returncode == 0 and same
            seconds = time.monotonic() - begin
            table.add_row(
                str(number), str(done.returncode), f"{seconds:.0f}", str(len(values)), f"{change:.2g}"
            )
            console.print(f"run {number}: exit {done.returncode}, {seconds:.0f} s, change {change:.2g}")
            if done.returncode:
                console.print(done.stdout.decode()[-2000:], markup=False)
    console.print(table)
    return fine


def points(count: int) -> bool:
    """Sweep ``count`` points on two workers; the resident memory of runner and workers, in MB, by time."""
    from labkit.runner.sweep import sweep

    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(2):
            samples.append((time.monotonic(), _resident()))

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["LABKIT_RUNS"] = folder
        book = write_notebook(
            Path(folder) / "trivial.ipynb",
            "from labkit.metrics import record",
            "record('double', 2.0 * size)",
            parameters="size: int = 1  # side",
        )
        preset = Path(folder) / "empty.yaml"
        preset.write_text("{}\n")
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            _, rows = sweep(str(book), {"size": list(range(count))}, str(preset))
        finally:
            ended.set()
            thread.join()
    right = bool((rows["error"] == "").all() and (rows["double"] == 2 * rows["size"]).all())
    quarters = [np.median([mb for _, mb in part]) for part in np.array_split(np.array(samples), 4)]
    table = Table("points", "right", "seconds", *(f"MB, quarter {i}" for i in range(1, 5)), box=None)
    took = samples[-1][0] - samples[0][0]
    table.add_row(str(len(rows)), str(right), f"{took:.0f}", *(f"{mb:.0f}" for mb in quarters))
    console.print(table)
    return right and quarters[3] <= GROWTH * quarters[1]


def widgets(minutes: int) -> bool:
    """Cells run again and controls moved for ``minutes``; MB and counts of what is open, by time."""
    from comm import get_comm_manager
    from ipywidgets.widgets.widget import _instances
    from matplotlib import pyplot
    from widget_use import use

    samples: list[tuple[float, ...]] = []
    end = time.monotonic() + 60 * minutes
    for _ in use():
        comms = get_comm_manager().comms
        counts = len(_instances), len(comms), threading.active_count(), len(pyplot.get_fignums())
        samples.append((_resident(), *counts))
        if time.monotonic() > end:
            break
    table = Table("rounds", "of", *(f"quarter {i}" for i in range(1, 5)), box=None)
    quarters = np.array([np.median(part, 0) for part in np.array_split(np.array(samples), 4)])
    names = ("MB", "widgets", "comms", "threads", "figures")
    for name, values in zip(names, quarters.T, strict=True):
        table.add_row(str(len(samples)), name, *(f"{value:.0f}" for value in values))
    console.print(table)
    flat = (quarters[3, 1:] <= quarters[1, 1:]).all()
    return bool(flat and quarters[3, 0] <= GROWTH * quarters[1, 0])


def _resident() -> float:
    """Resident MB of this process and its dask workers, without the kernels that come and go."""
    total = 0
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        try:
            if not any("ipykernel" in word for word in process.cmdline()):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return total / 2**20


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("proof", choices=["repeats", "points", "widgets"])
    arguments.add_argument("count", type=int, nargs="?")
    chosen = arguments.parse_args()
    os.nice(10)
    prove, count = {"repeats": (repeats, 20), "points": (points, 500), "widgets": (widgets, 20)}[
        chosen.proof
    ]
    sys.exit(0 if prove(chosen.count or count) else 1)
