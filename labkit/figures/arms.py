"""A study of several arms (TrainTraces with exams before and after): what each arm came to, and why.

trade_off        length against accuracy of every arm, one mark a seed, from the common start
study_table      the arms' numbers as a table, the paper's beside
entropy_places   where the entropy sits: at choices, in results, and how many choices there are
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from IPython.display import HTML
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from labkit.figures import theme
from labkit.figures.tables import html_table
from labkit.studies.stats import spread
from labkit.traces import TrainTrace

SYMBOLS = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "triangle-down",
    "star",
    "pentagon",
    "hexagon",
    "x",
)
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
) -> go.Figure:
    """Length against accuracy for the pointer: one mark per seed, the model before as a cross.

    panels  what to show -> its title: "after", the last exam, or the step of an exam on the way
    """
    figure = make_subplots(
        1, len(panels), shared_xaxes="all", shared_yaxes="all", subplot_titles=list(panels.values()),
        horizontal_spacing=0.05,
    )  # fmt: skip
    start = next(iter(arms.values()))[0].meta["before"]
    tip = "%{text}: %{y:.1f} % right, %{x:.1f} tokens<extra></extra>"
    for column, when in enumerate(panels, 1):
        begun = [start["length"]], [100 * start["accuracy"]]
        marks = [("before", *begun, ["before"], theme.INK, "cross-thin")]
        for index, (arm, runs) in enumerate(arms.items()):
            colour, symbol = theme.CYCLE[index % len(theme.CYCLE)], SYMBOLS[index % len(SYMBOLS)]
            told = [f"{arm}, seed {run.meta.get('seed', i)}" for i, run in enumerate(runs)]
            places = _read(runs, "length", when), 100 * _read(runs, "accuracy", when)
            marks.append((arm, *(place.round(4).tolist() for place in places), told, colour, symbol))
        for name, x, y, told, colour, symbol in marks:
            edge = (
                {"color": theme.INK, "width": 2} if name == "before" else {"color": theme.PAPER, "width": 1}
            )
            figure.add_scatter(
                x=x, y=y, text=told, hovertemplate=tip, mode="markers", name=name, legendgroup=name,
                showlegend=column == 1, row=1, col=column,
                marker={"color": colour, "symbol": symbol, "size": 12, "line": edge},
            )  # fmt: skip
        figure.update_xaxes(title_text="length of held-out responses (tokens)", row=1, col=column)
    figure.update_yaxes(title_text="held-out accuracy (%)", row=1, col=1)
    figure.update_layout(title=title, height=460, legend={"orientation": "h", "y": -0.2}, margin={"t": 90})
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
