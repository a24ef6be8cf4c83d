"""The tree of one decode (BeamTrace): which states a search kept, what it dropped, where it hurried.

x = step, one marker per beam; score lane below; beside it the board, or the text as it grew. To change
how it is drawn: tree_layout's ``place_all`` says where things go, ``MODES`` and ``FATES`` how they look.
"""

from collections.abc import Callable

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.figures import theme
from labkit.figures.board import draw_board, draw_text
from labkit.figures.tree_layout import (
    FATES,
    MODES,
    Places,
    commits,
    finding,
    one_prompt,
    place_all,
    vocabulary_of,
)
from labkit.traces import BeamTrace

# States on the answer's path up to which its steps can be told in full, or by how much they fill.
ROOM, LITTLE_ROOM = 13, 40


def beam_tree(
    trace: BeamTrace,
    prompt: int = 0,
    *,
    truth: np.ndarray | None = None,
    baseline: BeamTrace | None = None,
    side: int | None = None,
    vocabulary: Callable[[int], str] | None = None,
) -> Figure:
    """The tree of one prompt; the answer's path is bold and labelled with what each step commits.

    truth     int (L,) right answer: the title says whether the search found it
    baseline  greedy trace of the same prompts: the title says how many calls that took
    side      draw a side x side board next to the tree
    vocabulary  token id -> its text; without ``side``, draws the text as it grows next to the tree.
                None: labels have the texts that ``generate`` noted in the trace, if it made it

    ValueError if the trace was made with record=False or an argument is out of range.
    """
    one = one_prompt(trace, prompt)
    place = place_all(one)
    slots = int(one.beam_slot.max()) + 1
    if side is None and vocabulary is None:
        figure, axes = pyplot.subplots(
            2, 1, figsize=(11, 2.9 + 0.75 * slots), height_ratios=(slots + 0.6, 1.2), sharex=True
        )
        tree, lane = axes
    else:
        wide = side is None or side > 4
        figure = pyplot.figure(figsize=(13 if wide else 11.5, 2.9 + 0.75 * max(slots, 2)))
        widths = (1.5, 1) if wide else (2.6, 1)
        grid = figure.add_gridspec(2, 2, width_ratios=widths, height_ratios=(slots + 0.6, 1.2))
        tree = figure.add_subplot(grid[0, 0])
        lane = figure.add_subplot(grid[1, 0], sharex=tree)
        beside = figure.add_subplot(grid[:, 1])
        if side is not None:
            draw_board(beside, one, place.answer, side, truth)
        elif vocabulary is not None:
            draw_text(beside, one, place.answer, vocabulary)
    _draw_tree(tree, one, place, side, vocabulary or vocabulary_of(trace))
    _draw_scores(lane, one, place)
    tree.tick_params(labelbottom=False)
    handles, labels = tree.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8.5)
    rival = "" if baseline is None else f" (greedy: {baseline.calls[prompt]})"
    words = finding(one, place.answer, truth, rival=rival)
    if (dtype := trace.meta.get("dtype")) not in (None, "", "float32"):
        words += f"\n{dtype} on {trace.meta['provenance']['device']}"
    theme.headline(figure, theme.drawable(words))
    return figure


def _draw_tree(
    axes: Axes, trace: BeamTrace, place: Places, side: int | None, vocabulary: Callable[[int], str] | None
) -> None:
    crowded, size = len(place.answer) > ROOM, 95 * min(1, LITTLE_ROOM / len(place.answer)) ** 2
    ends = np.where(place.target[:, None] < 0, place.stub, place.beam[place.target])
    lines = np.stack([place.beam[place.source], ends], axis=1)  # (candidates, both ends, x and y)
    bold = np.isin(place.source, place.answer) & np.isin(place.target, place.answer)
    for chosen, colour, width, order in ((~bold, theme.MUTED, 0.9, 1), (bold, theme.INK, 3, 2)):
        axes.add_collection(LineCollection(
            list(lines[chosen]), colors=colour, linewidths=width, capstyle="round", zorder=order,
        ))  # fmt: skip
    if len(place.answer) <= LITTLE_ROOM:
        for c in np.flatnonzero(bold):
            told = commits(trace, int(c), side, vocabulary)
            text = f"+{len(told)}" if crowded else theme.drawable("\n".join(told))
            middle = lines[c, 0] + 0.7 * (lines[c, 1] - lines[c, 0])  # clear of the dropped candidates
            axes.annotate(
                text, middle, (0, 7), textcoords="offset points", ha="center", va="bottom",
                fontsize=8 if crowded else 7,
                bbox={"facecolor": theme.PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 0.8}, zorder=5,
            )  # fmt: skip
    for fate, (name, colour, marker) in FATES.items():
        x, y = place.stub[trace.cand_fate == fate].T
        axes.scatter(x, y, s=34, color=colour, marker=marker, linewidths=1.6, zorder=3, label=name)
    for mode, (name, colour, marker) in MODES.items():
        x, y = place.beam[trace.beam_mode == mode].T
        axes.scatter(
            x, y, s=size, color=colour, marker=marker, edgecolors=theme.PAPER, zorder=4, label=name
        )
    slots = int(trace.beam_slot.max()) + 1
    axes.set(ylim=(-slots + 0.1, 0.95), ylabel="rank in the beam")
    axes.set_yticks(-np.arange(slots), [str(slot + 1) for slot in range(slots)])
    axes.grid(axis="y", visible=False)


def _draw_scores(axes: Axes, trace: BeamTrace, place: Places) -> None:
    axes.scatter(trace.beam_step, trace.beam_score, s=16, color=theme.MUTED, zorder=2)
    path = place.answer[trace.beam_committed[place.answer] > 0]
    axes.plot(trace.beam_step[path], trace.beam_score[path], color=theme.INK, zorder=3, linewidth=2.2)
    committed = trace.beam_committed > 0
    low, high = trace.beam_score[committed].min(initial=1), trace.beam_score[committed].max(initial=0)
    room = max(high - low, 1e-6) * 0.15
    name = {"mean": "mean", "sum": "sum of"}[trace.meta["parameters"]["score"]]
    axes.set(ylim=(low - room, high + room), xlabel="forward call", ylabel=f"{name} confidence")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.ticklabel_format(axis="y", useOffset=False)
