"""scrubber: training curves of several arms and seeds under one cursor, and what was written at that step.

The browser holds every curve (thinned to its extremes if there are too many points) and moves the cursor
by itself; the completions stay in Python and come when a step is chosen.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from traitlets import Bytes, Dict, Int, List, Unicode, observe

from labkit import checks
from labkit.figures import curves
from labkit.traces import GroupTrace, TrainTrace
from labkit.widgets.base import error_text, present, static
from labkit.widgets.curve_pack import Traces, by_step, curves_of, flat, panels_of, runs_of, thin
from labkit.widgets.esm import esm
from labkit.widgets.export import NOTEBOOK, Instrument

BUDGET = 560_000  # bytes of curves in the widget's state, which must stay under 1 MB
RUNS, ROWS, LETTERS = 6, 8, 1200  # read at once, at most: runs, samples of each, signs of each


class Scrubber(Instrument):
    """The live instrument; ``scrubber`` makes it. Set ``step`` to move its cursor, ``shown`` to pick runs.

    points       (step int32, value float32) of all curves; ``extent`` lists [run, panel, first, count]
    sampled      int32 steps that have completions; ``completions`` holds those of ``step`` and ``shown``
    """

    _entry = "scrubber.js"
    _esm = esm(_entry)
    _css = static("instrument.css", "scrubber.css")
    title = Unicode().tag(sync=True)
    unit = Unicode("step").tag(sync=True)
    runs = List(Dict()).tag(sync=True)  # {"arm": ..., "seed": ...}
    panels = List(Unicode()).tag(sync=True)
    thinned = List(Int()).tag(sync=True)  # [points kept of a curve, points of the longest], empty: all kept
    extent = List(List(Int())).tag(sync=True)
    points = Bytes().tag(sync=True)
    sampled = Bytes().tag(sync=True)
    step = Int(0).tag(sync=True)
    shown = List(Int()).tag(sync=True)
    smooth = Int(1).tag(sync=True)
    completions = Dict().tag(sync=True)
    problem = Unicode().tag(sync=True)

    def __init__(
        self, runs: list[tuple[str, object, TrainTrace]], panels: Mapping[str, str], **state: object
    ):
        super().__init__(**self._curves(runs, panels) | {"shown": list(range(len(runs)))} | state)
        self._read()

    def replace(
        self, runs: list[tuple[str, object, TrainTrace]], panels: Mapping[str, str], **state: object
    ) -> None:
        """Show other curves in the same place: those of a training that goes on."""
        with self.hold_sync(), self.hold_trait_notifications():
            for name, value in (self._curves(runs, panels) | state).items():
                setattr(self, name, value)

    def _curves(self, runs: list, panels: Mapping[str, str]) -> dict[str, Any]:
        """The traits that hold the curves of ``runs``."""
        self._runs, self._panels = runs, panels
        self._samples = [by_step(trace) for _, _, trace in runs]
        found = curves_of([trace for _, _, trace in runs], list(panels))
        limit = max(32, BUDGET // 8 // max(1, len(found)))
        longest = max((len(steps) for _, _, steps, _ in found), default=0)
        extent, blocks, first = [], [], 0
        for run, panel, steps, values in found:
            steps, values = thin(steps, values, limit)
            extent.append([run, panel, first, len(steps)])
            blocks.append(np.stack((steps.astype("<i4"), values.astype("<f4").view("<i4")), -1))
            first += len(steps)
        sampled = np.array(sorted({step for samples in self._samples for step in samples}), int)
        return {
            "runs": [{"arm": arm, "seed": str(seed)} for arm, seed, _ in runs],
            "panels": list(panels.values()),
            "extent": extent,
            "points": b"".join(block.tobytes() for block in blocks),
            "thinned": [limit, longest] if longest > limit else [],
            "sampled": thin(sampled, np.zeros(len(sampled)), 4096)[0].astype("<i4").tobytes(),
        }

    @observe("step", "shown")
    def _read(self, change: object = None) -> None:
        """Fetch what the shown runs wrote at the cursor; what goes wrong is shown in the instrument."""
        try:
            for run in self.shown:
                checks.integer("shown", run, 0, len(self.runs) - 1)
            found = [self._written(run, self.step) for run in self.shown[:RUNS]]
            self.completions = {"step": self.step, "runs": found, "more": max(0, len(self.shown) - RUNS)}
            self.problem = ""
        except ValueError as error:
            self.problem = error_text(error)

    def _written(self, run: int, step: int) -> dict:
        near = sorted(self._samples[run], key=lambda known: (abs(known - step), known))[:3]
        return {"run": run, **self._rows(run, step), "near": sorted(near)}

    def _rows(self, run: int, step: int) -> dict:
        """What one run wrote at one step, and how much there was."""
        found = self._samples[run].get(step, [])
        rows = [{key: _plain(value) for key, value in row.items()} for row in found[:ROWS]]
        return {"rows": rows, "of": len(found)}

    def still(self) -> list[object]:
        arms = by_arm([self._runs[i] for i in self.shown])
        figure = figure_of(arms, self._panels, self.title, self.unit)
        parts: list[object] = [] if figure is None else [figure]
        for arm, found in arms.items():
            if steps := sorted(by_step(found[0])):
                near = min(steps, key=lambda known: (abs(known - self.step), known))
                parts.append(curves.sample_table(found[0], near, limit=3))
            elif any(self._samples):
                parts.append(f"{arm}: no completions were kept.")
        return parts

    def heading(self) -> str:
        return self.title or "Training curves: " + ", ".join(dict.fromkeys(run["arm"] for run in self.runs))

    def frozen(self, room: int) -> tuple[dict[str, Any], str]:
        """The completions of every step, or of equally spaced ones where they are more than ``room``."""
        steps = sorted({step for samples in self._samples for step in samples})
        size = sum(len(json.dumps(self._rows(run, step))) for run, step in self._pairs(steps))
        every = max(1, -(-size // room))
        kept = steps[::every]
        archive: list[dict[int, dict]] = [{} for _ in self.runs]
        for run, step in self._pairs(kept):
            archive[run][step] = self._rows(run, step)
        part = f"The completions of {len(kept)} of {len(steps)} steps are here; any other {NOTEBOOK}"
        missing = part if every > 1 else ""
        return {"archive": archive, "most": RUNS, "completions": {}, "problem": ""}, missing

    def _pairs(self, steps: list[int]) -> list[tuple[int, int]]:
        return [(run, step) for run, found in enumerate(self._samples) for step in steps if step in found]


def scrubber(
    traces: Traces,
    *,
    on: Sequence[str] | Mapping[str, str] | None = None,
    shown: Sequence[str] | None = None,
    step: int | None = None,
    title: str = "",
    name: str = "scrubber",
) -> Scrubber | None:
    """Show linked curves under one cursor, and without a kernel.

    traces  {arm: TrainTrace or list of them, one per seed}, one TrainTrace, a list of them (each tells its
            arm and seed in ``meta``), or a GroupTrace, whose questions then take the place of steps
    on      names of the series, or {name: label}; default: the known ones that were logged, at most eight.
            A series with one value per layer is drawn as the mean over layers
    shown   the arms that are switched on at first (default: all)
    step    where the cursor starts (default: the last step)
    title   a finding to stand above the curves
    name    unique in its cell; running the cell again replaces the instrument of that name

    ValueError names the argument at fault.
    """
    runs = runs_of(traces)
    panels = panels_of([trace for _, _, trace in runs], on)
    last = max(int(trace.step[-1]) for _, _, trace in runs)
    step = last if step is None else checks.integer("step", step, 0, last)
    known = list(dict.fromkeys(arm for arm, _, _ in runs))
    shown = known if shown is None else [checks.choice("shown", arm, known) for arm in shown]
    runs.sort(key=lambda run: run[0] not in shown)  # those come first, in the table and in the colours
    picked = [i for i, (arm, _, _) in enumerate(runs) if arm in shown]
    if not picked:
        checks.fail("shown", list(shown), "at least one arm")
    unit = "question" if isinstance(traces, GroupTrace) else "step"

    return present(
        lambda: Scrubber(runs, panels, step=step, title=title, unit=unit, shown=picked), name=name
    )


def by_arm(runs: list[tuple[str, object, TrainTrace]]) -> dict[str, list[TrainTrace]]:
    arms: dict[str, list[TrainTrace]] = {}
    for arm, _, trace in runs:
        arms.setdefault(arm, []).append(flat(trace))
    return arms


def figure_of(arms: dict[str, list[TrainTrace]], panels: Mapping[str, str], title: str, unit: str):
    """The curves that every run has, as the static figure; None if there is none."""
    common = {
        key: label
        for key, label in panels.items()
        if all(key in trace.series for found in arms.values() for trace in found)
    }
    if not common:
        return None
    figure = curves.training_curves(arms, common, title=title, columns=min(4, len(common)))
    for axis in figure.axes:
        axis.set_xlabel(axis.get_xlabel().replace("optimiser step", unit))
    return figure


def _plain(value: object) -> object:
    """A value that JSON has: short text, bool, None, or a number (None where it is not finite)."""
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.number):
        return float(value) if np.isfinite(value) else None
    text = str(value)
    return text if len(text) <= LETTERS else text[:LETTERS] + " …"
