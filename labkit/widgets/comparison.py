"""Comparison: each run of a panel joins the earlier ones under one cursor, also while it is under way."""

from collections.abc import Mapping, Sequence

from labkit import checks
from labkit.traces import TrainTrace
from labkit.widgets.base import headless
from labkit.widgets.curve_pack import panels_of, runs_of
from labkit.widgets.scrubber import Scrubber, by_arm, figure_of

UNTOLD = ("time", "commit")  # facts that do not tell two runs apart


class Comparison:
    """A ``draw`` for ``run_panel``: each result, a TrainTrace, joins the earlier ones under one cursor.

    last   how many runs are kept; the oldest goes first
    on     which series, as in ``scrubber``

    A run is named by its number and by what in its ``meta`` differs from the others. Live, a call returns
    a ``Scrubber``; headless, the figure of the same curves.
    """

    def __init__(self, *, last: int = 4, on: Sequence[str] | Mapping[str, str] | None = None):
        self._last, self._on = checks.integer("last", last, 1), on
        self._made: list[tuple[int, TrainTrace]] = []
        self._scrubber: Scrubber | None = None

    def __call__(self, trace: TrainTrace) -> object:
        made = self._with(trace)
        drawn = self._drawn(made)
        self._made = made  # a run that cannot be drawn is not kept: it would spoil the next
        return drawn

    def grow(self, trace: TrainTrace) -> object:
        """The earlier runs beside one that is still under way; a later call draws it anew."""
        return self._drawn(self._with(trace))

    def _with(self, trace: TrainTrace) -> list[tuple[int, TrainTrace]]:
        number = self._made[-1][0] + 1 if self._made else 1
        return [*self._made, (number, trace)][-self._last :]

    def _drawn(self, made: list[tuple[int, TrainTrace]]) -> object:
        names = _names(made)
        runs = runs_of(dict(zip(names, [trace for _, trace in made], strict=True)))
        panels = panels_of([trace for *_, trace in runs], self._on)
        if headless():
            return figure_of(by_arm(runs), panels, "", "step")
        before = [str(number) for number, _ in made[:-1]]
        title = names[-1][0].upper() + names[-1][1:] + (f" beside {', '.join(before)}" if before else "")
        state = {"step": int(made[-1][1].step[-1]), "title": title, "shown": list(range(len(runs)))}
        if self._scrubber is None:
            self._scrubber = Scrubber(runs, panels, **state)
        else:
            self._scrubber.replace(runs, panels, **state)
        return self._scrubber


def _names(made: list[tuple[int, TrainTrace]]) -> list[str]:
    """Of every run: its number, and what of its settings the others have otherwise; of a lone one, some."""
    plain = [
        {
            key: value if isinstance(value, int | float | str) else ", ".join(map(str, value))
            for key, value in trace.meta.get("settings", trace.meta).items()
            if isinstance(value, int | float | str | list)
        }
        for _, trace in made
    ]
    known = {
        key: {str(facts[key]) for facts in plain if key in facts}
        for facts in reversed(plain)
        for key in facts
    }
    lone = len(made) == 1 and "settings" in made[0][1].meta  # beside controls, which may stand elsewhere
    differ = [key for key, found in known.items() if (lone or len(found) > 1) and key not in UNTOLD]
    return [
        ", ".join([f"run {number}", *(f"{key} {facts[key]}" for key in differ if key in facts)][:4])
        + (", stopped" if "stopped" in trace.meta else "")
        for (number, trace), facts in zip(made, plain, strict=True)
    ]
