"""Accuracy against speed: the validation plane, the paper's plane, paired differences on the test puzzles.

plane     share solved against how many times fewer forward calls than greedy, beside the paper's figure
paired    difference to greedy on the same puzzles, one line per arm: interval, or a mark per seed
table     the same as a table

An outcome (``plane``) is a dict of one setting: ``setting``, ``family``, ``label``, ``accuracy``,
``speed``; the first is greedy. A row (``paired``, ``table``) is ``studies.soar.outcomes.Row``: one arm
against greedy, over puzzles for one model or over training seeds.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import plotly.graph_objects as go
from matplotlib import pyplot
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from labkit.figures import theme
from labkit.studies import stats
from labkit.studies.soar.outcomes import MARGIN

LOOKS = {  # family: colour, matplotlib's marker, plotly's symbol
    "greedy": (theme.GREY, "X", "x"),
    "parallel": (theme.PURPLE, "s", "square"),
    "adaptive": (theme.ORANGE, "^", "triangle-up"),
    "adaptive uncapped": (theme.GREEN, "v", "triangle-down"),
    "factor": (theme.OLIVE, "P", "cross"),
    "eb": (theme.RED, "*", "star"),
    "klass": (theme.VIOLET, "<", "triangle-left"),
    "pbs": (theme.SKY, "D", "diamond"),
    "order_token": (theme.BROWN, "p", "pentagon"),
    "soar": (theme.BLUE, "o", "circle"),
}
NEAR = 12  # points below greedy: what loses more is out of the first view
# Read off the plot in the authors' repository: mean accuracy (%) of GSM8K, MBPP and HumanEval, and
# speed relative to greedy in wall time. arXiv 2602.10953.
PUBLISHED = [
    ("greedy", "greedy", 60.1, 1.00), ("pbs", "PBS", 63.0, 0.53), ("pbs", "PBS, parallel", 60.7, 1.00),
    ("soar", "SOAR", 62.4, 1.43), ("adaptive", "adaptive parallel", 59.3, 2.05),
    ("parallel", "fixed parallel", 49.0, 2.00),
]  # fmt: skip


def plane(
    outcomes: Sequence[Sequence[dict[str, Any]]], chosen: Sequence[str], *, count: int, name: str
) -> go.Figure:
    """For the pointer. Left: validation outcomes, means over the models. Right: the paper's figure.

    outcomes  one list per model (training seed), the same settings in each
    chosen    labels of the settings to ring and to name
    count     number of puzzles of each outcome
    name      what the left panel shows
    """
    told = "published: LLMs (not ours)"
    figure = make_subplots(
        1, 2, column_widths=[0.64, 0.36], horizontal_spacing=0.09, subplot_titles=(name, told)
    )
    points = _means(outcomes)
    for family, (colour, _, symbol) in LOOKS.items():
        if own := [point for point in points if point["family"] == family]:
            figure.add_trace(_family(own, family, colour, symbol), row=1, col=1)
    ringed = [point for point in points if point["label"] in chosen]
    figure.add_scatter(
        x=[p["speed"] for p in ringed], y=[p["solved"] for p in ringed], mode="markers", name="chosen",
        hoverinfo="skip", row=1, col=1,
        marker={"symbol": "circle-open", "size": 18, "color": theme.RED, "line": {"width": 2}},
    )  # fmt: skip
    for place, point in enumerate(sorted(ringed, key=lambda p: p["speed"])):  # names fan out below
        figure.add_annotation(
            x=float(np.log10(point["speed"])), y=point["solved"], text=point["label"], ay=50 + 24 * place,
            ax=-150 + 22 * place, arrowcolor=theme.RED, arrowwidth=1, arrowhead=0, standoff=9, row=1, col=1,
        )  # fmt: skip
    figure.add_hline(
        points[0]["solved"], line={"color": theme.GREY, "width": 1, "dash": "dot"}, row=1, col=1
    )
    near = [point for point in points if point["solved"] > points[0]["solved"] - NEAR]
    speeds, shares = ([point[key] for point in near] for key in ("speed", "solved"))
    figure.update_xaxes(**_log_axis(min(speeds), max(speeds)), row=1, col=1)
    figure.update_yaxes(range=[min(shares) - 1, max(shares) + 1], row=1, col=1)
    lost = f" ({len(points) - len(near)} lie below: double-click)" * (len(near) < len(points))
    figure.update_xaxes(title_text=f"times fewer forward calls than greedy{lost}", row=1, col=1)
    figure.update_yaxes(title_text="solved (%)", row=1, col=1)
    figure.layout.annotations[0].text += f", {count:,} puzzles, mean of {len(outcomes)} seeds"
    _draw_published(figure)
    best = max(points, key=lambda point: point["solved"])
    most, plain = (f"{p['solved']:.1f} % in {p['calls']:.1f} calls a puzzle" for p in (best, points[0]))
    title = f"{best['label']} solves the most puzzles: {most}; greedy {plain}. "
    theme.plotly_title(figure, title + "Validation puzzles, to choose settings by: no test")
    return figure.update_layout(
        height=325, margin_t=figure.layout.margin.t + 20, legend={"orientation": "h", "y": -0.38}
    )


def _means(outcomes: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One point per setting that all models ran, in the first model's order."""
    tables = [{outcome["label"]: outcome for outcome in of_model} for of_model in outcomes]
    points = []
    for label, first in tables[0].items():
        if all(label in table for table in tables):
            means = {
                key: round(float(np.mean([t[label][key] for t in tables])), 4) for key in ("calls", "speed")
            }
            line = tuple(first["setting"].get(key) for key in ("beam", "score", "min_collapse"))
            line *= first["family"] == "soar"
            shares = stats.t_interval([t[label]["accuracy"] for t in tables])
            told = [f"<b>{label}</b>", f"solved {shares.text('.2f', ' %', 100)}",
                    f"{means['calls']:.1f} forward calls, {means['speed']:.2f}x fewer than greedy",
                    *(f"threshold {t:g}" for t in [first["setting"].get("threshold")] if t)]  # fmt: skip
            points.append({
                "label": label, "family": first["family"], "line": line, "told": "<br>".join(told),
                "solved": round(100 * shares.estimate, 4), **means,
            })  # fmt: skip
    return points


def _family(own: Sequence[dict[str, Any]], family: str, colour: str, symbol: str) -> go.Scatter:
    """SOAR's marks are joined along the thresholds of each beam; the others' by one line."""
    gap = {"speed": None, "solved": None, "told": ""}
    places = [
        point
        for line in dict.fromkeys(point["line"] for point in own)
        for point in (*sorted((p for p in own if p["line"] == line), key=lambda p: p["speed"]), gap)
    ]
    return go.Scatter(
        x=[p["speed"] for p in places], y=[p["solved"] for p in places], mode="lines+markers", name=family,
        hovertext=[p["told"] for p in places], hovertemplate="%{hovertext}<extra></extra>",
        line={"color": colour, "width": 1}, marker={"symbol": symbol, "size": 9},
    )  # fmt: skip


def paired(rows: Sequence[Any], chosen: Sequence[str] = ()) -> Figure:
    """Difference to greedy, best on top: an interval (filled: better or worse) or a mark per seed."""
    others = sorted((row for row in rows if row.family != "greedy"), key=lambda row: row.gain.estimate)
    figure, axes = pyplot.subplots(figsize=(9.5, 1.2 + 0.2 * len(others)))
    for y, row in enumerate(others):
        colour, marker, _ = LOOKS[row.family]
        gain = row.gain
        if gain.low is None:
            marks, filled = gain.values, False
        else:
            marks, filled = (gain.estimate,), gain.verdict(margin=MARGIN, scale=100) in ("better", "worse")
            axes.plot([100 * gain.low, 100 * gain.high], [y, y], color=colour, linewidth=2)
        face = colour if filled else theme.PAPER
        axes.plot(
            [100 * value for value in marks], [y] * len(marks), marker, color=face, markeredgecolor=colour,
            markersize=7,
        )  # fmt: skip
        p = ", ".join(f"{test.p:.2g}" for test in row.tests)
        note = f"p = {p}; {row.calls:.1f} calls, {row.speed:.1f}x fewer"
        axes.annotate(note, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvspan(-MARGIN, MARGIN, color=theme.GRID)
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
    """Title: how many arms have each verdict; without intervals the range of values."""
    if rows[0].gain.low is None:
        values = [100 * value for row in rows for value in row.gain.values]
        return (
            f"Differences to greedy: {min(values):+.1f} to {max(values):+.1f} points, {rows[0].gain.count}"
        )
    found = Counter(row.gain.verdict(margin=MARGIN, scale=100).partition(" ")[0] for row in rows)
    same, unknown = f"{found['no']} within {MARGIN:g} points", f"{found['not']} not resolved"
    better = f"{found['better']} of {len(rows)} are better, {found['worse']} worse"
    return f"Against greedy, {better}, {same}, {unknown}"


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


def _draw_published(figure: go.Figure) -> None:
    families, names, shares, speeds = zip(*PUBLISHED, strict=True)
    colours = [LOOKS[family][0] for family in families]
    symbols = [
        LOOKS[family][2] + "-open" * (name == "PBS, parallel")
        for family, name in zip(families, names, strict=True)
    ]
    figure.add_scatter(
        x=speeds, y=shares, mode="markers+text", text=names, showlegend=False, textfont={"color": colours},
        textposition=["middle left" if speed > 1.8 else "middle right" for speed in speeds],
        marker={"symbol": symbols, "size": 10, "color": colours, "line": {"width": 2, "color": colours}},
        hovertemplate="%{text}: %{y:.1f} %, %{x:.2f} times greedy's speed<extra></extra>", row=1, col=2,
    )  # fmt: skip
    figure.update_xaxes(
        title_text="speed relative to greedy (wall time)", **_log_axis(0.5, 2.2), row=1, col=2
    )
    figure.update_yaxes(title_text="accuracy, mean of 3 (%)", row=1, col=2)


def _log_axis(low: float, high: float) -> dict[str, Any]:
    ticks = [tick for tick in (0.5, 1, 1.5, 2, 3, 4, 6, 8) if tick <= 1.15 * high]
    ends = [float(np.log10(0.88 * low)), float(np.log10(1.12 * high))]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}×" for tick in ticks], "range": ends}
