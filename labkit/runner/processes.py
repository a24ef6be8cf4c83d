"""A notebook's process and all that it starts: followed to a deadline, then ended to the last one."""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil

MARK = "LABKIT_PROCESS"  # an environment variable: a process keeps it when it leaves its session or parent
FAILED = "failed: "  # begins the line by which labkit.runner.execute tells its error
TICK = 0.1  # seconds between two looks at the clock
LINE = 2**16  # bytes; a longer line is handled in pieces
LOG = 20_000_000  # bytes of a log; more than labkit.runner.execute lets a notebook print
PATIENCE = 10.0  # seconds for the killed to be gone
GRACE = 2 * PATIENCE  # seconds from a signal until the next one counts
TAIL = 40  # lines kept from the end of a log that is cut


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP: handled as Ctrl-C is. ``args[0]`` is the signal."""


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raise ``Ended`` in the main thread on SIGTERM and SIGHUP, except on one that is ignored (nohup).

    For ``GRACE`` seconds more signals do nothing: they would break off the ending of what was started.
    """
    received: list[Ended] = []
    before, since = {}, 0.0

    def interrupt(number: int, _frame: object) -> None:
        nonlocal since
        if received and time.monotonic() < since + GRACE:
            return
        since = time.monotonic()
        received.append(Ended(signal.Signals(number)))
        raise received[0]

    if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    except Exception as error:
        if received:  # what breaks on the way out is of the signal, as output to a closed terminal is
            raise received[0] from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children_on_signals() -> None:
    """On SIGTERM and SIGHUP, end all that this process starts from now on, then die by the signal."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = f"{os.environ.get(MARK, '')} {mark}"

    def die(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        end(mark, os.getpid())
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, die)


def follow(
    command: list[str], log: Path, timeout: float, stop: threading.Event, told: Callable[[str], None]
) -> tuple[int, bool]:
    """Run ``command`` in a session of its own; when it returns or raises, nothing it started is left.

    log       gets what is printed, its middle left out beyond ``LOG`` bytes
    timeout   seconds
    stop      ends the command early
    told      is called with every line

    Returns (exit code, whether the time was out). OSError names ``log`` where it cannot be written.
    """
    mark = uuid.uuid4().hex
    environment = {"PYTHONUNBUFFERED": "1", MARK: f"{os.environ.get(MARK, '')} {mark}"}
    deadline = time.monotonic() + timeout
    process = subprocess.Popen(
        command,
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | environment,
        start_new_session=True,  # the terminal's signals are for labkit, which ends it
    )
    try:
        assert process.stdout is not None  # a pipe, see above
        with process.stdout as pipe:
            _copy(
                _lines(process, pipe, lambda: time.monotonic() < deadline and not stop.is_set()), log, told
            )
        expired = process.poll() is None and not stop.is_set()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(log)) from error
    finally:
        end(mark, process.pid if process.poll() is None else None)  # a number may be given to another
        code = process.wait()
    return code, expired


def _lines(process: subprocess.Popen, pipe: IO[bytes], wanted: Callable[[], bool]) -> Iterator[bytes]:
    """What a process prints, until it has ended or is no longer wanted.

    The end of the pipe is not waited for: others may hold it open. It may also close too early.
    """
    rest, pipe_open = b"", True
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while wanted():
            over = process.poll() is not None  # asked first: what it printed can then be read at once
            if not pipe_open:
                time.sleep(0 if over else TICK)
            elif selector.select(0 if over else TICK):
                chunk = os.read(pipe.fileno(), LINE)
                *lines, rest = (rest + chunk).splitlines(keepends=True) or [b""]
                if rest.endswith(b"\n") or len(rest) >= LINE:
                    lines, rest = [*lines, rest], b""
                yield from lines
                pipe_open = bool(chunk)
                continue
            if over:
                break
    if rest:
        yield rest


def _copy(lines: Iterator[bytes], log: Path, told: Callable[[str], None]) -> None:
    """Write lines to ``log``: its first LOG bytes, then one line that says so, then the last TAIL lines."""
    tail: deque[bytes] = deque(maxlen=TAIL)
    room, dropped = LOG, 0
    with log.open("wb", buffering=0) as file:
        for line in lines:
            if len(line) <= room:
                file.write(line)
                room -= len(line)
            else:
                room = 0
                tail.append(line)
                dropped += len(line)
            told(line.decode(errors="replace"))
        if tail:
            dropped -= sum(map(len, tail))
            file.write(f"\n[cut by labkit: {dropped:,} bytes are left out here]\n".encode())
            file.write(b"".join(tail))


def end(mark: str, root: int | None = None) -> None:
    """Kill all processes that bear ``mark``, and ``root`` with its descendants; never the caller."""
    deadline = time.monotonic() + PATIENCE
    while (family := _family(mark, root)) and time.monotonic() < deadline:
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)  # one that was just forked shows up in the next round


def _family(mark: str, root: int | None) -> list[psutil.Process]:
    found = set()
    if root is not None:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(root)
            found = {parent, *parent.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # ended meanwhile, or another user's
            if mark in process.environ().get(MARK, ""):
                found.add(process)
    return [process for process in found if process.pid != os.getpid() and _alive(process)]


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
