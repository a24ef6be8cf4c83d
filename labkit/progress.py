"""One progress argument for everything slow: a bar, silence, or a function that is told and may stop it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Self

# True: a tqdm bar. False: silence. A function: called as progress(done, total) after each step; what it
# raises (Stopped, for instance) ends the work there.
Progress = bool | Callable[[int, int | None], None]


class Stopped(Exception):
    """Raised by a progress function to end the work that reports to it."""


def bar(progress: Progress, steps: Iterable | None = None, **options: Any) -> Any:
    """What tqdm(steps, **options) would be: a bar, a silent one, or one that reports to ``progress``.

    A bar is text, in notebooks too: tqdm.auto's widget is gone with its kernel. There it goes to stdout:
    JupyterLab shows stderr as a warning.
    """
    if callable(progress):
        return _Told(progress, steps, options.get("total"), options.get("initial", 0))
    from tqdm import tqdm  # late: a widget needs none

    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    return tqdm(steps, disable=not progress, file=sys.stdout if in_notebook else None, **options)


def tell_rows(progress: Progress, rows: list[dict[str, Any]]) -> None:
    """Give a training's log so far, dicts of ``step`` and values, to a progress function that draws it.

    Such a function has a method ``rows``; any other is not asked.
    """
    if tell := getattr(progress, "rows", None):
        tell(rows)


@contextmanager
def no_bar() -> Iterator[None]:
    """Keep transformers from showing a bar of its own, in notebooks a widget, inside the block."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Told:
    """The part of tqdm that the lab uses, reporting instead of drawing."""

    def __init__(self, tell: Callable, steps: Iterable | None, total: int | None, done: int):
        self.tell, self.steps, self.done = tell, steps, done
        self.total = len(steps) if total is None and isinstance(steps, Sized) else total

    def update(self, n: int = 1) -> None:
        self.done += n
        self.tell(self.done, self.total)

    def __iter__(self) -> Iterator:
        for step in self.steps or ():
            yield step
            self.update()

    def set_postfix_str(self, text: str) -> None:
        """Bars show it; a progress function gets counts alone."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
