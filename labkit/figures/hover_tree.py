"""The beam tree for the pointer: each state and dropped candidate tells what it commits and why."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go

from labkit.figures import theme
from labkit.figures.tree_layout import FATES, MODES, commits, finding, numbers, one_prompt, place_all
from labkit.traces import BeamTrace


def hover_tree(
    trace: BeamTrace,
    prompt: int = 0,
    *,
    truth: np.ndarray | None = None,
    side: int | None = None,
    vocabulary: Callable[[int], str] | None = None,
) -> go.Figure:
    """``beam_tree`` for the pointer: hover a state or a dropped candidate. Arguments as there."""
    one = one_prompt(trace, prompt)
    place = place_all(one)
    path = set(place.answer.tolist())
    lines: dict[bool, list[Any]] = {True: [], False: []}  # points; (None, None) ends a line
    for c, (source, target) in enumerate(zip(place.source, place.target, strict=True)):
        end = place.stub[c] if target < 0 else place.beam[target]
        lines[target in path and source in path] += [place.beam[source], end, (None, None)]
    told = partial(commits, one, side=side, vocabulary=vocabulary)
    figure = go.Figure()
    for bold, points in lines.items():
        x, y = zip(*points, strict=True) if points else ((), ())
        line = {"color": theme.INK if bold else theme.MUTED, "width": 4 if bold else 1}
        name = "the answer's path" if bold else "other moves"
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name=name)
    for fate, (name, colour, _, symbol) in FATES.items():
        rows = np.flatnonzero(one.cand_fate == fate)
        notes = [
            f"{name}<br>{', '.join(told(c)) or 'nothing'}<br>score {one.cand_score[c]:.5f}"
            f"<br>confidence {numbers(one.cand_confidence[c])}"
            for c in rows.tolist()
        ]
        _dots(figure, place.stub[rows], name, colour, symbol, 9, notes)
    for mode, (name, colour, _, symbol) in MODES.items():
        rows = np.flatnonzero(one.beam_mode == mode)
        notes = [
            f"call {one.beam_step[b]}, rank {one.beam_slot[b] + 1}: {name}<br>score {one.beam_score[b]:.5f}"
            f"<br>{one.beam_committed[b]} filled, {np.sum(~np.isnan(one.beam_confidence[b]))} candidates"
            f"<br>most sure: {numbers(np.sort(one.beam_confidence[b])[::-1][:3])}"
            for b in rows
        ]
        _dots(figure, place.beam[rows], name, colour, symbol, 13, notes)
    slots = int(one.beam_slot.max()) + 1
    ranks = list(range(slots))
    figure.update_layout(
        title=finding(one, place.answer, truth),
        xaxis={"title": "forward call", "dtick": 1, "zeroline": False},
        yaxis={"title": "rank in the beam", "tickvals": [-r for r in ranks],
               "ticktext": [r + 1 for r in ranks], "showgrid": False, "zeroline": False},
        height=250 + 75 * slots, legend={"orientation": "h", "y": -0.25}, hovermode="closest",
    )  # fmt: skip
    return figure


def _dots(
    figure: go.Figure, at: np.ndarray, name: str, colour: str, symbol: str, size: int, notes: list[str]
) -> None:
    line = {"width": 2, "color": colour} if symbol.endswith("open") else {"width": 1, "color": theme.PAPER}
    marker = {"color": colour, "symbol": symbol, "size": size, "line": line}
    at = at.round(3)
    figure.add_scatter(
        x=at[:, 0], y=at[:, 1], mode="markers", marker=marker, name=name, text=notes, hoverinfo="text"
    )
