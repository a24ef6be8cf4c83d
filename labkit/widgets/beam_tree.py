"""The live beam tree: pick a puzzle, a beam and a threshold, scrub through the calls."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from ipywidgets import IntSlider, SelectionSlider

from labkit.figures.beam_tree import beam_tree
from labkit.traces import BeamTrace
from labkit.widgets.base import explore

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9993, 0.9995, 0.9997, 0.9999)


def beam_panel(
    run: Callable[..., BeamTrace],
    truths: np.ndarray,
    *,
    side: int,
    puzzle: int,
    beam: int,
    threshold: float,
) -> None:
    """Show the panel; it starts at ``puzzle``, ``beam``, ``threshold`` and the last call.

    run     run(puzzle, beam=..., threshold=...) -> BeamTrace of that puzzle alone; fast, no side effect
    truths  int (N, side²) the solutions
    """
    decoded = lru_cache(maxsize=64)(run)

    def draw(puzzle: int, beam: int, threshold: float, call: int) -> object:
        trace = decoded(puzzle, beam=beam, threshold=threshold)
        return beam_tree(trace, truth=truths[puzzle], side=side, step=min(call, int(trace.calls[0])))

    known = sorted({*THRESHOLDS, threshold})
    explore(
        draw,
        name="beam tree",
        puzzle=IntSlider(puzzle, 0, len(truths) - 1, description="puzzle"),
        beam=IntSlider(beam, 1, 6, description="beam"),
        threshold=SelectionSlider(options=known, value=threshold, description="threshold"),
        call=IntSlider(side**2, 0, side**2, description="after call"),
    )
