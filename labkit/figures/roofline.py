"""A kernel bench against the roofs of the card that it ran on."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.figures import kernels, theme

OURS = ("matmul", "fused", *kernels.OURS)
TICKS = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
LOOKS = {True: ("ours", theme.BLUE, "circle"), False: ("rivals", theme.ORANGE, "diamond-open")}


def roofline(result: dict[str, Any]) -> go.Figure:
    """Left: products under the memory's and the tensor cores' roof. Right: one-pass kernels beside a copy.

    A product counts as what it does densely: 2 x rows x k x n operations, each matrix of two-byte numbers
    moved once. So the roof of 2:4 is twice the dense one, and what reads or writes packed rows, 9 of 16
    bytes, may stand above the slope.

    result   of `make bench` (kernels/results): {"bench", "card", "date", "ceilings", "rows"}
    """
    products = [row for row in result["rows"] if {"rows", "k", "n"} <= row.keys()]
    passes = [row for row in result["rows"] if "share_of_copy" in row and row["rival"] != "copy"]
    panels = [(draw, rows) for draw, rows in ((_under_roofs, products), (_shares, passes)) if rows]
    figure = make_subplots(1, len(panels), column_widths=[0.6, 0.4][: len(panels)], horizontal_spacing=0.27)
    for column, (draw, rows) in enumerate(panels, 1):
        draw(figure, rows, result["ceilings"], column)
    theme.plotly_title(figure, _title(result, products, passes))
    figure.update_yaxes(automargin=True)
    legend = {"orientation": "h", "yref": "container", "y": 0.01}
    return figure.update_layout(height=max(480, 160 + 19 * len(passes)), legend=legend, margin={"b": 100})


def _work(row: dict[str, Any]) -> tuple[float, float]:
    """(operations a byte, TFLOP/s) of a dense product of this shape in the time of this row."""
    rows, k, n = row["rows"], row["k"], row["n"]
    operations = 2 * rows * k * n
    return operations / (2 * (rows * k + n * k + rows * n)), operations / row["ms"]["p50"] / 1e9


def _under_roofs(
    figure: go.Figure, rows: list[dict[str, Any]], ceilings: dict[str, float], column: int
) -> None:
    reach = [_work(row)[0] for row in rows]
    x = np.geomspace(min(reach) / 2, max(reach) * 2, 60)
    memory, dense = x * ceilings["copy_gbps"] / 1000, ceilings["product_tflops"]
    for name, roof, dash in (("dense roof", dense, "solid"), ("2:4 roof", 2 * dense, "dash")):
        y = np.minimum(memory, roof).round(2).tolist()
        line = {"color": theme.GREY, "dash": dash}
        figure.add_scatter(
            x=x.round(2).tolist(), y=y, mode="lines", name=name, line=line, row=1, col=column
        )
    for ours in (False, True):
        own = [row for row in rows if row["rival"].startswith(OURS) == ours]
        _points(
            figure, ours, column, [round(_work(row)[0], 2) for row in own],
            [round(_work(row)[1], 1) for row in own],
            [f"{row['rival']}, {row['rows']:,} x {row['k']:,} x {row['n']:,}" for row in own],
            "%{text}: %{y:,.0f} TFLOP/s<extra></extra>",
        )  # fmt: skip
    words = "operations a byte if dense; packed rows are fewer bytes"
    figure.update_xaxes(type="log", title_text=words, tickvals=TICKS, row=1, col=column)
    figure.update_yaxes(
        type="log", title_text="TFLOP/s, counted as dense", tickvals=TICKS, row=1, col=column
    )


def _shares(figure: go.Figure, rows: list[dict[str, Any]], _: dict[str, float], column: int) -> None:
    names = [
        f"{row['rival']}, {row['rows']:,} x {row.get('width', row.get('vocabulary')):,}" for row in rows
    ]
    for ours in (False, True):
        own = [i for i, row in enumerate(rows) if row["rival"].startswith(OURS) == ours]
        shares = [round(100 * rows[i]["share_of_copy"], 1) for i in own]
        _points(figure, ours, column, shares, [names[i] for i in own], [names[i] for i in own],
                "%{text}: %{x:.0f} % of a copy<extra></extra>")  # fmt: skip
    figure.update_xaxes(title_text="share of a copy's bandwidth (%)", range=[0, 105], row=1, col=column)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], row=1, col=column)


def _points(
    figure: go.Figure, ours: bool, column: int, x: list, y: list, text: list[str], hover: str
) -> None:
    name, colour, symbol = LOOKS[ours]
    marker = {"color": colour, "symbol": symbol, "size": 10}
    figure.add_scatter(
        x=x, y=y, text=text, hovertemplate=hover, mode="markers", name=name, marker=marker,
        row=1, col=column, showlegend=column == 1,
    )  # fmt: skip


def _title(result: dict[str, Any], products: list[dict], passes: list[dict]) -> str:
    told = []
    if own := [_work(row)[1] for row in products if row["rival"].startswith(OURS)]:
        told.append(
            f"the best product does {max(own) / result['ceilings']['product_tflops']:.2f}× the dense roof"
        )
    if own := [100 * row["share_of_copy"] for row in passes if row["rival"].startswith(OURS)]:
        span = " to ".join(dict.fromkeys(f"{share:.0f}" for share in (min(own), max(own))))
        told.append(f"one-pass kernels reach {span} % of a copy")
    return f"{result['bench']}: {', '.join(told)} ({result['card']}, {result['date'][:10]})"
