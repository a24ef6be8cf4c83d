"""A study of several arms (TrainTraces with exams before and after): what each arm came to, and why.

trade_off        length against accuracy of every arm, seeds and intervals, from the common start
study_table      the arms' numbers as a table, the paper's beside
entropy_places   where the entropy sits: at choices, in results, and how many choices there are
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from IPython.display import HTML
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.figures import theme
from labkit.traces import TrainTrace

NORMAL = 1.96  # two-sided 95 %
COLUMNS = {  # summary's key -> (heading, digits)
    "accuracy": ("accuracy (%)", 1),
    "length": ("tokens", 1),
    "act": ("ACT", 0),
    "entropy": ("entropy, sum (nats)", 2),
    "entropy_per_token": ("entropy / token", 3),
    "checks": ("checks", 2),
    "invalid": ("invalid of 3,200", 0),
    "constant": ("constant of 3,200", 0),
}
PLACES = {
    "exam/entropy_per_token": "entropy per token (nats)",
    "exam/entropy_choice": "… at choices (check, go on, answer)",
    "exam/entropy_result": "… inside results",
    "exam/checks": "checks per response",
}


def trade_off(arms: Mapping[str, Sequence[TrainTrace]], title: str = "") -> Figure:
    """One point per seed with its 95 % interval, marks and colours by arm, the model before as a cross."""
    figure, axis = pyplot.subplots(figsize=(9.2, 4.4))
    some = next(iter(arms.values()))[0].meta["before"]
    axis.scatter(some["length"], 100 * some["accuracy"], marker="+", s=160, c=theme.INK, linewidths=2)
    axis.annotate(
        "before", (some["length"], 100 * some["accuracy"]), (8, 6), textcoords="offset points", fontsize=9
    )
    for index, (arm, runs) in enumerate(arms.items()):
        after = [run.meta["after"] for run in runs]
        colour, marker = (cycle[index % len(cycle)] for cycle in (theme.CYCLE, theme.MARKERS))
        length, accuracy = (np.array([found[name] for found in after]) for name in ("length", "accuracy"))
        axis.errorbar(
            length, 100 * accuracy, fmt="none", ecolor=colour, alpha=0.6, elinewidth=1,
            xerr=NORMAL * np.array([found["length_error"] for found in after]),
            yerr=100 * NORMAL * np.array([found["accuracy_error"] for found in after]),
        )  # fmt: skip
        axis.scatter(
            length, 100 * accuracy, s=70, c=colour, marker=marker, label=arm, edgecolors="white", zorder=3
        )
    axis.set(xlabel="length of held-out responses (tokens)", ylabel="held-out accuracy (%)")
    axis.margins(0.08)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def study_table(rows: Sequence[Mapping], caption: str = "") -> HTML:
    """Rows of ``fgo.recorded.summary``: mean and, under it, the seeds' range; the paper's numbers last."""
    head = [
        "arm",
        "seeds",
        *(heading for heading, _ in COLUMNS.values()),
        "paper: acc / tokens / ACT / invalid",
    ]
    lines = []
    for row in rows:
        cells = [f"<td style='text-align:left'>{html.escape(row['arm'])}</td><td>{row['seeds']}</td>"]
        for name, (_, digits) in COLUMNS.items():
            cells.append(f"<td>{_spread(row.get(name), digits)}</td>")
        cells.append(f"<td>{_paper(row['paper'])}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(
        f"<table><caption style='text-align:left'>{html.escape(caption)}</caption>"
        f"<thead><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _spread(found: tuple[float, float, float] | None, digits: int) -> str:
    if found is None:
        return ""
    mean, low, high = (f"{value:,.{digits}f}" for value in found)
    return mean if low == high else f"{mean}<br><small>{low} to {high}</small>"


def _paper(found: Mapping | None) -> str:
    if not found:
        return ""
    told = f"{found['accuracy']:g} / {found['length']:g} / {found['act']:g}"
    invalid = found.get("invalid")
    if invalid:
        low, high = min(invalid), max(invalid)
        told += f" / {low:,}" + (f" to {high:,}" if high > low else "")
    return told


def entropy_places(
    arms: Mapping[str, Sequence[TrainTrace]], step: int | None = None, title: str = ""
) -> Figure:
    """Exams' curves of ``PLACES``, mean and range of seeds; a line at ``step``."""
    from labkit.figures.curves import training_curves

    figure = training_curves(arms, PLACES, title=title, cumulative=(), columns=4)
    for axis in figure.axes:
        axis.set_ylim(bottom=0)
        if step is not None:
            axis.axvline(step, color=theme.MUTED, linewidth=1, linestyle=":")
    return figure
