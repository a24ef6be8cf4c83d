"""Two processes of one training, as torchrun starts them."""

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def two_processes(work: Callable[[], int], log: Path) -> None:
    """``work`` in two forks of this process, which have torchrun's environment; each must return 0.

    log   file for what they print, told if one fails

    Forks have imported all that ``work`` needs: torchrun's three processes import it anew, for ten seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [_fork(work, log, rank, port) for rank in (0, 1)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], log.read_text()[-3000:]


def _fork(work: Callable[[], int], log: Path, rank: int, port: int) -> int:
    """The number of the process."""
    if child := os.fork():
        return child
    code = 1
    signal.alarm(400)  # one that fails leaves the other waiting for it
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        _forget_to_be_alone()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _forget_to_be_alone() -> None:
    """What accelerate found out when something was trained in this process before."""
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()
