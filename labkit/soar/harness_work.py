"""Requests of the harness in batches that fit in memory; what their forwards cost, for the results file."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size
from tqdm import tqdm

# Batches of requests between two savings of answers: more keep a batch fuller, fewer lose less.
BATCHES = 8


class Work:
    """Hands out requests, counts the forwards of ``net`` and times them.

    rows    of a batch
    trials  0: always ``rows``; else: fewer where memory runs out, and ``rows`` again for each of so many
            parts of the requests
    """

    def __init__(self, net: torch.nn.Module, rows: int, trials: int):
        self.rows, self.trials = rows, trials
        self.batch_sizes: list[int] = []  # what was found where trials > 0
        self.forward_calls = self.forward_rows = 0
        self.seconds = 0.0
        net.register_forward_hook(self._count)

    def _count(self, _: torch.nn.Module, given: tuple[torch.Tensor, ...], *rest: Any) -> None:
        self.forward_calls += 1
        self.forward_rows += len(given[0])

    @contextmanager
    def bar(self, total: int, title: str, disable: bool) -> Iterator[Any]:
        """A progress bar over ``total`` requests; the time it is open counts."""
        begun = time.perf_counter()
        try:
            with tqdm(total=total, desc=f"labkit: {title}", disable=disable) as shown:
                yield shown
        finally:
            self.seconds += time.perf_counter() - begun

    def batches(
        self, order: Sequence[int], run: Callable[[list[int], int], list]
    ) -> Iterator[tuple[list[int], list]]:
        """(requests, what ``run(requests, rows)`` gave for each) of BATCHES batches at a time, in order.

        ``run`` is called again, with half the rows, where memory runs out.
        """
        for part in np.array_split(np.array(order, int), self.trials or 1):
            left, rows = part.tolist(), self.rows

            def halved() -> int:
                nonlocal rows
                rows //= 2
                return rows

            while left:
                some, left = left[: BATCHES * rows], left[BATCHES * rows :]
                if self.trials:
                    fitting = find_executable_batch_size(
                        lambda batch_size, some=some: run(some, batch_size), rows, halved
                    )
                    yield some, fitting()
                else:
                    yield some, run(some, rows)
            if self.trials and len(part):
                self.batch_sizes.append(rows)
