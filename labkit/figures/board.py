"""What a decode filled in, and when: a Sudoku board, or a text that grows call by call."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle

from labkit import checks
from labkit.figures import theme
from labkit.traces import BeamTrace

GIVEN = "#d9dce1"
TOKENS = 3000  # more in one picture, calls by positions, are too small to read and take minutes to draw


def draw_board(axes: Axes, trace: BeamTrace, path: np.ndarray, side: int, truth: np.ndarray | None) -> None:
    """The answer of a one-prompt trace as a board, on ``axes``; ``path``: the states that lead to it.

    Given cells are grey and bold; filled ones carry the call that filled them, in colour and number;
    cells that differ from ``truth`` are struck out. ValueError if the trace is no side x side board.
    """
    if trace.sequences.shape[1] != checks.integer("side", side, 1) ** 2:
        checks.fail("side", side, f"the side of a board of {trace.sequences.shape[1]} cells")
    tokens, when = history(trace, path)[-1]
    scale = Normalize(1, max(2, int(trace.beam_step.max())))
    colours = pyplot.get_cmap(theme.MAGNITUDE)
    for cell, token in enumerate(tokens):
        y, x = divmod(cell, side)
        filled = when[cell] > 0
        face = colours(scale(when[cell])) if filled else GIVEN if token else theme.PAPER
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor=theme.PAPER, linewidth=1))
        if not token:
            continue
        dark = filled and scale(when[cell]) < 0.5
        ink, weight = theme.PAPER if dark else theme.INK, "normal" if filled else "bold"
        axes.text(
            x + 0.45, y + 0.45, str(token), ha="center", va="center", color=ink,
            fontsize=max(60 / side, 9), fontweight=weight,
        )  # fmt: skip
        if filled:
            axes.text(
                x + 0.95, y + 0.88, str(when[cell]), ha="right", va="center", color=ink,
                fontsize=max(26 / side, 5.5),
            )  # fmt: skip
        if truth is not None and token != truth[cell]:
            axes.plot([x + 0.1, x + 0.9], [y + 0.9, y + 0.1], color=theme.RED, linewidth=2.5)
    root = int(side**0.5)
    for line in range(side + 1):
        width = 2.2 if line % root == 0 else 0.6
        axes.plot([0, side], [line, line], color=theme.INK, linewidth=width)
        axes.plot([line, line], [0, side], color=theme.INK, linewidth=width)
    axes.set(xlim=(-0.04, side + 0.04), ylim=(side + 0.04, -0.04), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    wrong = truth is not None and ((tokens != truth) & (tokens != trace.meta["mask_id"])).sum()
    struck = f": {wrong} wrong (struck out)" if wrong else ""
    axes.set_title(f"best board after {len(path) - 1} calls{struck}", fontsize=9, fontweight="normal")
    axes.set_xlabel("grey, bold: given   ·   small number: call that filled it", fontsize=8)


def draw_text(axes: Axes, trace: BeamTrace, path: np.ndarray, vocabulary: Callable[[int], str]) -> None:
    """One line per state of ``path``: how the text of a one-prompt trace grew, forward call by call.

    What a call committed is boxed; masks are dots in the middle of the line. More than TOKENS tokens are
    coloured points.

    vocabulary  token id -> its text; every position gets the same width
    """
    lines = history(trace, path)
    length = trace.sequences.shape[1]
    mask = trace.meta["mask_id"]
    if len(lines) * length <= TOKENS:
        _draw_words(axes, lines, mask, vocabulary)
        says = "boxed = filled by this call"
    else:
        tokens, when = (np.stack(part) for part in zip(*lines, strict=True))
        now = when == np.arange(len(lines))[:, None]
        kind = np.select([tokens == mask, now, when > 0], [0, 3, 2], 1)
        colours = ListedColormap([theme.PAPER, GIVEN, theme.SKY, theme.BLUE])
        axes.imshow(kind, colours, vmin=0, vmax=3, aspect="auto", interpolation="nearest")
        says = "dark = filled by this call, light = before, grey = given"
    axes.set(xlim=(-0.7, length - 0.3), ylim=(len(lines) - 0.4, -0.6), ylabel="forward calls so far")
    axes.set_xticks([])
    axes.set_yticks(range(0, len(lines), max(1, len(lines) // 8)))
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set_title(f"how the best text grew: {says}", fontsize=9, fontweight="normal")


def _draw_words(
    axes: Axes, lines: list[tuple[np.ndarray, np.ndarray]], mask: int, vocabulary: Callable[[int], str]
) -> None:
    for y, (tokens, when) in enumerate(lines):
        for x, token in enumerate(tokens):
            if token == mask:
                axes.text(x, y, "·", color=theme.MUTED, ha="center", va="center", fontsize=8)
                continue
            new = y and when[x] == y
            box = {"facecolor": theme.SKY, "edgecolor": theme.BLUE, "pad": 1, "alpha": 0.6} if new else None
            axes.text(
                x, y, theme.drawable(vocabulary(int(token))), ha="center", va="center",
                fontsize=8, family="monospace",
                color=theme.INK if when[x] > 0 else theme.MUTED, fontweight="bold" if new else "normal",
                bbox=box,
            )  # fmt: skip


def history(trace: BeamTrace, path: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens, call that filled them or -1) of each state of ``path``."""
    states = trace.beam_tokens[path]
    when = np.full(len(states[0]), -1)
    history = [(states[0], when)]
    for call, (before, after) in enumerate(pairwise(states), start=1):
        when = np.where(before != after, call, when)
        history.append((after, when))
    return history
