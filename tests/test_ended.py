"""kill -TERM at random moments of a run and of a sweep: no process is left, and what follows is exact."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid

import pandas as pd
import psutil
import pytest
from notebook_maker import taking, write_notebook

MOMENTS = int(os.environ.get("LABKIT_MOMENTS", "3"))  # by hand: 10
SQUARE = """from pathlib import Path
from labkit.metrics import record
Path(begun).open("a").write(f"{size}\\n")
record("square", size**2)"""


def bearers(name):
    """Living processes with the environment variable ``name``; a container's init may leave zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if name in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_after(command, runs, seconds):
    """Start a command, end it after ``seconds``; (its exit code, what it said, what is left)."""
    name = f"LABKIT_TEST_{uuid.uuid4().hex}"
    process = subprocess.Popen(
        taking(signal.SIGTERM, sys.executable, "-m", "labkit", *command), text=True,
        env=os.environ | {"LABKIT_RUNS": str(runs), name: "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    deadline = time.monotonic() + 20  # a daemon of multiprocessing sees that its pipe was closed
    while (left := bearers(name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return process.returncode, said, left


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_what_is_ended_at_any_moment_leaves_no_process_and_is_gone_on_with(tmp_path, kind):
    """Executions that were kept are not made again, and the result is that of an undisturbed command."""
    begun, runs = tmp_path / "begun.txt", tmp_path / "runs"
    parameters = f"size: int = 3  # side\nbegun: str = {str(begun)!r}  # a line for each execution"
    books = [write_notebook(tmp_path / f"{n}.ipynb", SQUARE, parameters=parameters) for n in ("one", "two")]
    (tmp_path / "empty.yaml").write_text("{}\n")
    (tmp_path / "grid.yaml").write_text("size: [3, 4]\n")
    command = {
        "run": ["run", *map(str, books), "--resume"],
        "sweep": ["sweep", str(books[0]), "--grid", str(tmp_path / "grid.yaml"), "--jobs", "1"],
    }[kind] + ["--preset", str(tmp_path / "empty.yaml")]
    again = [sys.executable, "-m", "labkit", *command]
    start = time.monotonic()
    subprocess.run(again, env=os.environ | {"LABKIT_RUNS": str(tmp_path / "whole")}, check=True)
    whole = time.monotonic() - start  # the moments are spread over it, however busy the machine is
    begun.unlink()
    random.seed(19)
    for seconds in (whole * random.random() for _ in range(MOMENTS)):
        code, said, left = end_after(command, runs, seconds)
        print(
            f"{kind}: SIGTERM after {seconds:.2f} of {whole:.2f} s, exit {code}, {len(left)} processes left"
        )
        assert code in (143, -signal.SIGTERM, 0), said  # -15: before labkit could set a handler; 0: done
        assert not left, [process.cmdline() for process in left]
        assert "Traceback" not in said
    before = len(begun.read_text().split()) if begun.exists() else 0
    kept = len(list(runs.glob("cache/notebooks/*.json")))
    print(f"{kind}: {before} executions begun, {kept} kept")
    subprocess.run(again, env=os.environ | {"LABKIT_RUNS": str(runs)}, check=True)
    assert len(begun.read_text().split()) == before + 2 - kept
    if kind == "run":
        found = json.loads((runs / "latest" / "metrics.json").read_text())
        assert found == {"one": {"square": 9}, "two": {"square": 9}}
    else:
        table = pd.read_csv(max(runs.glob("2*/sweep.csv")))
        assert table[["size", "square"]].to_numpy().tolist() == [[3, 9], [4, 16]]
        assert table["error"].isna().all()
