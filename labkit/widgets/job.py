"""Slow work of a panel: in a thread, so that the notebook stays usable, until someone stops it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from labkit.progress import Stopped


class Job:
    """One piece of work at a time.

    Args:
        threaded: False: where no event loop runs, as in a script, ``start`` returns when the work is done.
    """

    def __init__(self, *, threaded: bool = True):
        self.halted = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            # its outcome is handed over between two cells: pyplot is not made for two threads
            self._loop = asyncio.get_running_loop()
        self._threaded = threaded or self._loop is not None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], object], finish: Callable[[object], None]) -> None:
        """Run ``work()`` and give ``finish`` what it returned or raised; none may be ``running``."""
        self.halted.clear()

        def go() -> None:
            try:
                outcome = work()
            except BaseException as error:  # shown in the panel, whatever it is
                outcome = error
            self.hand_over(finish, outcome)

        if not self._threaded:
            return go()
        self._thread = threading.Thread(target=go, daemon=True)
        self._thread.start()

    def hand_over(self, call: Callable[..., None], *values: object) -> None:
        """From the work: ``call(*values)`` in the notebook's thread, if it has one."""
        if self._loop:
            self._loop.call_soon_threadsafe(call, *values)
        else:
            call(*values)

    def stop(self) -> None:
        """Let the work end at its next ``check``."""
        self.halted.set()

    def check(self, reached: str) -> None:
        """Called by the work at each step. Stopped("stopped after <reached>") once someone stopped it."""
        if self.halted.is_set():
            raise Stopped(f"stopped after {reached}")
