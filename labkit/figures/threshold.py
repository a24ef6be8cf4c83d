"""One threshold at a time: what it costs, what it solves, and one board decoded with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit import checks
from labkit.figures import theme
from labkit.figures.quality_speed import LOOKS
from labkit.traces import BeamTrace

DRAWN = ("soar", "adaptive", "greedy")


def at_threshold(
    outcomes: Sequence[dict[str, Any]],
    decoded: Mapping[float, BeamTrace],
    truths: np.ndarray,
    *,
    threshold: float,
    puzzle: int = 0,
) -> go.Figure:
    """Left: solved against forward calls, settings of ``threshold`` filled. Right: a board decoded so.

    outcomes   of ``studies.soar.outcomes.compare``; drawn are SOAR's and adaptive decoding's (capped alike)
    decoded    {threshold: the decode of N boards with it}
    truths     int (N, side^2), their solutions
    """
    checks.choice("threshold", threshold, sorted(decoded))
    trace = decoded[threshold]
    board, right = (
        part[checks.integer("puzzle", puzzle, 0, len(truths) - 1)] for part in (trace.sequences, truths)
    )
    figure = make_subplots(1, 2, column_widths=[0.68, 0.32], horizontal_spacing=0.1)
    for family in DRAWN:
        colour, _, symbol = LOOKS[family]
        own = [o for o in outcomes if o["family"] == family]
        here = [o["setting"].get("threshold") in (threshold, None) for o in own]
        marker = {
            "color": colour, "symbol": [symbol if on else f"{symbol}-open" for on in here],
            "size": [14 if on else 9 for on in here], "line": {"color": colour, "width": 2},
        }  # fmt: skip
        figure.add_scatter(
            x=[round(o["calls"], 3) for o in own], y=[round(100 * o["accuracy"], 3) for o in own],
            text=[o["label"] for o in own], hovertemplate="%{text}: %{y:.1f} % in %{x:.1f}<extra></extra>",
            mode="markers", name=family, marker=marker, row=1, col=1,
        )  # fmt: skip
    _draw_board(figure, trace, puzzle, board, right)
    figure.update_xaxes(title_text="forward calls a puzzle", row=1, col=1)
    figure.update_yaxes(title_text="solved (%)", row=1, col=1)
    theme.plotly_title(figure, _title(outcomes, threshold))
    return figure.update_layout(height=255, legend={"orientation": "h", "y": -0.34})


def _title(outcomes: Sequence[dict[str, Any]], threshold: float) -> str:
    best = max(
        (o for o in outcomes if o["family"] == "soar" and o["setting"]["threshold"] == threshold),
        key=lambda outcome: outcome["accuracy"],
    )
    ours, greedy = (f"{100 * o['accuracy']:.1f} % in {o['calls']:.1f} calls" for o in (best, outcomes[0]))
    beams = best["setting"]["beam"]
    return f"SOAR, {beams} beams, threshold {threshold:g}: {ours} a puzzle; greedy: {greedy}"


def _draw_board(
    figure: go.Figure, trace: BeamTrace, puzzle: int, board: np.ndarray, right: np.ndarray
) -> None:
    """The filled board: what the puzzle gave grey, right fills blue, wrong ones orange and struck out."""
    side = round(len(board) ** 0.5)
    given = trace.beam_tokens[(trace.beam_step == 0) & (trace.beam_prompt == puzzle)][0] == board
    state = np.where(given, 0, np.where(board == right, 1, 2)).reshape(side, side)
    colours = (theme.GRID, theme.SKY, theme.ORANGE)
    struck = [
        str(digit) if fine else f"<s>{digit}</s>" for digit, fine in zip(board, board == right, strict=True)
    ]
    text = np.reshape(struck, (side, side)).tolist()
    figure.add_heatmap(
        z=state.tolist(), zmin=0, zmax=2, showscale=False, xgap=2, ygap=2, text=text,
        texttemplate="%{text}",
        colorscale=[[at, c] for i, c in enumerate(colours) for at in (i / 3, (i + 1) / 3)],
        customdata=[[("given", "right", "wrong")[s] for s in row] for row in state],
        hovertemplate="%{text}: %{customdata}<extra></extra>", row=1, col=2,
    )  # fmt: skip
    wrong = int((board != right).sum())
    words = f"puzzle {puzzle}, SOAR: {trace.calls[puzzle]} calls, {f'{wrong} wrong' if wrong else 'solved'}"
    words += "<br>grey: given, blue: right, orange: wrong"
    bare = {"showticklabels": False, "ticks": "", "zeroline": False, "showgrid": False, "row": 1, "col": 2}
    figure.update_xaxes(title_text=words, **bare)
    figure.update_yaxes(autorange="reversed", scaleanchor="x2", **bare)
