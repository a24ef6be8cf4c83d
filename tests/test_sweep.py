"""Sweeps: grids, a failed point, resuming, and a scheduler that somebody else started."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pandas as pd
import psutil
import pytest
from distributed import Client
from distributed.security import Security
from notebook_maker import write_notebook

from labkit.__main__ import main
from labkit.device import Card
from labkit.runner.sweep import connect, read_grid, sweep
from labkit.runner.sweep_table import write_table


def write(path, text):
    path.write_text(text, "utf-8", "surrogateescape")
    return str(path)


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    write(tmp_path / "empty.yaml", "{}")
    return write_notebook(
        tmp_path / "square.ipynb",
        f"open(r'{tmp_path / 'count'}', 'a').write('x')",
        "from labkit.metrics import record\nif size == 3: raise RuntimeError('no threes')",
        "record('square', size**2 * scale)",
        parameters="size: int = 1  # side\nscale: float = 1.0  # factor",
    )


def test_a_grid_of_lists_ranges_logs_and_seeds(tmp_path):
    text = "a: [x, y]\nb: {from: 0, to: 1, count: 3}\nc: {from: 1e-4, to: 0.01, count: 3, log: true}\n"
    grid = read_grid(write(tmp_path / "g.yaml", text + "d: {from: 1, to: 5, count: 3}\nseed: {seeds: 2}\n"))
    assert grid == {
        "a": ["x", "y"],
        "b": [0.0, 0.5, 1.0],
        "c": [1e-4, 1e-3, 1e-2],
        "d": [1, 3, 5],
        "seed": [0, 1],
    }


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("{from: 1000001, to: 1000003, count: 3}", [1000001, 1000002, 1000003]),
        ("{from: 1099511627776, to: 1099511627778, count: 3}", [2**40, 2**40 + 1, 2**40 + 2]),
        ("{from: 1, to: 1234567, count: 2}", [1, 1234567]),
        ("{from: 0.12345678, to: 1234567.25, count: 2}", [0.12345678, 1234567.25]),
        ("{from: 0, to: 1, count: 4}", [0.0, 0.333333333333, 0.666666666667, 1.0]),
        ("{from: 16, to: 64, count: 3, log: true}", [16, 32, 64]),
        ("{from: 5, to: 9, count: 1}", [5]),
    ],
)
def test_a_range_keeps_its_ends_and_whole_numbers_whole(tmp_path, spec, values):
    found = read_grid(write(tmp_path / "g.yaml", f"a: {spec}"))["a"]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "--grid must be valid YAML; .*g.yaml is not: while parsing .*, but got '<stream end>'"),
        ("a: \udce9", "--grid must be valid YAML; .*g.yaml is not: 'utf-8' codec"),
        ("a: 2020-13-45", "--grid must be valid YAML; .*g.yaml is not: month must be"),
        ("[]", "--grid must be a mapping"),
        ("a: 3", r"a must be a non-empty list, \{from, to, count\} or \{seeds\}; got 3"),
        ("a: []", "a must be a non-empty list"),
        ("a: {from: 1, to: 2}", "a must be a non-empty list"),
        ("a: {from: 0, to: 2, count: 2, log: true}", "a.from must be a number >= 1e-300; got 0"),
        ("a: {seeds: 0}", "a.seeds must be an integer between 1 and 100000; got 0"),
        ("a: {seeds: 1000000000}", "a.seeds must be an integer between 1 and 100000; got 1000000000"),
        ("a: {seeds: 1000}\nb: {seeds: 1000}", "--grid points must be an integer between 1 and 100000"),
    ],
)
def test_a_bad_grid_is_one_error(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_grid(write(tmp_path / "g.yaml", text))


def test_local_and_separately_started_schedulers_give_the_same_table(book, tmp_path):
    preset = str(tmp_path / "empty.yaml")
    grid = {"size": [2, 3], "scale": [0.5, 2]}
    folder, local = sweep(str(book), grid, preset)
    assert local["square"].tolist()[:2] == [2.0, 8.0]
    assert local["error"].tolist()[2:4] == ["RuntimeError: no threes"] * 2  # the rest went on
    assert {path.name for path in folder.iterdir()} == {
        "sweep.parquet", "sweep.csv", "sweep.png", "point_00002.ipynb", "point_00003.ipynb",
    }  # fmt: skip
    assert (tmp_path / "count").read_text() == "x" * 4

    again = sweep(str(book), grid, preset)[1]
    assert (tmp_path / "count").read_text() == "x" * 6  # only the two that failed
    assert again["square"].equals(local["square"])

    for path in (tmp_path / "runs" / "cache" / "notebooks").iterdir():
        path.unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    port = address.rsplit(":", 1)[1]
    parts = [
        [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    ]
    parts += [[sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-dashboard"]] * 2
    processes = [subprocess.Popen(part, **quiet) for part in parts]
    try:
        remote = sweep(str(book), grid, preset, scheduler=address)[1]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(30)
    pd.testing.assert_frame_equal(remote.drop(columns="seconds"), local.drop(columns="seconds"))


def test_an_unreachable_scheduler_and_an_unknown_parameter_are_one_error(
    book, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("labkit.runner.sweep.CONNECT_TIMEOUT", 1)
    preset = str(tmp_path / "empty.yaml")
    grid = write(tmp_path / "g.yaml", "size: [1]")
    common = ["sweep", str(book), "--preset", preset]
    assert main([*common, "--grid", grid, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert main([*common, "--grid", write(tmp_path / "h.yaml", "sise: [1]")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("labkit")]
    assert (
        "--scheduler must be the address of a running dask scheduler; got 'tcp://127.0.0.1:9'" in lines[0]
    )
    assert "did you mean 'size'?" in lines[1]
    assert main([*common, "--grid", grid, "--jobs", "0"]) == 2
    assert "jobs must be an integer >= 1; got 0" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*sweep*"))


def show(monkeypatch, *uuids):
    """A driver that tells these GPUs."""
    found = [Card(i, uuid, "H100", (9, 0), 80000, 81559) for i, uuid in enumerate(uuids)]
    monkeypatch.setattr("labkit.device.cards", lambda: found)


def seen_cards(client):
    return sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values())


def test_each_local_worker_has_one_card_also_after_a_restart(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    show(monkeypatch, "GPU-a", "GPU-b")
    with connect(None, 3) as client:
        assert seen_cards(client) == ["GPU-a", "GPU-a", "GPU-b"]
        client.restart()
        assert seen_cards(client) == ["GPU-a", "GPU-a", "GPU-b"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


def test_a_stranger_on_this_machine_cannot_reach_the_local_scheduler():
    with connect(None, 1) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises(OSError, match="TCP|connect"):  # without encryption
            Client(address.replace("tls", "tcp"), timeout=3)
        with pytest.raises(OSError, match="certificate|TLS|connect"):  # with its own
            Client(address, timeout=3, security=Security.temporary())


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 1)])
def test_nothing_is_pinned_without_several_cards(monkeypatch, count, workers):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    show(monkeypatch, *["GPU-7"] * count)
    with connect(None, None) as client:
        assert seen_cards(client) == ["7"] * workers


def test_a_point_sees_the_card_of_its_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    show(monkeypatch, "4", "6")
    book = write_notebook(
        tmp_path / "card.ipynb",
        "import os\nfrom labkit.metrics import record",
        "record('card', int(os.environ['CUDA_VISIBLE_DEVICES']))",
        parameters="size: int = 1  # side",
    )
    table = sweep(str(book), {"size": [1, 2]}, write(tmp_path / "empty.yaml", "{}"))[1]
    assert table["error"].tolist() == ["", ""]
    assert sorted(table["card"]) == [4, 6]  # no jobs given: one worker per card


@pytest.fixture
def untyped(tmp_path, monkeypatch):
    """A notebook whose one parameter takes anything, and the preset that goes with it."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    book = write_notebook(
        tmp_path / "any.ipynb",
        "import psutil, time\nfrom labkit.metrics import record\nrecord('size', len(str(value)))",
        "if value == 'kill': psutil.Process().parents()[1].kill()  # of the kernel's, the worker",
        "if value == 'wait': time.sleep(120)",
        parameters="value = None",
    )
    return str(book), write(tmp_path / "empty.yaml", "{}")


def test_values_of_many_kinds_keep_the_table(untyped, tmp_path):
    values = [1, "a", [1, "b"], {}, None, True]
    table = sweep(untyped[0], {"value": values[2:5:2]}, untyped[1], jobs=1)[1]
    assert table["value"].tolist() == values[2:5:2]
    assert table["size"].tolist() == [8, 4]
    write_table(
        tmp_path, pd.DataFrame({"value": values, "size": 1.0, "seconds": 2.0, "error": ""}), ["value"]
    )
    written = ["1", "a", "[1, 'b']", "{}", "None", "True"]
    assert pd.read_parquet(tmp_path / "sweep.parquet")["value"].tolist() == written
    kept = pd.read_csv(tmp_path / "sweep.csv", keep_default_na=False)["value"].tolist()
    assert kept == ["1", "a", "[1, 'b']", "{}", "", "True"]
    assert (tmp_path / "sweep.png").is_file()


def test_a_point_that_kills_its_worker_is_a_row_and_takes_nobody_with_it(untyped):
    table = sweep(untyped[0], {"value": ["a", "kill", "bc"]}, untyped[1], jobs=2)[1]
    assert [bool(error) for error in table["error"]] == [False, True, False]
    assert table["size"].dropna().tolist() == [1, 2]


def test_a_scheduler_that_goes_away_leaves_the_table_and_the_next_sweep_goes_on(
    untyped, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr("labkit.runner.sweep.CONNECT_TIMEOUT", 60)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard"]
    processes = [subprocess.Popen(part, **quiet) for part in (scheduler, worker)]
    cache = tmp_path / "runs" / "cache" / "notebooks"

    def end_after_the_first_point():
        while not list(cache.glob("*.json")) and processes[0].poll() is None:
            time.sleep(0.1)
        processes[0].kill()

    watcher = threading.Thread(target=end_after_the_first_point)
    watcher.start()
    grid = write(tmp_path / "g.yaml", "value: [a, wait, b]")
    try:
        words = ["sweep", untyped[0], "--preset", untyped[1], "--grid", grid, "--scheduler", address]
        assert main(words) == 1
    finally:
        processes[0].kill()
        watcher.join()
        for process in (*psutil.Process(processes[1].pid).children(recursive=True), *processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in processes:
            process.wait(30)
    assert "Traceback" not in capfd.readouterr().err
    (csv,) = (tmp_path / "runs").glob("*_sweep_any/sweep.csv")
    lost = "not run: the scheduler went away; repeat the sweep"
    assert pd.read_csv(csv, keep_default_na=False)["error"].tolist() == ["", lost, lost]
    before = set(cache.iterdir())
    assert sweep(untyped[0], {"value": ["a", "b"]}, untyped[1], jobs=1)[1]["error"].tolist() == ["", ""]
    assert len(set(cache.iterdir()) - before) == 2  # b's notebook and result


def test_a_point_runs_beside_its_files_and_has_one_time_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    write(tmp_path / "rows.txt", "a b c")
    book = write_notebook(
        tmp_path / "reads.ipynb",
        "import time\nfrom labkit.metrics import record",
        "record('rows', len(open('rows.txt').read().split()))",
        "time.sleep(wait)",
        parameters="wait: int = 0  # seconds",
    )
    table = sweep(str(book), {"wait": [0, 300]}, write(tmp_path / "empty.yaml", "{}"), 1, None, 12)[1]
    assert table["rows"].tolist() == [3, 3]
    assert table["error"].tolist() == ["", "timed out after 12 s"]


def test_a_terminal_without_letters_reads_a_notebook_with_some(tmp_path):
    book = write_notebook(tmp_path / "book.ipynb", "print('漢')")
    code = f"""
from pathlib import Path
from labkit.runner import sweep
def execute(path, item, folder, timeout):
    (folder / "executed.ipynb").write_bytes(path.read_bytes())
sweep.execute_notebook = execute
for place in (Path({str(book)!a}), ""):
    done = sweep.execute_point(Path({str(book)!a}).read_text("utf-8"), {{}}, str(place))
    print(ascii(done["error"]), "\\u6f22" in done["notebook"])
"""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | locale, capture_output=True, text=True, check=True
    )
    assert done.stdout == "'' True\n'' True\n"
