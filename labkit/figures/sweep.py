"""A sweep's table as curves: one panel a metric, the first swept parameter along x."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from labkit.figures.theme import CYCLE, drawable, look

CURVES = len(CYCLE)


def sweep_curves(table: pd.DataFrame, parameters: list[str], metrics: list[str]) -> Figure:
    """Mean of each metric against ``parameters[0]``; one line per value of ``parameters[1]``.

    table holds one row a point. What is left over (other parameters, seeds) shows as one mark each. At most
    eight lines are drawn a panel.
    """
    x, *others = parameters
    group = next((name for name in others if name != "seed" and table[name].nunique() > 1), None)
    figure, axes = plt.subplots(
        len(metrics), 1, figsize=(7.5, 2.9 * len(metrics)), squeeze=False, sharex=True
    )
    for axis, metric in zip(axes[:, 0], metrics, strict=True):
        lines = list(table.groupby(group)) if group else [("", table)]
        for i, (value, rows) in enumerate(lines[:CURVES]):
            curve = rows.groupby(x)[metric].mean()
            label = drawable(f"{group} = {value}") if group else None
            where = range(len(curve)) if curve.index.dtype == object else curve.index
            axis.plot(where, curve, label=label, **look(i))
            at = rows[x].map(dict(zip(curve.index, where, strict=True)))
            axis.plot(at, rows[metric], "o", color=CYCLE[i], markersize=3, alpha=0.5)
            if curve.index.dtype == object:
                axis.set_xticks(list(where), [drawable(str(item)) for item in curve.index])
        means = table.groupby(x)[metric].mean()
        axis.set_title(f"{drawable(metric)}: {means.min():.4g} to {means.max():.4g} over {drawable(x)}")
        axis.set_ylabel(drawable(metric))
        if group:
            axis.legend()
    axes[-1, 0].set_xlabel(drawable(x))
    return figure
