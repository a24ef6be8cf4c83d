"""The tree of one decode (BeamTrace): which states a search kept, what it dropped, where it hurried.

beam_tree    x = step, one marker per beam; score lane below; the board beside it if there is one
hover_tree   the same tree for the pointer: each state and candidate tells what it commits and why

To change how the tree is drawn: ``_place`` says where things go, ``MODES`` and ``FATES`` how they look.
"""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit import checks
from labkit.figures import theme
from labkit.figures.board import draw_board
from labkit.traces import ACCELERATE, FINISHED, KEPT, MERGED, PRUNED, SEARCH, BeamTrace

# value: (name, colour, matplotlib marker, plotly symbol)
MODES = {
    SEARCH: ("search: tries positions one by one", theme.BLUE, "o", "circle"),
    ACCELERATE: ("accelerate: commits all it is sure of", theme.ORANGE, ">", "triangle-right"),
    FINISHED: ("finished", theme.GREEN, "D", "diamond"),
}
FATES = {
    PRUNED: ("pruned candidate", theme.MUTED, "x", "x-thin-open"),
    MERGED: ("merged: same board as a better one", theme.PURPLE, "+", "cross-thin-open"),
}
STUB = 0.42  # how far along a step a dropped candidate ends


@dataclass
class Places:
    """Where ``_place`` puts the rows of a trace, and which rows an edge joins."""

    beam: np.ndarray  # (b, 2)
    stub: np.ndarray  # (c, 2), NaN where the candidate was kept
    source: np.ndarray  # (c,) beam row a candidate comes from
    target: np.ndarray  # (c,) beam row it became, -1 if dropped
    answer: np.ndarray  # beam rows from the start to the answer


def _place(trace: BeamTrace) -> Places:
    row = {key: i for i, key in enumerate(zip(trace.beam_step, trace.beam_slot, strict=True))}
    beam = np.column_stack([trace.beam_step, -trace.beam_slot]).astype(float)
    source = np.array([row[key] for key in zip(trace.cand_step, trace.cand_parent, strict=True)], int)
    target = np.array(
        [row.get(key, -1) for key in zip(trace.cand_step + 1, trace.cand_child, strict=True)], int
    )
    stub = np.full((len(source), 2), np.nan)
    for parent in np.unique(source):
        dropped = np.flatnonzero((source == parent) & (trace.cand_fate != KEPT))
        # spread below the parent, clear of the row beneath
        fall = 0.2 + 0.5 * (np.arange(len(dropped)) + 1) / (len(dropped) + 1)
        stub[dropped] = beam[parent] + np.column_stack([np.full(len(dropped), STUB), -fall])
    answer = [row[trace.beam_step.max(), 0]]
    while (step := trace.beam_step[answer[-1]]) > 0:
        answer.append(row[step - 1, trace.beam_parent[answer[-1]]])
    return Places(beam, stub, source, target, np.array(answer[::-1]))


def beam_tree(
    trace: BeamTrace,
    prompt: int = 0,
    *,
    truth: np.ndarray | None = None,
    baseline: BeamTrace | None = None,
    step: int | None = None,
    side: int | None = None,
) -> Figure:
    """The tree of one prompt; the answer's path is bold and labelled with what each step commits.

    truth     int (L,) right answer: the title says whether the search found it
    baseline  greedy trace of the same prompts: the title says how many calls that took
    step      fade what comes after this step and show the best board of it (default: the end)
    side      draw a side x side board next to the tree

    ValueError if the trace was made with record=False or an argument is out of range.
    """
    one = _one(trace, prompt)
    last = int(one.beam_step.max())
    step = last if step is None else checks.integer("step", step, 0, last)
    place = _place(one)
    slots = int(one.beam_slot.max()) + 1
    if side is None:
        figure, axes = pyplot.subplots(
            2, 1, figsize=(11, 2.9 + 0.75 * slots), height_ratios=(slots + 0.6, 1.2), sharex=True
        )
        tree, lane = axes
    else:
        figure = pyplot.figure(figsize=(11.5, 2.9 + 0.75 * max(slots, 2)))
        grid = figure.add_gridspec(2, 2, width_ratios=(2.6, 1), height_ratios=(slots + 0.6, 1.2))
        tree = figure.add_subplot(grid[0, 0])
        lane = figure.add_subplot(grid[1, 0], sharex=tree)
        draw_board(figure.add_subplot(grid[:, 1]), one, step, side, truth)
    _draw_tree(tree, one, place, step, side)
    _draw_scores(lane, one, place, step)
    tree.tick_params(labelbottom=False)
    handles, labels = tree.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8.5)
    figure.suptitle(
        _finding(one, place, prompt, truth, baseline), fontweight="bold", fontsize=11, x=0.01, ha="left"
    )
    return figure


def _draw_tree(axes: Axes, trace: BeamTrace, place: Places, step: int, side: int | None) -> None:
    path = set(place.answer.tolist())
    for c, (source, target) in enumerate(zip(place.source, place.target, strict=True)):
        start = place.beam[source]
        end = place.stub[c] if target < 0 else place.beam[target]
        bold = target in path and source in path
        shown = trace.cand_step[c] < step
        axes.plot(
            *np.column_stack([start, end]), color=theme.INK if bold else theme.MUTED,
            zorder=2 if bold else 1, linewidth=3 if bold else 0.9, alpha=1 if shown else 0.15,
            solid_capstyle="round",
        )  # fmt: skip
        if bold and shown:
            text = "\n".join(_commits(trace, c, side))
            middle = start + 0.7 * (end - start)  # clear of the dropped candidates
            axes.annotate(
                text, middle, (0, 7), textcoords="offset points", ha="center", va="bottom", fontsize=7,
                bbox={"facecolor": theme.PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 0.8}, zorder=5,
            )  # fmt: skip
    for fate, (name, colour, marker, _) in FATES.items():
        for late in (False, True):
            chosen = (trace.cand_fate == fate) & ((trace.cand_step >= step) == late)
            axes.scatter(
                *place.stub[chosen].T, s=34, color=colour, marker=marker, linewidths=1.6, zorder=3,
                alpha=0.15 if late else 1, label=None if late else name,
            )  # fmt: skip
    for mode, (name, colour, marker, _) in MODES.items():
        for late in (False, True):
            chosen = (trace.beam_mode == mode) & ((trace.beam_step > step) == late)
            axes.scatter(
                *place.beam[chosen].T, s=95, color=colour, marker=marker, edgecolors=theme.PAPER, zorder=4,
                alpha=0.2 if late else 1, label=None if late else name,
            )  # fmt: skip
    slots = int(trace.beam_slot.max()) + 1
    axes.set(ylim=(-slots + 0.1, 0.95), ylabel="rank in the beam")
    axes.set_yticks(-np.arange(slots), [str(slot + 1) for slot in range(slots)])
    axes.grid(axis="y", visible=False)


def _draw_scores(axes: Axes, trace: BeamTrace, place: Places, step: int) -> None:
    shown = trace.beam_step <= step
    axes.scatter(trace.beam_step[shown], trace.beam_score[shown], s=16, color=theme.MUTED, zorder=2)
    path = place.answer[(trace.beam_step[place.answer] <= step) & (trace.beam_committed[place.answer] > 0)]
    axes.plot(trace.beam_step[path], trace.beam_score[path], color=theme.INK, zorder=3, linewidth=2.2)
    committed = trace.beam_committed > 0
    low, high = trace.beam_score[committed].min(initial=1), trace.beam_score[committed].max(initial=0)
    room = max(high - low, 1e-6) * 0.15
    axes.set(ylim=(low - room, high + room), xlabel="forward call", ylabel=_score_name(trace))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.ticklabel_format(axis="y", useOffset=False)


def hover_tree(
    trace: BeamTrace, prompt: int = 0, *, truth: np.ndarray | None = None, side: int | None = None
) -> go.Figure:
    """``beam_tree`` for the pointer: hover a state or a dropped candidate. Arguments as there."""
    one = _one(trace, prompt)
    place = _place(one)
    path = set(place.answer.tolist())
    lines = {True: [], False: []}
    for c, (source, target) in enumerate(zip(place.source, place.target, strict=True)):
        end = place.stub[c] if target < 0 else place.beam[target]
        lines[target in path and source in path] += [place.beam[source], end, (None, None)]
    figure = go.Figure()
    for bold, points in lines.items():
        x, y = zip(*points, strict=True) if points else ((), ())
        line = {"color": theme.INK if bold else theme.MUTED, "width": 4 if bold else 1}
        name = "the answer's path" if bold else "other moves"
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name=name)
    for fate, (name, colour, _, symbol) in FATES.items():
        rows = np.flatnonzero(one.cand_fate == fate)
        notes = [
            f"{name}<br>{', '.join(_commits(one, c, side)) or 'nothing'}<br>score {one.cand_score[c]:.5f}"
            f"<br>confidence {_numbers(one.cand_confidence[c])}"
            for c in rows
        ]
        _dots(figure, place.stub[rows], name, colour, symbol, 9, notes)
    for mode, (name, colour, _, symbol) in MODES.items():
        rows = np.flatnonzero(one.beam_mode == mode)
        notes = [
            f"call {one.beam_step[b]}, rank {one.beam_slot[b] + 1}: {name}<br>score {one.beam_score[b]:.5f}"
            f"<br>{one.beam_committed[b]} filled, {np.sum(~np.isnan(one.beam_confidence[b]))} candidates"
            f"<br>most sure: {_numbers(np.sort(one.beam_confidence[b])[::-1][:3])}"
            for b in rows
        ]
        _dots(figure, place.beam[rows], name, colour, symbol, 13, notes)
    slots = int(one.beam_slot.max()) + 1
    ranks = list(range(slots))
    figure.update_layout(
        title=_finding(one, place, prompt, truth, None),
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


def _one(trace: BeamTrace, prompt: int) -> BeamTrace:
    one = trace.of_prompt(prompt)
    if not len(one.beam_step):
        raise ValueError("trace must be decoded with record=True; this one has no beams to draw")
    return one


def _finding(
    one: BeamTrace, place: Places, prompt: int, truth: np.ndarray | None, baseline: BeamTrace | None
) -> str:
    sure = (one.beam_mode[place.answer] == ACCELERATE).sum()
    name = {"soar": "SOAR", "pbs": "PBS"}.get(one.meta["strategy"], one.meta["strategy"].capitalize())
    verb = "finished"
    if truth is not None:
        verb = "solved it" if (one.sequences[0] == truth).all() else "got it wrong"
    calls = one.calls[0]
    title = f"{name} {verb} in {calls} forward calls"
    if baseline is not None:
        title += f" (greedy: {baseline.calls[prompt]})"
    dropped = f"{(one.cand_fate != KEPT).sum()} of {len(one.cand_step)} candidates dropped"
    return f"{title}; {sure} of {calls} steps accelerate, {dropped}"


def _score_name(trace: BeamTrace) -> str:
    return "mean confidence" if trace.meta["parameters"]["score"] == "mean" else "sum of confidence"


def _commits(trace: BeamTrace, candidate: int, side: int | None) -> list[str]:
    """What a candidate commits, one text per token: row, column = digit on a board, else position=id."""
    texts = []
    for position, token in zip(trace.cand_positions[candidate], trace.cand_tokens[candidate], strict=True):
        if position >= 0:
            where = str(position) if side is None else f"r{position // side + 1}c{position % side + 1}"
            texts.append(f"{where}={token}")
    return texts


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4f}" for value in values[~np.isnan(values)]) or "none"
