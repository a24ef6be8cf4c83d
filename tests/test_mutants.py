"""The mutation check itself: its faults fit today's code, and it tells a survivor from a caught fault."""

import dataclasses
import re

import mutants
import psutil
import pytest

from labkit.paths import ROOT

NAN = next(fault for fault in mutants.FAULTS if fault.name == "record accepts NaN")


@pytest.mark.parametrize("fault", mutants.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_fits_the_code(fault):
    source = (ROOT / fault.file).read_text()
    changed = fault.apply(source)
    assert changed != source
    if fault.file.endswith(".py"):
        compile(changed, fault.file, "exec")


def test_names_are_unique():
    names = [fault.name for fault in mutants.FAULTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("source", ["", "ab ab"])
def test_a_stale_fault_names_itself(source):
    fault = mutants.Fault("swapped", "a.py", "ab", "ba", ())
    with pytest.raises(mutants.Unusable, match="'swapped' is stale: .* once in a.py"):
        fault.apply(source)


def test_a_run_that_can_say_nothing_exits_2(monkeypatch, capsys):
    monkeypatch.setattr(mutants, "FAULTS", (dataclasses.replace(NAN, old="no such text"),))
    assert mutants.main([]) == 2
    assert "mutants: fault 'record accepts NaN' is stale" in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Runs pytest in a project of three empty packages."""
    copy = tmp_path_factory.mktemp("project")
    for package in mutants.PACKAGES:
        (copy / package).mkdir()
        (copy / package / "__init__.py").touch()
    (copy / "tests").mkdir()
    source = (ROOT / "tests" / "pytest_server.py").read_text()
    small, count = re.subn(r"(?s)LARGE = \(.*?\n\)", "LARGE = ()", source)
    assert count == 1  # nothing here needs torch
    (copy / "tests" / "pytest_server.py").write_text(small)
    with mutants.pytest_server(copy) as server:
        yield server


# A busy machine may not come to start anything in a short time.
@pytest.mark.parametrize(("seconds", "timeouts"), [(0, [None]), (600, [2, 8, 32, 128])])
def test_a_run_is_ended_with_all_that_it_started(server, seconds, timeouts):
    (server.copy / "test_daemon.py").write_text(f"""
import pathlib, subprocess, sys, time
def test_daemon():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    daemon = subprocess.Popen(command, start_new_session=True)
    pathlib.Path("started.part").write_text(str(daemon.pid))
    pathlib.Path("started.part").rename("started")
    time.sleep({seconds})
""")
    started = server.copy / "started"
    for timeout in timeouts:
        code, _ = server.pytest(["test_daemon.py"], timeout)
        if started.exists():
            break
    pid = int(started.read_text())
    started.unlink()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert code == (None if seconds else 0)


def test_packages_of_another_folder_are_refused(server):
    (server.copy / "test_nothing.py").write_text("def test_nothing(): pass")
    assert server.pytest(["test_nothing.py"])[0] == 0
    package = server.copy / "labkit"
    package.rename(server.copy / "elsewhere")
    code, printed = server.pytest(["test_nothing.py"])
    (server.copy / "elsewhere").rename(package)
    assert code
    assert f"labkit must be imported from {server.copy}" in printed


def test_a_server_that_has_ended_is_told(tmp_path):
    with mutants.pytest_server(tmp_path) as server, pytest.raises(mutants.Unusable, match="cannot be run"):
        server.pytest([])


def test_a_red_suite_is_told(server):
    with pytest.raises(mutants.Unusable, match=r"must pass without any fault(.|\n)*no_such_test"):
        server.seconds(["no_such_test.py"])


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the copy is made from git's list of files")
def test_a_survivor_is_told(monkeypatch, capsys):
    before = (ROOT / NAN.file).read_text()
    harmless = dataclasses.replace(NAN, name="only words", old="for the runner to collect", new="for later")
    monkeypatch.setattr(mutants, "JOBS", 1)
    monkeypatch.setattr(mutants, "FAULTS", (NAN, harmless))
    assert mutants.main([]) == 1
    told = capsys.readouterr().out
    assert "test_only_finite_numbers" in told
    assert "SURVIVED" in told
    assert "1 of 2 faults caught" in told
    assert (ROOT / NAN.file).read_text() == before
