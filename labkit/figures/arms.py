"""A study of several arms (TrainTraces with exams before and after): what each arm came to, and why.

trade_off        length against accuracy of every arm, one mark a seed, from the common start
study_table      the arms' numbers as a table, the paper's beside
entropy_places   where the entropy sits: at choices, in results, and how many choices there are
"""

from collections.abc import Mapping, Sequence

import numpy as np
from IPython.display import HTML
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.figures import theme
from labkit.figures.tables import html_table
from labkit.studies.stats import spread
from labkit.traces import TrainTrace

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


def trade_off(
    arms: Mapping[str, Sequence[TrainTrace]], panels: Mapping[str | int, str], title: str = ""
) -> Figure:
    """Length against accuracy: one mark per seed, the model before as a cross.

    panels  what to show -> its title: "after", the last exam, or the step of an exam on the way
    """
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(9.2, 4.2), sharex=True, sharey=True, squeeze=False
    )
    start = next(iter(arms.values()))[0].meta["before"]
    for axis, (when, words) in zip(axes.flat, panels.items(), strict=True):
        axis.scatter(start["length"], 100 * start["accuracy"], marker="+", s=160, c=theme.INK, linewidths=2)
        axis.annotate(
            "before", (start["length"], 100 * start["accuracy"]), (-10, 8), ha="right",
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
        for index, (arm, runs) in enumerate(arms.items()):
            colour, marker = (cycle[index % len(cycle)] for cycle in (theme.CYCLE, theme.MARKERS))
            length, right = _read(runs, "length", when), 100 * _read(runs, "accuracy", when)
            how = {"s": 60, "c": colour, "marker": marker, "edgecolors": "white", "zorder": 3}
            axis.scatter(length, right, label=theme.drawable(arm), **how)
        axis.set_title(theme.drawable(words), fontsize=10, fontweight="normal", loc="left")
        axis.set_xlabel("length of held-out responses (tokens)")
        axis.margins(0.08)
    axes[0, 0].set_ylabel("held-out accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    if title:
        theme.headline(figure, theme.drawable(title))
    return figure


def _read(runs: Sequence[TrainTrace], name: str, when: str | int) -> np.ndarray:
    if when == "after":
        return np.array([run.meta["after"][name] for run in runs])
    found = [run.curve(f"exam/{name}") for run in runs]
    return np.array([values[steps == when][0] for steps, values in found])


def study_table(rows: Sequence[Mapping], caption: str = "") -> HTML:
    """Rows of ``fgo.claims.summary``: one value per seed, of more than two their mean and range."""
    paper = "paper: acc / tokens / ACT / invalid"
    head = ["arm", "seeds", *(heading for heading, _ in COLUMNS.values()), paper]
    lines = []
    for row in rows:
        measured = [
            spread(row[name], f",.{digits}f") if name in row else ""
            for name, (_, digits) in COLUMNS.items()
        ]
        lines.append([row["arm"], str(row["seeds"]), *measured, _paper(row["paper"])])
    return html_table(head, lines, caption, numbers=range(1, len(head)))


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
