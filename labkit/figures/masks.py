"""2:4 masks (MaskTrace): which activations are zero, which the mask zeroes, what that costs.

mask_grid      tokens x features of one layer, groups of four kept apart
layer_shares   kept, enforced and natural zeros of every layer, and the energy kept
group_counts   how many of four are non-zero, beside coin flips
"""

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from labkit import checks
from labkit.figures import theme
from labkit.traces import MaskTrace

GAP = 0.9  # room between groups, in cells
NATURAL, ENFORCED, KEPT = "zero by itself", "zeroed by the mask (×)", "kept"
COIN_FLIPS = np.array([1, 4, 6, 4, 1]) / 16  # non-zeros in a group of four fair signs
_BLUES = LinearSegmentedColormap.from_list("kept", ["#c6dff0", theme.BLUE, "#00304d"])
_ORANGES = LinearSegmentedColormap.from_list("enforced", ["#fdebc8", theme.ORANGE, "#7a5200"])


def mask_grid(
    trace: MaskTrace, layer: int = 0, token: int = 0, group: int = 0, *, tokens: int = 14, groups: int = 12
) -> Figure:
    """One window of a layer: rows are tokens, columns features, darker is larger (square-root scale).

    The window begins at row ``token`` and at group of four ``group``, and stays inside the trace.
    The right panel is the share of each token's energy, over all its features, that the mask keeps.
    """
    rows, picked = _window(trace, layer, token, group, tokens, groups)
    values, kept = trace.activations[layer], trace.kept[layer]
    window, mask = values[rows][:, picked], kept[rows][:, picked]
    figure, (grid, side) = pyplot.subplots(
        1, 2, figsize=(11.5, 1.9 + 0.27 * len(window)), width_ratios=(11, 1.6), sharey=True
    )
    columns = np.arange(window.shape[1])
    x = columns + GAP * (columns // 4)
    _draw_cells(grid, window, mask, x, Normalize(0, max(np.sqrt(np.abs(values).max()), 1e-12)))
    _draw_labels(grid, trace.tokens[rows], picked, x)
    energy = np.square(values[rows], dtype=float)
    share = np.where(energy.any(1), (energy * kept[rows]).sum(1) / np.maximum(energy.sum(1), 1e-300), 1)
    side.hlines(np.arange(len(share)), 0, 100 * share, color=theme.GRID, linewidth=2)
    side.plot(100 * share, np.arange(len(share)), "D", color=theme.GREEN, markersize=5)
    side.set(xlabel="energy kept (%)", xlim=(min(90, 100 * share.min() - 1), 100.5))
    side.grid(axis="y", visible=False)
    natural, enforced = (window == 0).mean(), ((window != 0) & ~mask).mean()
    title = f"Layer {layer}, this window: {natural:.0%} zero by itself, {enforced:.0%} more by the mask"
    theme.headline(figure, title)
    return figure


def layer_shares(trace: MaskTrace) -> Figure:
    """Where each layer's activations end: kept, zeroed by the mask, zero anyway; and the energy kept."""
    natural, enforced = 100 * trace.natural_zeros, 100 * trace.enforced_zeros
    parts = (
        (KEPT, 100 - natural - enforced, theme.BLUE, None),
        ("zeroed by the mask", enforced, theme.ORANGE, "///"),
        (NATURAL, natural, "#d5d9e0", ".."),
    )
    layers = np.arange(len(natural))
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10, 1.8 + 0.42 * len(layers)), sharey=True, width_ratios=(3, 1.3)
    )
    start = np.zeros(len(layers))
    for name, share, colour, hatch in parts:
        left.barh(layers, share, left=start, color=colour, hatch=hatch, edgecolor="white", label=name)
        for layer, value in zip(layers, share, strict=True):
            middle = start[layer] + value / 2
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            left.text(middle, layer, f"{value:.1f}", ha="center", va="center", fontsize=9, bbox=box)
        start += share
    left.set(xlabel="share of activations (%)", ylabel="layer", yticks=layers, xlim=(0, 100))
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9, borderaxespad=0.2)
    kept = 100 * trace.energy_kept
    known = np.flatnonzero(np.isfinite(kept))  # of a layer with NaN or infinity the energy is not
    low = min(kept[known].min(initial=98) - 1, 97)
    right.hlines(layers, low, kept, color=theme.GRID, linewidth=3)
    right.plot(kept, layers, "D", color=theme.GREEN, markersize=7)
    for layer, value in zip(known, kept[known], strict=True):
        right.annotate(f"{value:.1f}", (value, layer), (0, 9), textcoords="offset points", ha="center")
    right.set(xlabel="energy kept (%)", xlim=(low, 100.4))
    span = f"{kept[known].min():.1f} to {kept[known].max():.1f}" if len(known) else "nan"
    lost = len(kept) - len(known)
    theme.headline(
        figure,
        f"The mask zeroes {enforced.mean():.1f} % of the values and keeps {span} % of the energy"
        + f"; NaN or infinity in {lost} of {len(kept)} layers" * (lost > 0),
    )
    return figure


def group_counts(**traces: MaskTrace) -> Figure:
    """How many of each four activations are non-zero, one panel per trace, beside fair coin flips.

    traces   label=trace, for instance start=..., trained=... (underscores are shown as spaces)
    """
    figure, axes = pyplot.subplots(
        1, len(traces), figsize=(4.6 * len(traces), 3.4), sharey=True, squeeze=False
    )
    said = []
    for axis, (label, trace) in zip(axes[0], traces.items(), strict=True):
        layers, tokens, features = trace.activations.shape
        counts = np.count_nonzero(trace.activations.reshape(layers, tokens, features // 4, 4), axis=3)
        axis.axvspan(2.5, 4.5, color=theme.ORANGE, alpha=0.13)
        axis.text(
            3.5, 0.97, "the mask must drop", transform=axis.get_xaxis_transform(), ha="center", va="top"
        )
        axis.plot(range(5), 100 * COIN_FLIPS, "--", color=theme.INK, label="coin flips", linewidth=1.4)
        for layer in range(layers):
            share = 100 * np.bincount(counts[layer].ravel(), minlength=5) / counts[layer].size
            axis.plot(
                range(5), share, marker=theme.MARKERS[layer % 8], color=theme.CYCLE[layer % 8],
                label=f"layer {layer}", alpha=0.9,
            )  # fmt: skip
        label = theme.drawable(label.replace("_", " "))
        axis.set(title=label, xlabel="non-zeros in a group of four", xticks=range(5))
        said.append(f"{label} {100 * trace.crowded_groups.mean():.1f} %")
    axes[0, 0].set(ylabel="share of groups (%)")
    axes[0, 0].set_ylim(0, axes[0, 0].get_ylim()[1] * 1.18)
    most = max(axes[0], key=lambda axis: len(axis.lines))
    figure.legend(*most.get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    title = f"Groups with more than two non-zeros: {', '.join(said)} (coin flips 31.2 %)"
    theme.headline(figure, title)
    return figure


def _window(
    trace: MaskTrace, layer: int, token: int, group: int, tokens: int, groups: int
) -> tuple[slice, slice]:
    """Slices of rows and features, moved back inside the trace where they would leave it."""
    layers, rows, features = trace.activations.shape
    checks.integer("layer", layer, 0, layers - 1)
    checks.integer("token", token, 0, rows - 1)
    checks.integer("group", group, 0, features // 4 - 1)
    tokens = min(checks.integer("tokens", tokens, 1), rows)
    groups = min(checks.integer("groups", groups, 1), features // 4)
    top, first = min(token, rows - tokens), min(group, features // 4 - groups)
    return slice(top, top + tokens), slice(4 * first, 4 * (first + groups))


def _draw_cells(axis: Axes, window: np.ndarray, mask: np.ndarray, x: np.ndarray, scale: Normalize) -> None:
    def at(where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.nonzero(where)
        return x[columns], rows

    natural, enforced = window == 0, (window != 0) & ~mask
    for where, colours in ((~natural & mask, _BLUES), (enforced, _ORANGES)):
        values = np.sqrt(np.abs(window[where]))
        axis.scatter(*at(where), c=values, cmap=colours, norm=scale, marker="s", s=105, linewidths=0)
    axis.scatter(*at(enforced), marker="x", s=34, c=theme.INK, linewidths=1.1)
    axis.scatter(*at(natural), marker=".", s=12, c=theme.MUTED, linewidths=0)
    for row in range(len(window)):  # the groups, as boxes
        for first in x[::4]:
            axis.add_patch(
                pyplot.Rectangle((first - 0.6, row - 0.44), 4.2, 0.88, fill=False, ec="#c4c9d2", lw=0.8)
            )
    handles = [
        axis.scatter([], [], marker="s", s=80, color=theme.BLUE, label=KEPT),
        axis.scatter([], [], marker="s", s=80, color=theme.ORANGE, label=ENFORCED),
        axis.scatter([], [], marker=".", s=30, color=theme.MUTED, label=f"{NATURAL} (·)"),
    ]
    axis.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def _draw_labels(axis: Axes, tokens: list[str], picked: slice, x: np.ndarray) -> None:
    axis.set_yticks(range(len(tokens)), _shown(tokens), family="DejaVu Sans Mono", fontsize=9)
    axis.set_xticks(x[::4] + 1.5, [str(picked.start + 4 * i) for i in range(len(x) // 4)])
    axis.set(
        xlabel="first feature of each group of four", ylabel="token",
        xlim=(-1, x[-1] + 1), ylim=(len(tokens) - 0.4, -0.6),
    )  # fmt: skip
    axis.grid(visible=False)


def _shown(tokens: list[str]) -> list[str]:
    """Tokens as they can be read on an axis: visible white space, no formula marks, at most 12 signs."""
    short = [t.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣").replace("$", r"\$") for t in tokens]
    return [t if len(t) <= 12 else t[:11] + "…" for t in short]
