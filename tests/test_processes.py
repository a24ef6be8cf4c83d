"""Following a process: the deadline holds whatever it starts, nothing is left, a log has an end."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest

from labkit.runner import processes
from labkit.runner.processes import Ended, follow, interrupted_by_signals

# A daemon: its parent is gone and it has a session of its own, but it holds the pipe open.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1] + ".part", "w").write(str(os.getpid()))
        os.rename(sys.argv[1] + ".part", sys.argv[1])
        time.sleep(600)
    os._exit(0)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"""


def _follow(tmp_path, source, timeout=60.0, stop=None):
    lines = []
    command = [sys.executable, "-c", source, str(tmp_path / "pid")]
    code, expired = follow(command, tmp_path / "log", timeout, stop or threading.Event(), lines.append)
    return code, expired, lines


def _gone(tmp_path):
    try:
        return psutil.Process(int((tmp_path / "pid").read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_every_line_is_told_and_kept(tmp_path):
    source = "import os\nos.write(1, b'one\\ntwo\\rth'); os.write(2, b'ree \\xff\\nend'); os._exit(3)"
    code, expired, lines = _follow(tmp_path, source)
    assert (code, expired) == (3, False)
    assert "".join(lines) == "one\ntwo\rthree \ufffd\nend"
    assert "three \ufffd\n" in lines
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\rthree \xff\nend"


def test_a_daemon_that_holds_the_pipe_does_not_hold_the_run(tmp_path):
    begin = time.monotonic()
    assert _follow(tmp_path, DAEMON)[:2] == (0, False)
    assert time.monotonic() - begin < 20
    assert _gone(tmp_path)


@pytest.mark.parametrize("close", ["", "os.close(1); os.close(2)\n"])
def test_the_deadline_holds_for_daemons_and_closed_pipes(tmp_path, close):
    begin = time.monotonic()
    code, expired, _ = _follow(tmp_path, f"{DAEMON}{close}time.sleep(600)", timeout=3)
    assert (code, expired) == (-9, True)
    assert time.monotonic() - begin < 20
    assert _gone(tmp_path)


def test_a_stop_ends_it_early(tmp_path):
    stop = threading.Event()
    threading.Timer(2, stop.set).start()
    assert _follow(tmp_path, DAEMON + "time.sleep(600)", stop=stop)[:2] == (-9, False)
    assert _gone(tmp_path)


def test_a_long_log_keeps_its_ends_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LOG", 1000)
    source = "for i in range(1000): print(f'line {i:4}')"
    _, _, lines = _follow(tmp_path, source)
    assert len(lines) == 1000
    log = (tmp_path / "log").read_text().splitlines()
    assert log[:100] == [f"line {i:4}" for i in range(100)]
    assert log[-40:] == [f"line {i:4}" for i in range(960, 1000)]
    assert log[100:-40] == ["", "[cut by labkit: 8,600 bytes are left out here]"]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log").mkdir()
    with pytest.raises(OSError, match=str(tmp_path / "log")):
        _follow(tmp_path, DAEMON + "time.sleep(600)")


@pytest.fixture
def handlers():
    """The handlers a process starts with, and afterwards those that were there."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _receive(number):
    os.kill(os.getpid(), number)
    time.sleep(5)


def _lose_the_terminal():
    try:
        _receive(signal.SIGHUP)
    finally:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_handlers_are_put_back(handlers, number):
    with pytest.raises(KeyboardInterrupt) as raised, interrupted_by_signals():
        _receive(number)
    assert raised.value.args == (number,)
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_closed_terminal_does_not_hide_the_signal(handlers):
    with pytest.raises(Ended), interrupted_by_signals():
        _lose_the_terminal()
    with pytest.raises(OSError, match="full"), interrupted_by_signals():
        raise OSError(28, "full")


def _receive_two(left):
    try:
        _receive(signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGHUP)
        left.append("ended in order")
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_break_off_the_ending(handlers, monkeypatch):
    """A service manager sends SIGTERM and SIGHUP; one who is in a hurry sends many."""
    left = []
    with pytest.raises(Ended) as raised, interrupted_by_signals():
        _receive_two(left)
    assert (raised.value.args, left) == ((signal.SIGTERM,), ["ended in order"])
    monkeypatch.setattr(processes, "GRACE", 0.0)  # what hangs on the way out can still be ended
    with pytest.raises(Ended), interrupted_by_signals():
        _receive_two(left)
    assert left == ["ended in order"]


def test_under_nohup_a_closed_terminal_ends_nothing(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupted_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_threads_other_than_the_main_one_set_no_handler(handlers):
    found = []

    def look():
        with interrupted_by_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
