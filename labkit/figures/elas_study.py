"""The bytes that each form of one FFN keeps for the backward pass, per token."""

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.figures import theme


def byte_bars(measured: Mapping[str, float]) -> Figure:
    """Horizontal bars of measured bytes per token, each with its change against the second bar's form."""
    names, values = list(measured), np.array(list(measured.values()))
    reference = values[1] if len(values) > 1 else values[0]
    figure, axis = pyplot.subplots(figsize=(8.6, 1.3 + 0.42 * len(names)))
    hatches = ["", "//", "..", "xx", "--", "\\\\"]
    for row, value in enumerate(values):
        axis.barh(row, value, color=theme.CYCLE[row % 8], hatch=hatches[row % 6], edgecolor="white")
        change = f" ({value / reference - 1:+.0%})" if value != reference else ""
        axis.text(value, row, f" {value:,.0f}{change}", va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="bytes per token kept for the backward pass", xlim=(0, values.max() * 1.18))
    axis.grid(axis="y", visible=False)
    smallest = int(values.argmin())
    less = f"{1 - values[smallest] / reference:.0%} less than {names[1]}"
    theme.headline(figure, f"{names[smallest]} keeps {values[smallest]:,.0f} bytes a token, {less}")
    return figure
