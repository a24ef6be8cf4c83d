"""Execute notebooks through papermill, one process each, and leave one folder: runs/<stamp>/.

<stem>.ipynb  the executed copy (also of a failed notebook)   <stem>.log  what it printed
metrics.json  {notebook: {metric: value}}                     run.json    parameters, durations
report.html   what failed, what moved, findings, figures      <stem>.html  a notebook as a page
../latest     points here
"""

import datetime
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from labkit.checks import fail, integer, number
from labkit.device import Memory, class_of
from labkit.light_nbformat import nbformat
from labkit.metrics import read_inputs, read_metrics
from labkit.notebooks import find_notebooks, parameters_for
from labkit.paths import NOTEBOOKS, runs_dir, write_json
from labkit.provenance import device_name, provenance, setting
from labkit.runner import baselines, store
from labkit.runner.presets import load_preset
from labkit.runner.processes import FAILED, follow

NOTEBOOK_TIMEOUT = 1800.0  # seconds


@dataclass
class NotebookRun:
    """One executed notebook: what went in, what came out, how long it took (seconds)."""

    notebook: str
    parameters: dict[str, Any]
    seconds: float = 0.0
    gpu_memory: int = 0  # MiB that all processes held on the GPUs at most meanwhile; 0: no GPU
    error: str = ""
    ours: bool = False  # from notebooks/: baselines apply to these alone
    metrics: dict[str, dict] = field(default_factory=dict)
    cached: bool = False  # taken from an earlier finished execution (--resume)
    inputs: dict[str, str] = field(default_factory=dict)  # fingerprints of what the code does not fix
    baseline: dict[str, dict] = field(default_factory=dict)  # empty: none applies
    verdicts: dict[str, str] = field(default_factory=dict)  # metric -> ok, regressed, missing, new
    origin: str = ""  # where the baseline was recorded, if it applies

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def values(self) -> dict[str, float]:
        return {name: metric["value"] for name, metric in self.metrics.items()}

    def read(self, executed: Path) -> None:
        self.metrics, self.inputs = read_metrics(executed), read_inputs(executed)

    def compare(self, setting: dict[str, str]) -> None:
        """Fill in the verdicts, if a baseline applies to what was executed in ``setting``."""
        if self.baseline and self.ok:
            self.verdicts = baselines.compare(self.values, self.baseline["metrics"])
            self.origin = baselines.origin(self.baseline["recorded"], setting | self.inputs)


def run(
    names: Sequence[str] = (),
    preset: str = "smoke",
    overrides: dict[str, Any] | None = None,
    jobs: int = 1,
    timeout: float = NOTEBOOK_TIMEOUT,
    resume: bool = False,
) -> tuple[Path, list[NotebookRun]]:
    """Execute notebooks and write the report; returns (folder, one NotebookRun each).

    jobs      notebooks at a time
    timeout   seconds for one notebook, however they spread over its cells

    Every argument and baseline is checked before the first notebook starts: ValueError, nothing
    written. A failing notebook does not stop the others. With ``resume``, executions that already
    finished with the same source, parameters, code and device are taken as they are.
    Baselines apply to the lab's own notebooks with a named preset and no override but ``device``.
    """
    from labkit.runner.report import write_report

    integer("jobs", jobs, 1)
    number("timeout", timeout, 1, threading.TIMEOUT_MAX)
    paths = find_notebooks(names)
    values = load_preset(preset, paths)
    overrides = overrides or {}
    runs = [NotebookRun(path.stem, parameters_for(path, values, overrides)) for path in paths]
    kind = class_of(overrides.get("device", "auto"))
    for path, item in zip(paths, runs, strict=True):
        item.ours = path.parent == NOTEBOOKS
        known = baselines.path_of(item.notebook, preset, kind)
        if item.ours and not overrides.keys() - {"device"} and known.is_file():
            item.baseline = baselines.load(known)
    latest = runs_dir() / "latest"
    if latest.exists() and not latest.is_symlink():  # a copy that followed the link
        fail("runs/latest", str(latest), "a link, which labkit run sets anew, or not there: rename it")
    folder = new_folder()
    begin = time.monotonic()
    _execute_all(list(zip(paths, runs, strict=True)), folder, jobs, timeout, resume)
    for item in runs:
        item.compare(setting(kind))
    write_json(folder / "metrics.json", {item.notebook: item.values for item in runs})
    record = {
        "preset": preset,
        "overrides": overrides,
        "device_class": kind,
        "setting": setting(kind),
        "seconds": round(time.monotonic() - begin, 2),
        "provenance": provenance(device=device_name(kind)),
        "notebooks": [asdict(item) for item in runs],
    }
    write_json(folder / "run.json", record)
    write_report(folder)
    _point_latest(folder)
    return folder, runs


def new_folder(label: str = "") -> Path:
    """Make a fresh folder runs/<stamp>[_label][_number]."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S") + (f"_{label}" if label else "")
    for suffix in ("", *(f"_{i}" for i in range(1, 100))):
        folder = runs_dir() / (stamp + suffix)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise RuntimeError(f"no free folder name for {stamp} in {runs_dir()}")


def _execute_all(
    planned: list[tuple[Path, NotebookRun]], folder: Path, jobs: int, timeout: float, resume: bool
) -> None:
    name = TextColumn("{task.description:<24}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stop = threading.Event()

    def obtain(source: Path, item: NotebookRun) -> None:
        key, executed = store.fingerprint(source, item.parameters), folder / f"{item.notebook}.ipynb"
        if resume and (found := store.get(key)):
            shutil.copyfile(found[0], executed)
            item.seconds, item.cached = found[1], True
            item.read(executed)
            bars.add_task(f"{item.notebook} cached", total=1, completed=1)
            return
        cells = len(nbformat.read(source, as_version=4).cells)
        task = bars.add_task(item.notebook, total=cells + bool(item.parameters))  # papermill adds one
        with Memory() as memory:
            execute_notebook(source, item, folder, timeout, stop, lambda: bars.advance(task))
        item.gpu_memory = memory.most
        bars.update(task, description=f"{item.notebook} {'ok' if item.ok else 'FAILED'}")
        if item.ok:
            store.put(key, executed, item.seconds)

    with Progress(*columns, console=Console(stderr=True)) as bars, ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(lambda pair: obtain(*pair), planned))
        except KeyboardInterrupt:  # Ctrl-C does not reach the children: they have sessions of their own
            stop.set()  # each thread ends its own
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def execute_notebook(
    source: Path,
    item: NotebookRun,
    folder: Path,
    timeout: float,
    stop: threading.Event | None = None,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Run one notebook in its own process; fill ``item``; never raises for a failing one.

    stop      ends it early
    advance   is called after every cell
    """
    partial, executed = folder / f".{item.notebook}.part.ipynb", folder / f"{item.notebook}.ipynb"
    parameters = folder / f".{item.notebook}.json"
    write_json(parameters, item.parameters)
    command = [sys.executable, "-m", "labkit.runner.execute", str(source), str(partial), str(parameters)]
    begin, last, failure = time.monotonic(), "", ""

    def told(line: str) -> None:
        nonlocal last, failure
        last = line.strip() or last
        if line.startswith(FAILED):  # others that share the pipe may print after it
            failure = last.removeprefix(FAILED)
        if line.startswith("Ending Cell"):
            advance()

    log = folder / f"{item.notebook}.log"
    try:
        code, expired = follow(command, log, timeout, stop or threading.Event(), told)
    finally:
        parameters.unlink(missing_ok=True)
        whole = _keep_whole(partial, executed)
    item.seconds = round(time.monotonic() - begin, 2)
    if expired:
        item.error = f"timed out after {timeout:g} s"
    elif code < 0:
        item.error = f"ended by signal {-code}"
    elif code:
        item.error = failure or last or f"exit code {code}"
    if whole:
        item.read(executed)


def _keep_whole(partial: Path, target: Path) -> bool:
    """Give an executed notebook its name unless a kill or a full disk cut it off in the middle."""
    try:
        nbformat.read(partial, as_version=4)
    except (OSError, ValueError):  # nothing was written, or not all of it
        partial.unlink(missing_ok=True)
        return False
    partial.replace(target)
    return True


def _point_latest(folder: Path) -> None:
    temporary = folder.parent / f".latest.{os.getpid()}"
    try:
        temporary.symlink_to(folder.name, target_is_directory=True)
        temporary.replace(folder.parent / "latest")
    finally:
        temporary.unlink(missing_ok=True)
