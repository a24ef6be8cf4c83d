"""The recorded ELAS study in figures: memory by batch, speed, float16's headroom.

memory_by_batch   what one FFN keeps, and the peak of a whole training step, against the batch
byte_bars         what each form of one FFN keeps, per token
speed_bars        milliseconds of the FFN, forward and with the backward pass
headroom          the largest activation of each run, against float16's largest number
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.checks import fail
from labkit.figures import theme
from labkit.traces import TrainTrace

FLOAT16 = 65504.0


def memory_by_batch(record: Mapping[str, Any]) -> Figure:
    """``record``: results("memory"). Left: bytes one FFN keeps; right: peak of a step of the whole model.

    A cross at the top marks a batch that did not fit on the card.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.5, 4.4))
    forms = list(dict.fromkeys(row["form"] for row in record["ffn"]))
    saved: dict[str, dict[int, float]] = {form: {} for form in forms}
    for row in record["ffn"]:
        saved[row["form"]][row["batch"]] = row["saved_bytes"] / 2**20
    peaks: dict[str, dict[int, float]] = {form: {} for form in forms}
    too_big: dict[str, list[int]] = {form: [] for form in forms}
    for row in record["model"]:
        if row["peak_bytes"] is None:
            too_big[row["form"]].append(row["batch"])
        else:
            peaks[row["form"]][row["batch"]] = row["peak_bytes"] / 2**30
    top = 1.08 * max(value for by in peaks.values() for value in by.values())
    lost: dict[int, int] = {}
    for i, form in enumerate(forms):
        look = theme.look(i)
        left.plot(list(saved[form]), list(saved[form].values()), label=form, **look)
        right.plot(list(peaks[form]), list(peaks[form].values()), **look)
        for batch in too_big[form]:
            height = top * (1 + 0.055 * lost.setdefault(batch, 0))
            lost[batch] += 1
            right.plot(batch, height, "x", color=look["color"], markersize=10, markeredgewidth=3)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="batch (rows of 256 tokens)")
        axis.xaxis.set_major_formatter("{x:g}")
    left.set_yscale("log")
    left.set(ylabel="MiB that one FFN keeps for backward")
    left.legend(fontsize=8.5)
    crosses = max(lost.values(), default=0)
    right.set(ylabel="GiB, peak of a training step", ylim=(0, top * (1.04 + 0.055 * crosses)))
    for batch in lost:
        right.annotate("does not fit  ", (batch, top), (-8, 0), textcoords="offset points", ha="right")
    plain, best = forms[0], "ELAS packed, masked gradient"
    batch = max(peaks[plain])
    ffn = 1 - saved[best][batch] / saved[plain][batch]
    left.set_title(f"ELAS, packed and masked, keeps {ffn:.0%} less", fontsize=10)
    cut = 1 - peaks[best][batch] / peaks[plain][batch]
    right.set_title(f"… and the whole step at batch {batch} peaks {cut:.0%} lower", fontsize=10)
    return figure


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
    axis.set_title(f"{names[smallest]} keeps {1 - values[smallest] / reference:.0%} less than {names[1]}")
    return figure


def speed_bars(record: Mapping[str, Any], tokens: int = 16384) -> Figure:
    """``record``: results("speed"). One bar a rival and pass; whiskers from p20 to p80.

    Of a rival that was also run under torch.compile, the compiled time is shown.
    """
    rows = [row for row in record["ffn"] if row["tokens"] == tokens]
    if not rows:
        fail("tokens", tokens, f"one of {sorted({row['tokens'] for row in record['ffn']})}")
    names = list(dict.fromkeys(row["rival"] for row in rows))
    names = [name for name in names if f"{name}, compiled" not in names]
    times = {(row["rival"], row["pass"]): row["ms"] for row in rows}
    ours = "ELAS packed, masked gradient"
    figure, axes = pyplot.subplots(1, 2, figsize=(11.5, 1.3 + 0.42 * len(names)), sharey=True)
    for axis, kind in zip(axes, ("forward", "forward + backward"), strict=True):
        best = times[ours, kind]["p50"]
        for row, name in enumerate(names):
            ms = times[name, kind]
            full, elas = name.startswith("full"), name.startswith("ELAS")
            colour = theme.BLUE if elas else theme.MUTED if full else theme.SKY
            hatch = "//" if full else "" if elas else ".."
            axis.barh(row, ms["p50"], color=colour, hatch=hatch, edgecolor="white")
            axis.plot([ms["p20"], ms["p80"]], [row, row], color=theme.INK, linewidth=2)
            times_ours = "" if name == ours else f"  ({ms['p50'] / best:.2f}×)"
            axis.text(ms["p50"], row, f"  {ms['p50']:.2f}{times_ours}", va="center", fontsize=9)
        axis.set(xlabel=f"{kind} (ms)", xlim=(0, 1.3 * max(times[n, kind]["p50"] for n in names)))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    rival = "LORO ReLU², compiled"
    gains = [
        times[rival, kind]["p50"] / times[ours, kind]["p50"] for kind in ("forward", "forward + backward")
    ]
    title = (
        f"Against the low-rank FFN without a mask: {gains[0]:.2f}× forward, {gains[1]:.2f}× with backward"
    )
    theme.headline(figure, title)
    return figure


def headroom(traces: Sequence[TrainTrace]) -> Figure:
    """Largest activation so far over all layers, per run that counted it; the line is float16's end."""
    counted = [run for run in traces if "peak" in run.series]
    if not counted:
        fail("traces", len(traces), 'runs with a series "peak"')
    figure, axis = pyplot.subplots(figsize=(8.6, 4))
    for i, run in enumerate(counted):
        steps, peak = run.curve("peak")
        kind = "float16" if run.meta["options"].get("half") else "bfloat16"
        config = run.meta["config"]
        label = f"{config['size']}, {kind}, learning rate {config['lr']:g}"
        later = steps > 0
        axis.plot(steps[later], peak[later].max(1), label=label, **theme.look(i))
    axis.axhline(FLOAT16, color=theme.INK, linewidth=1.4)
    axis.text(0.99, FLOAT16, "float16 ends here, 65,504 ", transform=axis.get_yaxis_transform(),
              ha="right", va="bottom", fontsize=9)  # fmt: skip
    axis.set_yscale("log")
    axis.set(xlabel="optimiser step", ylabel="largest relu(x)² so far", ylim=(None, FLOAT16 * 4))
    axis.legend(fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.15))
    largest = max(np.nanmax(run.series["peak"]) for run in counted)
    overflows = sum(np.nanmax(run.series["overflows"], 0).sum() for run in counted)
    axis.set_title(
        f"Without dense warm-up: {overflows:,.0f} overflows, the largest activation is "
        f"{largest / FLOAT16:.1%} of float16's end"
    )
    return figure
