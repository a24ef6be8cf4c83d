"""A grid of parameters for one notebook, fanned out through dask.distributed; resumable.

Grid file (YAML), one line a parameter; the sweep runs every combination:

    beam: [1, 2, 4]                                        # a list
    threshold: {from: 0.5, to: 0.99, count: 5}             # evenly spaced, both ends included
    lr: {from: 1.0e-4, to: 1.0e-2, count: 3, log: true}    # evenly spaced in the logarithm
    seed: {seeds: 3}                                       # 0, 1, 2
"""

import atexit
import contextlib
import itertools
import logging
import math
import os
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.deploy.spec import close_clusters
from distributed.security import Security
from distributed.worker_memory import parse_memory_limit
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from labkit import device
from labkit.checks import choice, fail, integer, number
from labkit.metrics import read_metrics
from labkit.notebooks import find_notebooks, parameters_for
from labkit.runner import processes, store
from labkit.runner.points import completed
from labkit.runner.presets import load_preset
from labkit.runner.runs import NOTEBOOK_TIMEOUT, NotebookRun, execute_notebook, new_folder
from labkit.runner.sweep_table import write_table
from labkit.yaml_values import as_float, read_yaml

CONNECT_TIMEOUT = 15  # seconds to reach a scheduler
START_TIMEOUT = 300  # seconds for the local workers: a busy machine takes a minute
ENDS = ("seconds", "error")  # the last columns of the table
POINT_LIMIT = 100_000
LOST = "not run: the scheduler went away; repeat the sweep"


def read_grid(path: str | Path) -> dict[str, list[Any]]:
    """{parameter: values} from a grid file; ValueError names the line that is wrong."""
    path = Path(path)
    if not path.is_file():
        fail("--grid", str(path), "a YAML file")
    content = read_yaml(path, "--grid")
    if not isinstance(content, dict) or not content:
        fail("--grid", content, "a mapping of parameters to lists or ranges")
    grid = {name: _values(name, spec) for name, spec in content.items()}
    integer("--grid points", math.prod(map(len, grid.values())), 1, POINT_LIMIT)
    return grid


def _values(name: str, spec: Any) -> list[Any]:
    if isinstance(spec, list) and spec:
        return spec
    if isinstance(spec, dict) and set(spec) == {"seeds"}:
        return list(range(integer(f"{name}.seeds", spec["seeds"], 1, POINT_LIMIT)))
    wanted = {"from", "to", "count"}
    if not isinstance(spec, dict) or not wanted <= set(spec) <= {*wanted, "log"}:
        fail(name, spec, "a non-empty list, {from, to, count} or {seeds}")
    low, high = (number(f"{name}.{end}", as_float(spec[end]), -1e300, 1e300) for end in ("from", "to"))
    if (low, high) != (as_float(spec["from"]), as_float(spec["to"])):
        fail(name, spec, "a range whose ends a float holds exactly (or a list)")
    count = integer(f"{name}.count", spec["count"], 1, POINT_LIMIT)
    log = choice(f"{name}.log", spec.get("log", False), (True, False))
    if log:
        number(f"{name}.from", low, 1e-300), number(f"{name}.to", high, 1e-300)
    spread = (np.geomspace if log else np.linspace)(low, high, count).tolist()
    # 0.3, not 0.30000000000000004; but no whole number and no end may move.
    values = [value if value.is_integer() else float(f"{value:.12g}") for value in spread]
    values[-1], values[0] = high, low  # in this order: a single value is the first end
    whole = isinstance(spec["from"], int) and all(value.is_integer() for value in values)
    return [int(value) for value in values] if whole else values


def execute_point(
    source: str, parameters: dict[str, Any], place: str = "", timeout: float = NOTEBOOK_TIMEOUT
) -> dict[str, Any]:
    """Run one notebook, given as its JSON text, on whichever worker this is, as labkit run does.

    Never raises.

    place     where the notebook lies: it runs there, beside its files, unless this machine lacks it
    timeout   seconds

    Returns {"seconds", "metrics", "error", "notebook"}; the executed notebook comes back as text.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        path, item = Path(place), NotebookRun("executed", parameters)
        try:
            if not place or not path.is_file() or path.read_text("utf-8") != source:
                path = Path(folder, "source.ipynb")
                path.write_text(source, "utf-8")
            execute_notebook(path, item, Path(folder), timeout)
        except Exception as problem:  # a broken point is a row of the table, not the end of the sweep
            item.error = f"{type(problem).__name__}: {problem}"
        target = Path(folder, "executed.ipynb")
        text = target.read_text("utf-8") if target.is_file() else ""
    seconds = round(time.monotonic() - begin, 2)
    return {"seconds": seconds, "metrics": item.metrics, "error": item.error, "notebook": text}


def sweep(
    name: str,
    grid: dict[str, list[Any]],
    preset: str = "smoke",
    jobs: int | None = None,
    scheduler: str | None = None,
    timeout: float = NOTEBOOK_TIMEOUT,
) -> tuple[Path, pd.DataFrame]:
    """Run every point; returns (folder, table) with one row a point, in the grid's order.

    Points that finished earlier with the same source, parameters, code and device are not run
    again. The folder holds sweep.parquet, sweep.csv, sweep.png and the notebooks that failed. If the
    scheduler goes away, the rows of the points that did not finish say so.

    jobs      local worker processes, each with one CUDA device if there are several; None: one per
              device, two without. With ``scheduler`` the workers see what they were started with.
    timeout   seconds for one point
    """
    number("timeout", timeout, 1, threading.TIMEOUT_MAX)
    if jobs is not None:
        integer("jobs", jobs, 1)
    (path,) = find_notebooks([name])
    values = load_preset(preset, [path])
    if taken := [name for name in ENDS if name in grid]:
        fail("--grid", taken[0], "of parameters by other names than the columns seconds and error")
    points = [
        dict(zip(grid, combination, strict=True)) for combination in itertools.product(*grid.values())
    ]
    planned = [parameters_for(path, values, point) for point in points]
    source = path.read_text("utf-8")
    keys = [store.fingerprint(path, parameters) for parameters in planned]
    rows: list[dict[str, Any]] = [{"seconds": 0.0, "metrics": {}, "error": LOST} for _ in points]
    with connect(scheduler, jobs) as client:
        folder = new_folder(f"sweep_{path.stem}")
        found = {i: kept for i, key in enumerate(keys) if (kept := store.get(key))}
        for i, (executed, seconds) in found.items():
            rows[i] = {"seconds": seconds, "metrics": read_metrics(executed), "error": ""}
        calls = {i: (source, planned[i], str(path), timeout) for i in range(len(points)) if i not in found}
        label = TextColumn("{task.description}", markup=False)
        columns = (label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(path.stem, total=len(points), completed=len(found))
            for i, result in completed(client, execute_point, calls):
                rows[i] = _keep(folder, i, keys[i], result)
                bars.advance(task)
    table = _table([{name: parameters[name] for name in grid} for parameters in planned], rows)
    write_table(folder, table, list(grid))
    return folder, table


def _table(ran: list[dict[str, Any]], rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Parameters, metrics, seconds and error of each point; a metric of another column's name gives way."""
    named = {name: f"metric {name}" for name in (*ran[0], *ENDS)}
    ends = [{name: row[name] for name in ENDS} for row in rows]
    metrics = [{named.get(name, name): m["value"] for name, m in row["metrics"].items()} for row in rows]
    return pd.DataFrame([a | b | c for a, b, c in zip(ran, metrics, ends, strict=True)])


def _keep(folder: Path, index: int, key: str, result: dict) -> dict:
    text = result.pop("notebook")
    place = folder / f"point_{index:05d}.ipynb"
    if text:
        place.write_text(text, "utf-8")
    if not result["error"]:
        store.put(key, place, result["seconds"])
        place.unlink()
    return result


class PinCard(WorkerPlugin):
    """Worker i, and the kernels it starts, see one card: cards[i mod len(cards)]; a restarted one too."""

    def __init__(self, cards: list[str]):
        self.cards = cards

    def setup(self, worker) -> None:
        """Called by dask in the worker's process, before its first task."""
        os.environ["CUDA_VISIBLE_DEVICES"] = self.cards[worker.name % len(self.cards)]


@contextlib.contextmanager
def _local_client(workers: int, **options: Any):
    """A client of so many worker processes, which start once their cluster can be closed in order."""
    options |= {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    options["memory_limit"] = parse_memory_limit("auto", 1, workers, logger=logging.getLogger(__name__))
    with contextlib.ExitStack() as stack:
        try:
            cluster = LocalCluster(n_workers=0, **options, security=Security.temporary())
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            cluster.scale(workers)
            client.wait_for_workers(workers, timeout=START_TIMEOUT)
            yield client
        except KeyboardInterrupt:  # what dask then tells of workers and connections that end is no news
            atexit.unregister(close_clusters)  # it would wait for a cluster that never began
            for name in ("distributed", "tornado", "asyncio"):
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            raise


@contextlib.contextmanager
def connect(scheduler: str | None, jobs: int | None):
    """A client of the running scheduler at ``scheduler``, or of ``jobs`` local worker processes.

    The local ones talk over TLS with a certificate that is made for this run and never leaves memory:
    a scheduler runs whatever a client sends, and anybody on the machine can reach its port.
    """
    if scheduler is None:
        cards = [card.uuid for card in device.cards() if not card.problem]
        settings = {
            "distributed.worker.profile.enabled": False,  # it keeps an hour of stacks
            "distributed.scheduler.allowed-failures": 0,  # a point that killed its worker kills the next
        }
        mark, after = uuid.uuid4().hex, contextlib.ExitStack()
        env = {processes.MARK: f"{os.environ.get(processes.MARK, '')} {mark}"}
        after.callback(processes.end, mark)  # a notebook outlives a worker that was killed
        with after, dask.config.set(settings), _local_client(jobs or len(cards) or 2, env=env) as client:
            if len(cards) > 1:
                client.register_plugin(PinCard(cards))
            yield client
        return
    try:
        client = Client(scheduler, timeout=CONNECT_TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(
            f"--scheduler must be the address of a running dask scheduler; got {scheduler!r} ({error})"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except TimeoutError:
            problem = f"got {scheduler!r}, with none after {CONNECT_TIMEOUT} s"
            raise ValueError(f"--scheduler must have at least one worker; {problem}") from None
        yield client
