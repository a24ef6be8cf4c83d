"""Processes pinned to cards that work off the study's jobs, those of one arm in the process that has it.

spread   keep every process busy until no job is left or the deadline has passed
pick     which job a free process takes
"""

import multiprocessing as mp
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from labkit.studies.elas.plan import Job

# Compiling an arm takes as long as this many of its runs: fewer are not worth a second process.
WORTH_COMPILING = 3


@dataclass
class Slot:
    """One process: its card, its place among those that share the card, the arm it has compiled."""

    card: int
    place: int
    start: Callable[[int], None]
    built: str | None = None
    busy: bool = False

    def __post_init__(self):
        self._open()

    def _open(self) -> None:
        self.executor = ProcessPoolExecutor(
            1, mp_context=mp.get_context("spawn"), initializer=self.start, initargs=(self.card,)
        )

    def submit(self, work: Callable[[Job], Any], job: Job) -> Future:
        """Run ``work(job)`` in the slot's process, a new one where the last has died."""
        self.built, self.busy = job.built, True
        try:
            return self.executor.submit(work, job)
        except BrokenProcessPool:
            self._open()
            return self.executor.submit(work, job)


def spread(
    waiting: Callable[[], Sequence[Job]],
    work: Callable[[Job], Any],
    done: Callable[[Job, Any, BaseException | None], None],
    slots: Sequence[Slot],
    deadline: float,
) -> None:
    """Work off jobs until none is waiting or ``deadline`` (time.time()) has passed.

    waiting   the jobs that can start and have no result yet, most important first; asked again and again,
              since a result may allow new ones
    work      called in a process of a slot, must be picklable
    done      told (job, result, None) or (job, None, exception); a job is not tried twice
    """
    running: dict[Future, tuple[Slot, Job]] = {}
    started: set[str] = set()
    try:
        while True:
            jobs = [job for job in waiting() if job.name not in started and time.time() < deadline]
            for slot in slots:
                if slot.busy or (job := pick(jobs, slot, slots, [j for _, j in running.values()])) is None:
                    continue
                jobs.remove(job)
                started.add(job.name)
                running[slot.submit(work, job)] = slot, job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, job = running.pop(future)
                slot.busy = False
                error = future.exception()
                done(job, None if error else future.result(), error)
    finally:
        for slot in slots:
            slot.executor.shutdown(cancel_futures=True)


def pick(jobs: Sequence[Job], slot: Slot, slots: Sequence[Slot], running: Sequence[Job]) -> Job | None:
    """The first job of the slot's own arm; else of an arm that no process has; else of the fullest arm.

    Where processes share a card, a step is timed by the card's first one while the others wait.
    """
    if any(other.place for other in slots):
        timing = [job for job in jobs if job.stage == "times"]
        if timing and (slot.place or any(job.stage != "times" for job in running)):
            return None
        if slot.place and any(job.stage == "times" for job in running):
            return None
        jobs = timing or jobs
    for job in jobs:
        if job.built == slot.built:
            return job
    taken = {other.built for other in slots if other is not slot}
    for job in jobs:
        if job.built not in taken:
            return job
    left = [job.built for job in jobs]
    fullest = max(jobs, key=lambda job: left.count(job.built), default=None)
    return fullest if fullest and left.count(fullest.built) >= WORTH_COMPILING else None
