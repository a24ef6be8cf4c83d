"""A Sudoku board as a decode left it: what was given, what was filled, when, and what is wrong."""

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from labkit import checks
from labkit.figures import theme
from labkit.traces import BeamTrace


def draw_board(axes: Axes, trace: BeamTrace, step: int, side: int, truth: np.ndarray | None) -> None:
    """The best board before forward call ``step`` of a one-prompt trace, on ``axes``.

    Given cells are grey and bold; filled ones carry the call that filled them, in colour and number;
    cells that differ from ``truth`` are struck out. ValueError if the trace is no side x side board.
    """
    if trace.sequences.shape[1] != side**2:
        checks.fail("side", side, f"the side of a board of {trace.sequences.shape[1]} cells")
    row = np.flatnonzero((trace.beam_step == step) & (trace.beam_slot == 0))[0]
    tokens, when = trace.beam_tokens[row], np.full(side**2, -1)
    while (now := trace.beam_step[row]) > 0:
        before = np.flatnonzero((trace.beam_step == now - 1) & (trace.beam_slot == trace.beam_parent[row]))[
            0
        ]
        when[trace.beam_tokens[row] != trace.beam_tokens[before]] = now
        row = before
    scale = Normalize(1, max(2, int(trace.beam_step.max())))
    colours = pyplot.get_cmap(theme.MAGNITUDE)
    for cell, token in enumerate(tokens):
        y, x = divmod(cell, side)
        filled = when[cell] > 0
        face = colours(scale(when[cell])) if filled else "#d9dce1" if token else theme.PAPER
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor=theme.PAPER, linewidth=1))
        if not token:
            continue
        dark = filled and scale(when[cell]) < 0.5
        style = {"ha": "center", "va": "center", "color": theme.PAPER if dark else theme.INK}
        weight = "normal" if filled else "bold"
        axes.text(x + 0.5, y + 0.45, str(token), fontsize=60 / side, fontweight=weight, **style)
        if filled:
            axes.text(x + 0.92, y + 0.87, str(when[cell]), **(style | {"ha": "right"}), fontsize=26 / side)
        if truth is not None and token != truth[cell]:
            axes.plot([x + 0.1, x + 0.9], [y + 0.9, y + 0.1], color=theme.RED, linewidth=2.5)
    root = int(side**0.5)
    for line in range(side + 1):
        heavy = {"color": theme.INK, "linewidth": 2.2 if line % root == 0 else 0.6}
        axes.plot([0, side], [line, line], **heavy)
        axes.plot([line, line], [0, side], **heavy)
    axes.set(xlim=(-0.04, side + 0.04), ylim=(side + 0.04, -0.04), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    wrong = truth is not None and ((tokens != truth) & (tokens != trace.meta["mask_id"])).sum()
    struck = f": {wrong} wrong (struck out)" if wrong else ""
    axes.set_title(f"best board after {step} calls{struck}", fontsize=9, fontweight="normal")
    axes.set_xlabel("grey, bold: given   ·   small number: call that filled it", fontsize=8)
