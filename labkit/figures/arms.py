"""A study of several arms (TrainTraces with exams before and after): what each arm came to, and why.

frontier    accuracy against length of every arm, sampled and greedy
PLACES      series of the exams: where the entropy sits, at choices or in results; how many checks there are
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.figures import theme

COLOURS = (*theme.CYCLE[:6], theme.OLIVE, theme.GREY)  # a family has its own pair of colour and symbol
SYMBOLS = (
    "circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "star", "hexagon", "cross",
    "bowtie", "star-square", "hourglass",
)  # fmt: skip
FIRST = ("GRPO", "FGO")  # families with the same marks as where their trainings are drawn
NEAR = 1.3  # times the shortest arm's length
PLACES = {
    "exam/entropy_per_token": "entropy per token (nats)",
    "exam/entropy_choice": "… at choices (check, go on, answer)",
    "exam/entropy_result": "… inside results",
    "exam/checks": "checks per response",
}


def frontier(points: Mapping[str, Any], titles: Mapping[str, str], named: Sequence[str] = ()) -> go.Figure:
    """Accuracy against length of ``fgo.frontier.frontier``, for the pointer.

    A mark is an arm with its intervals. A family's arms are joined along their strength; rivals' marks are
    hollow, FGO's and its ablations' filled, the model before a cross. The broad line joins the arms that no
    other beats in both. The right panel has the arms of less than ``NEAR`` times the shortest's length.

    titles  {exam of ``points``: the finding to stand above it}; with two a button changes the exam
    named   arms whose name stands beside their mark
    """
    figure = make_subplots(1, 2, column_widths=[0.42, 0.58], horizontal_spacing=0.07)
    drawn: list[str] = []  # of each trace, its exam
    for exam in titles:
        for column in (1, 2):
            for trace in _exam(points, exam, column, named):
                figure.add_trace(trace, row=1, col=column)
                drawn.append(exam)
    views = {exam: _view(figure, points, exam, drawn, title) for exam, title in titles.items()}
    first = next(iter(titles))
    for trace, visible in zip(figure.data, views[first][0]["visible"], strict=True):
        trace.visible = visible
    figure.update_layout(views[first][1])
    figure.update_xaxes(title_text="length of held-out responses (tokens)")
    figure.update_yaxes(title_text="held-out accuracy (%)", col=1)
    figure.update_layout(height=365, legend={"orientation": "h", "y": -0.36, "itemwidth": 30})
    if len(views) > 1:
        figure.update_layout(updatemenus=[{
            "type": "buttons", "direction": "right", "x": 1, "xanchor": "right",
            "y": 1.01, "yanchor": "bottom", "pad": {"b": 2},
            "bgcolor": theme.GRID, "bordercolor": theme.MUTED, "font": {"color": theme.INK},
            "buttons": [{"label": f"{exam} exam", "method": "update", "args": list(view)}
                        for exam, view in views.items()],
        }])  # fmt: skip
    return figure


def _view(
    figure: go.Figure, points: Mapping[str, Any], exam: str, drawn: Sequence[str], title: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a button changes: which traces show; title and ranges of the panels."""
    theme.plotly_title(figure, title)
    length, accuracy = points["before"][exam]
    whole = [*points[exam].values(), {"length": [length], "accuracy": [accuracy]}]
    ranges = {
        f"{axis}axis{panel}.range": _range(shown, number)
        for panel, shown in (("", whole), ("2", _near(points[exam])))
        for axis, number in (("x", "length"), ("y", "accuracy"))
    }
    return (
        {"visible": [one == exam for one in drawn]},
        {"title.text": figure.layout.title.text, "margin.t": figure.layout.margin.t + 14, **ranges},
    )


def _near(arms: Mapping[str, Mapping]) -> list[Mapping]:
    limit = NEAR * min(point["length"][0] for point in arms.values())
    return [point for point in arms.values() if point["length"][0] < limit]


def _range(points: Sequence[Mapping], number: str) -> list[float]:
    """From the lowest to the highest end of an interval, with a margin."""
    ends = [value for point in points for value in point[number] if value is not None]
    room = 0.1 * (max(ends) - min(ends)) or 1
    return [round(min(ends) - room, 3), round(max(ends) + room, 3)]


def _exam(points: Mapping[str, Any], exam: str, column: int, named: Sequence[str]) -> list[go.Scatter]:
    """The traces of one panel; the legend has those of the first."""
    arms, near, before = points[exam], _near(points[exam]), points["before"][exam]
    best = sorted((point["length"][0], point["accuracy"][0]) for point in arms.values() if point["best"])
    across, up = map(list, zip(*best, strict=True))
    traces = [
        go.Scatter(x=across, y=up, mode="lines", name="frontier: no arm shorter and more accurate",
                   line={"color": theme.FAINT, "width": 9}, hoverinfo="skip"),
        go.Scatter(x=[before[0]], y=[before[1]], mode="markers", name="before", hovertemplate=(
                   "before training<br>accuracy %{y:.1f} %, length %{x:.1f} tokens<extra></extra>"),
                   marker={"symbol": "x-thin", "size": 12, "line": {"color": theme.GREY, "width": 3}}),
    ]  # fmt: skip
    families = dict.fromkeys(point["family"] for point in arms.values())
    marks = list(dict.fromkeys([*FIRST, *families]))
    for name in families:
        own = {arm: point for arm, point in arms.items() if point["family"] == name}
        words = [arm if arm in named and (own[arm] in near) == (column == 2) else "" for arm in own]
        traces.append(_family(own, name, marks.index(name), words))
    for trace in traces:
        trace.update(showlegend=column == 1, legendgroup=trace.name)
    return traces


def _family(own: Mapping[str, Mapping], name: str, index: int, words: Sequence[str]) -> go.Scatter:
    """One family's marks with their intervals (none where they are None)."""
    some = next(iter(own.values()))
    colour, symbol = COLOURS[index % len(COLOURS)], SYMBOLS[index % len(SYMBOLS)]
    bars = {}
    for key, number in (("error_x", "length"), ("error_y", "accuracy")):
        found = np.array([point[number] for point in own.values()], float)
        if np.isfinite(found).all():
            bars[key] = {"array": (found[:, 2] - found[:, 0]).round(4).tolist(), "thickness": 1, "width": 0}
    return go.Scatter(
        x=[point["length"][0] for point in own.values()],
        y=[point["accuracy"][0] for point in own.values()],
        mode="lines+markers+text", name=name, text=list(words), textposition="top right",
        textfont={"color": colour}, cliponaxis=False, **bars,
        hovertext=[_told(arm, point) for arm, point in own.items()],
        hovertemplate="%{hovertext}<extra></extra>",
        line={"color": colour, "width": 1, "dash": "dash" if some["rival"] else "solid"},
        marker={"symbol": symbol + "-open" * some["rival"], "size": 10, "color": colour,
                "line": {"width": 2, "color": colour}},
    )  # fmt: skip


def _told(arm: str, point: Mapping[str, Any]) -> str:
    """What the pointer reads of an arm."""
    lines = [f"<b>{arm}</b>"]
    for number, form, unit in (("accuracy", ".1f", "%"), ("length", ".1f", "tokens")):
        mean, low, high = point[number]
        ends = "no interval" if low is None else f"95 % {low:{form}} to {high:{form}}"
        lines.append(f"{number} {mean:{form}} {unit} ({ends}, {point['seeds']} seeds)")
    lines.append(f"learning rate {point['learning_rate']:g}")
    return "<br>".join(lines + ["on the frontier"] * point["best"])
