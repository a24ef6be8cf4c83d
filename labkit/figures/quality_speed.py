"""Accuracy against speed (the outcomes of a study): the plane, the paper's plane, paired differences.

plane     share solved against how many times fewer forward calls than greedy, beside the paper's figure
paired    difference to greedy on the same puzzles with its 95 % interval, one line per setting
table     the same as a table

An outcome is a dict: ``setting`` (with ``strategy``), ``label``, ``accuracy``, ``low``, ``high``,
``speed``, ``calls``, ``rows``, ``difference``, ``difference_low``, ``difference_high``, ``gained``,
``lost``, ``p``; the first is greedy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from labkit.figures import theme

LOOKS = {  # strategy: colour, marker
    "greedy": (theme.INK, "X"),
    "parallel": (theme.PURPLE, "s"),
    "adaptive": (theme.ORANGE, "^"),
    "pbs": (theme.SKY, "D"),
    "soar": (theme.BLUE, "o"),
}
# Read off the plot in the authors' repository: mean accuracy (%) of GSM8K, MBPP and HumanEval, and
# speed relative to greedy in wall time. arXiv 2602.10953.
PUBLISHED = [
    ("greedy", "greedy", 60.1, 1.00), ("pbs", "PBS", 63.0, 0.53), ("pbs", "PBS, parallel", 60.7, 1.00),
    ("soar", "SOAR", 62.4, 1.43), ("adaptive", "adaptive parallel", 59.3, 2.05),
    ("parallel", "fixed parallel", 49.0, 2.00),
]  # fmt: skip


def plane(
    outcomes: Sequence[dict[str, Any]],
    chosen: Sequence[str] = (),
    count: int | None = None,
    name: str = "this notebook: Sudoku, one small model",
) -> Figure:
    """Left: the outcomes with 95 % intervals. Right: the paper's published figure.

    chosen  labels of the settings to ring and to name in the title
    count   number of puzzles, for the axis label
    name    what the left panel shows
    """
    figure, (ours, paper) = pyplot.subplots(1, 2, figsize=(11.5, 4.8), width_ratios=(1.7, 1))
    for strategy, (colour, marker) in LOOKS.items():
        own = [o for o in outcomes if o["setting"]["strategy"] == strategy]
        if not own:
            continue
        # SOAR: one line per beam, along its thresholds; the others: one line
        lines = {_line(o) for o in own}
        for kind in lines:
            line = sorted((o["speed"], 100 * o["accuracy"]) for o in own if _line(o) == kind)
            ours.plot(*zip(*line, strict=True), color=colour, linewidth=1, alpha=0.6, zorder=2)
        speed, share, low, high = (
            np.array([o[key] for o in own]) for key in ("speed", "accuracy", "low", "high")
        )
        drawn = ours.errorbar(
            speed, 100 * share, 100 * np.stack([share - low, high - share]), color=colour, fmt=marker,
            markersize=7, elinewidth=0.9, markeredgecolor=theme.PAPER, label=strategy, zorder=3,
        )  # fmt: skip
        for bar in drawn[2]:
            bar.set_alpha(0.4)
    _ring(ours, outcomes, chosen)
    ours.axhline(100 * outcomes[0]["accuracy"], color=theme.INK, linewidth=0.8, linestyle=":", zorder=1)
    among = f" of {count} held-out puzzles" if count else ""
    ours.set(xscale="log", xlabel="times fewer forward calls than greedy", ylabel=f"solved (%){among}")
    speeds = [o["speed"] for o in outcomes]
    _plain_ticks(ours, max(speeds))
    ours.set_xlim(0.88 * min(speeds), 1.12 * max(speeds))
    ours.legend(loc="lower left", ncols=2)
    ours.set_title(name, fontweight="normal", fontsize=10)
    _draw_published(paper)
    figure.suptitle(_finding(outcomes, chosen), fontweight="bold", fontsize=11, x=0.01, ha="left")
    return figure


def paired(outcomes: Sequence[dict[str, Any]], chosen: Sequence[str] = ()) -> Figure:
    """Difference to the first outcome (greedy), sorted; filled where the interval leaves out zero."""
    others = sorted(outcomes[1:], key=lambda o: o["difference"])
    figure, axes = pyplot.subplots(figsize=(9.5, 1.4 + 0.3 * len(others)))
    for y, outcome in enumerate(others):
        colour, marker = LOOKS[outcome["setting"]["strategy"]]
        low, middle, high = (100 * outcome[f"difference{end}"] for end in ("_low", "", "_high"))
        clear = low > 0 or high < 0
        axes.plot([low, high], [y, y], color=colour, linewidth=2)
        axes.plot(
            middle, y, marker, color=colour if clear else theme.PAPER, markeredgecolor=colour, markersize=7
        )
        note = (
            f"+{outcome['gained']} −{outcome['lost']}, p = {outcome['p']:.2g}, {outcome['calls']:.1f} calls"
        )
        axes.annotate(note, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(0, color=theme.INK, linewidth=1)
    names = [("→ " if o["label"] in chosen else "") + o["label"] for o in others]
    axes.set_yticks(range(len(others)), names)
    axes.set(xlabel="points of solved puzzles above greedy (paired, 95 % bootstrap interval)")
    axes.grid(axis="y", visible=False)
    better = sum(o["difference_low"] > 0 for o in others)
    worse = sum(o["difference_high"] < 0 for o in others)
    noise = len(others) - better - worse
    figure.suptitle(
        f"Against greedy, {better} settings are better, {worse} worse, {noise} within noise",
        fontweight="bold", fontsize=11, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def table(outcomes: Sequence[dict[str, Any]], count: int) -> pandas.DataFrame:
    """One row per setting: solved, difference to the first with 95 % intervals, z, p, calls, rows, seconds.

    count  number of puzzles they were decoded on
    """
    rows = []
    for o in outcomes:
        rows.append({
            "setting": o["label"], "puzzles": count,
            "solved (%)": f"{100 * o['accuracy']:.2f} [{100 * o['low']:.2f}, {100 * o['high']:.2f}]",
            "against greedy (points)": f"{100 * o['difference']:+.2f} "
            f"[{100 * o['difference_low']:+.2f}, {100 * o['difference_high']:+.2f}]",
            "won, lost": f"{o['gained']}, {o['lost']}", "z": f"{o['z']:+.1f}", "p": f"{o['p']:.1g}",
            "forward calls": f"{o['calls']:.1f}", "fewer": f"{o['speed']:.2f}×", "rows": f"{o['rows']:.1f}",
            "seconds for all": f"{o['seconds']:.1f}",
        })  # fmt: skip
    return pandas.DataFrame(rows).set_index("setting")


def _line(outcome: dict[str, Any]) -> tuple:
    """Settings that differ in their threshold only are joined by a line."""
    setting = outcome["setting"]
    if setting["strategy"] != "soar":
        return (setting["strategy"],)
    return tuple(setting.get(key) for key in ("beam", "score", "min_collapse"))


def _ring(axes: Axes, outcomes: Sequence[dict[str, Any]], chosen: Sequence[str]) -> None:
    for outcome in outcomes:
        if outcome["label"] in chosen:
            at = (outcome["speed"], 100 * outcome["accuracy"])
            axes.plot(
                *at, "o", markersize=16, fillstyle="none", color=theme.RED, markeredgewidth=2, zorder=4
            )
            axes.annotate(
                outcome["label"], at, (4, 13), textcoords="offset points", color=theme.RED, fontsize=9
            )


def _draw_published(axes: Axes) -> None:
    for strategy, name, share, speed in PUBLISHED:
        colour, marker = LOOKS[strategy]
        face = theme.PAPER if name == "PBS, parallel" else colour
        axes.plot(speed, share, marker, color=face, markeredgecolor=colour, markersize=8)
        left = speed > 1.8
        axes.annotate(
            name, (speed, share), (-8 if left else 8, 0), textcoords="offset points", fontsize=8.5,
            ha="right" if left else "left", va="center",
        )  # fmt: skip
    axes.set(xscale="log", xlim=(0.45, 2.4), xlabel="speed relative to greedy (wall time)")
    axes.set(ylabel="mean accuracy (%)")
    _plain_ticks(axes, 2)
    axes.set_title("published: LLMs, mean of 3 benchmarks (not ours)", fontweight="normal", fontsize=10)


def _plain_ticks(axes: Axes, most: float) -> None:
    ticks = [tick for tick in (0.5, 1, 1.5, 2, 3, 4, 6, 8) if tick <= 1.15 * most]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])


def _finding(outcomes: Sequence[dict[str, Any]], chosen: Sequence[str]) -> str:
    base, parts = outcomes[0], []
    for o in outcomes:
        if o["label"] in chosen:
            noise = o["difference_low"] <= 0 <= o["difference_high"]
            verdict = "within noise" if noise else "better" if o["difference"] > 0 else "worse"
            change = f"{100 * o['difference']:+.1f} points ({verdict})"
            parts.append(f"{o['label']} {change} in {o['calls']:.1f} calls, greedy {base['calls']:.1f}")
    if parts:
        joined = ";\n".join(parts)
        return f"Against greedy's {base['accuracy']:.1%}: {joined}"
    best = max(outcomes, key=lambda o: o["accuracy"])
    return f"Most accurate: {best['label']}, {best['accuracy']:.1%} against greedy's {base['accuracy']:.1%}"
