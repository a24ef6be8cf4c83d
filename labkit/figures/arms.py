"""A study of several arms (TrainTraces with exams before and after): what each arm came to, and why.

frontier         accuracy against length of every arm, sampled and greedy
entropy_places   where the entropy sits: at choices, in results, and how many choices there are
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.figures import theme
from labkit.traces import TrainTrace

NEAR = 1.3  # times the shortest arm's length
PLACES = {
    "exam/entropy_per_token": "entropy per token (nats)",
    "exam/entropy_choice": "… at choices (check, go on, answer)",
    "exam/entropy_result": "… inside results",
    "exam/checks": "checks per response",
}


def frontier(points: Mapping[str, Any], title: str = "", named: Sequence[str] = ()) -> Figure:
    """Accuracy against length of ``fgo.frontier.frontier``: one point an arm with its intervals.

    A family's arms are joined along their strength; rivals' marks are hollow, FGO's and its ablations'
    filled, the model before a cross. The lower row shows the arms that are not ``NEAR`` times as long as
    the shortest; ``named`` arms have their name beside their point.
    """
    figure, axes = pyplot.subplots(2, 2, figsize=(9.2, 8.6))
    for (above, below), exam in zip(axes.T, ("sampled", "greedy"), strict=True):
        arms = points[exam]
        above.scatter(*points["before"][exam], marker="+", s=160, c=theme.INK, linewidths=2, label="before")
        for axis in (above, below):
            _lines(axis, list(arms.values()))
            axis.set_xlabel("length of held-out responses (tokens)")
        limit = NEAR * min(point["length"][0] for point in arms.values())
        near = [point for point in arms.values() if point["length"][0] < limit]
        below.set(xlim=_range(near, "length"), ylim=_range(near, "accuracy"))
        for arm in named:
            axis = below if arms[arm] in near else above
            spot = [arms[arm][number][0] for number in ("length", "accuracy")]
            axis.annotate(theme.drawable(arm), spot, (6, 6), textcoords="offset points", fontsize=9)
        for axis, words in ((above, f"{exam} exam"), (below, f"{exam} exam, the short end")):
            axis.set_title(words, fontsize=10, fontweight="normal", loc="left")
    for axis in axes[:, 0]:
        axis.set_ylabel("held-out accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    if title:
        theme.headline(figure, theme.drawable(title))
    return figure


def _range(points: Sequence[Mapping], number: str) -> tuple[float, float]:
    """From the lowest to the highest end of an interval, with a margin."""
    ends = [value for point in points for value in point[number] if value is not None]
    room = 0.06 * (max(ends) - min(ends)) or 1
    return min(ends) - room, max(ends) + room


def _lines(axis: Axes, points: Sequence[Mapping]) -> None:
    for rival in (True, False):
        known = [point for point in points if point["rival"] is rival]
        for index, name in enumerate(dict.fromkeys(point["family"] for point in known)):
            own = [point for point in known if point["family"] == name]
            _line(axis, own, name, _rival(index) if rival else _own(index))


def _rival(index: int) -> dict[str, Any]:
    return {**theme.look(index), "linestyle": "--", "markerfacecolor": theme.PAPER}


def _own(index: int) -> dict[str, Any]:
    """Marks and colours from the other end, so that no rival has both."""
    colour, marker = theme.CYCLE[(index - 2) % len(theme.CYCLE)], theme.MARKERS[-1 - index]
    return {"color": colour, "marker": marker, "linestyle": "-"}


def _line(axis: Axes, own: Sequence[Mapping], label: str, look: Mapping[str, Any]) -> None:
    """One family's points with their intervals (none where they are None)."""
    across, up = (np.array([point[n] for point in own], float) for n in ("length", "accuracy"))
    bars = {key: np.abs(found[:, 1:] - found[:, :1]).T
            for key, found in (("xerr", across), ("yerr", up)) if np.isfinite(found).all()}  # fmt: skip
    axis.errorbar(across[:, 0], up[:, 0], **bars, label=theme.drawable(label), markersize=6, elinewidth=0.9,
                  linewidth=1, capsize=0, **look)  # fmt: skip


def entropy_places(
    arms: Mapping[str, Sequence[TrainTrace]], steps: Sequence[int | None] = (), title: str = ""
) -> Figure:
    """Exams' curves of ``PLACES``; a dotted line at each of ``steps``."""
    from labkit.figures.curves import training_curves

    figure = training_curves(arms, PLACES, title=title, cumulative=(), columns=4)
    for axis in figure.axes:
        axis.set_ylim(bottom=0)
        for step in {step for step in steps if step is not None}:
            axis.axvline(step, color=theme.MUTED, linewidth=1, linestyle=":")
    return figure
