"""Accuracy against speed: the validation plane, the paper's plane, paired differences on the test puzzles.

plane     share solved against how many times fewer forward calls than greedy, beside the paper's figure
paired    difference to greedy on the same puzzles, one line per arm: interval, or a mark per seed
table     the same as a table

An outcome (``plane``) is a dict of one setting: ``setting``, ``family``, ``label``, ``accuracy``,
``speed``; the first is greedy. A row (``paired``, ``table``) is ``studies.soar.outcomes.Row``: one arm
against greedy, over puzzles for one model or over training seeds.
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

LOOKS = {  # family: colour, marker
    "greedy": (theme.INK, "X"),
    "parallel": (theme.PURPLE, "s"),
    "adaptive": (theme.ORANGE, "^"),
    "adaptive uncapped": (theme.GREEN, "v"),
    "factor": (theme.OLIVE, "P"),
    "eb": (theme.RED, "*"),
    "klass": (theme.MUTED, "<"),
    "pbs": (theme.SKY, "D"),
    "order_token": (theme.BROWN, "p"),
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
    outcomes: Sequence[Sequence[dict[str, Any]]],
    chosen: Sequence[str] = (),
    count: int | None = None,
    name: str = "this notebook: Sudoku, one small model",
) -> Figure:
    """Left: validation outcomes, means over the models. Right: the paper's published figure.

    outcomes  one list per model (training seed), the same settings in each
    chosen    labels of the settings to ring and to name in the title
    count     number of puzzles, for the axis label
    name      what the left panel shows
    """
    figure, (ours, paper) = pyplot.subplots(1, 2, figsize=(11.5, 4.8), width_ratios=(1.7, 1))
    points = _means(outcomes)
    for family, (colour, marker) in LOOKS.items():
        own = [point for point in points if point["family"] == family]
        if not own:
            continue
        # SOAR: one line per beam, along its thresholds; the others: one line
        for kind in {point["line"] for point in own}:
            line = sorted((p["speed"], 100 * p["accuracy"]) for p in own if p["line"] == kind)
            ours.plot(*zip(*line, strict=True), color=colour, linewidth=1, alpha=0.6, zorder=2)
        at = [p["speed"] for p in own], [100 * p["accuracy"] for p in own]
        look = {"markersize": 7, "markeredgecolor": theme.PAPER, "linestyle": ""}
        ours.plot(*at, color=colour, marker=marker, label=family, zorder=3, **look)
    for point in points:
        if point["label"] in chosen:
            at = (point["speed"], 100 * point["accuracy"])
            ours.plot(
                *at, "o", markersize=16, fillstyle="none", color=theme.RED, markeredgewidth=2, zorder=4
            )
            ours.annotate(
                point["label"], at, (4, 13), textcoords="offset points", color=theme.RED, fontsize=9
            )
    ours.axhline(100 * points[0]["accuracy"], color=theme.INK, linewidth=0.8, linestyle=":", zorder=1)
    among = f" of {count:,} validation puzzles" if count else ""
    among += f", mean of {len(outcomes)} seeds" * (len(outcomes) > 1)
    ours.set(xscale="log", xlabel="times fewer forward calls than greedy", ylabel=f"solved (%){among}")
    speeds = [point["speed"] for point in points]
    _plain_ticks(ours, max(speeds))
    ours.set_xlim(0.88 * min(speeds), 1.12 * max(speeds))
    ours.legend(loc="lower left", ncols=2)
    ours.set_title(name, fontweight="normal", fontsize=10)
    _draw_published(paper)
    best = max(points, key=lambda point: point["accuracy"])
    title = f"To choose settings by, no test: most solved by {best['label']}, {best['accuracy']:.1%}; "
    theme.headline(figure, f"{title}greedy {points[0]['accuracy']:.1%}")
    return figure


def _means(outcomes: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One point per setting that all models ran, in the first model's order."""
    tables = [{outcome["label"]: outcome for outcome in of_model} for of_model in outcomes]
    points = []
    for label, first in tables[0].items():
        if all(label in table for table in tables):
            means = {key: float(np.mean([t[label][key] for t in tables])) for key in ("accuracy", "speed")}
            line = tuple(first["setting"].get(key) for key in ("beam", "score", "min_collapse"))
            line *= first["family"] == "soar"
            points.append({"label": label, "family": first["family"], "line": line, **means})
    return points


def paired(rows: Sequence[Any], chosen: Sequence[str] = ()) -> Figure:
    """Difference to greedy, best on top: an interval (filled: without zero) or a mark per seed."""
    others = sorted((row for row in rows if row.family != "greedy"), key=lambda row: row.gain.estimate)
    figure, axes = pyplot.subplots(figsize=(9.5, 1.4 + 0.3 * len(others)))
    for y, row in enumerate(others):
        colour, marker = LOOKS[row.family]
        gain = row.gain
        if gain.low is None:
            marks, filled = gain.values, False
        else:
            marks, filled = (gain.estimate,), gain.low > 0 or gain.high < 0
            axes.plot([100 * gain.low, 100 * gain.high], [y, y], color=colour, linewidth=2)
        face = colour if filled else theme.PAPER
        axes.plot(
            [100 * value for value in marks], [y] * len(marks), marker, color=face, markeredgecolor=colour,
            markersize=7,
        )  # fmt: skip
        p = ", ".join(f"{test.p:.2g}" for test in row.tests)
        note = f"p = {p}; {row.calls:.1f} calls, {row.speed:.1f}x fewer"
        axes.annotate(note, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(0, color=theme.INK, linewidth=1)
    names = [("→ " if row.label in chosen else "") + row.label for row in others]
    axes.set_yticks(range(len(others)), names)
    axes.grid(axis="y", visible=False)
    gain = others[0].gain
    method = f"95 % interval over {gain.count}" if gain.low is not None else f"{gain.count}, no interval"
    axes.set(xlabel=f"points of solved puzzles above greedy (paired; {method})")
    theme.headline(figure, _counted(others))
    return figure


def _counted(rows: Sequence[Any]) -> str:
    """Title: how many intervals lie above, below and around zero; without intervals the range of values."""
    if rows[0].gain.low is None:
        values = [100 * value for row in rows for value in row.gain.values]
        return (
            f"Differences to greedy: {min(values):+.1f} to {max(values):+.1f} points, {rows[0].gain.count}"
        )
    better, worse = sum(row.gain.low > 0 for row in rows), sum(row.gain.high < 0 for row in rows)
    noise = len(rows) - better - worse
    return f"Against greedy, {better} of {len(rows)} are better, {worse} worse, {noise} not resolved"


def table(rows: Sequence[Any]) -> pandas.DataFrame:
    """One line per row, in their order: solved, difference to greedy, exact tests, calls, rows, seconds."""
    lines = []
    for row in rows:
        greedy = row.family == "greedy"
        tests = "; ".join(f"+{t.gained} −{t.lost}, p = {t.p:.1g}" for t in row.tests)
        lines.append({
            "setting": row.label, "solved (%)": row.share.text(".2f", scale=100),
            "against greedy (points)": "" if greedy else row.gain.text("+.2f", scale=100),
            "won and lost, exact p, per model": "" if greedy else tests,
            "forward calls": f"{row.calls:.1f}", "fewer": f"{row.speed:.2f}×", "rows": f"{row.rows:.1f}",
            "seconds for all": f"{row.seconds:.1f}",
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index("setting")


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
