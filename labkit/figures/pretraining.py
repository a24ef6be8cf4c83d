"""Pre-training runs (TrainTrace): curves per arm and seed, paired differences, one table.

loss_curves         held-out loss of every run, one colour and dash per arm
paired_differences  each arm minus the same seed of a reference arm, with the t interval over seeds
run_table           the last evaluation per arm, its spread over seeds, and the paired difference
"""

from collections.abc import Sequence

import numpy as np
from IPython.display import HTML
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.checks import choice, fail
from labkit.figures import theme
from labkit.figures.tables import html_table
from labkit.studies.stats import Estimate, paired_t, spread
from labkit.traces import TrainTrace

NAMES = {
    "dense_swiglu": "dense SwiGLU",
    "dense_relu2": "dense ReLU²",
    "lowrank_swiglu": "low-rank SwiGLU",
    "lowrank_relu2": "low-rank ReLU², no mask",
    "elas_ste": "ELAS, straight-through",
    "elas_masked": "ELAS, masked gradient",
    "equal_flops": "low-rank ReLU², equal FLOPs",
    "elas_no_warmup": "ELAS, no dense warm-up",
    "elas_soft": "ELAS, soft thresholding",
    "elas_soft_scaled": "ELAS, soft and scaled",
}
UNITS = {
    "eval_nats": "held-out loss (nats per token)",
    "eval_bits_per_byte": "held-out loss (bits per byte)",
    "loss": "training loss (nats per token)",
    "natural_zeros": "zero by ReLU² itself",
    "crowded_groups": "groups with more than two non-zeros",
    "energy_kept": "energy kept by the mask",
    "gradient_cosine": "cosine of the two gradients",
    "gradient_norm_ratio": "straight-through norm over masked",
}


def by_arm(traces: Sequence[TrainTrace]) -> dict[str, list[TrainTrace]]:
    """Runs grouped by arm, in the order of NAMES and of their seeds. ValueError if there are none."""
    if not traces:
        fail("traces", traces, "at least one TrainTrace")
    arms: dict[str, list[TrainTrace]] = {}
    for trace in sorted(traces, key=lambda t: (list(NAMES).index(t.meta["arm"]), t.meta["seed"])):
        arms.setdefault(trace.meta["arm"], []).append(trace)
    return arms


def loss_curves(traces: Sequence[TrainTrace], name: str, *, start: int, title: str) -> Figure:
    """One line per run with a marker at each evaluation.

    start   first optimiser step shown: a later one lets differences be seen
    title   what the curves come to
    """
    figure, axis = pyplot.subplots(figsize=(8.6, 3.4))
    for arm, runs in by_arm(traces).items():
        i = list(NAMES).index(arm)
        for j, run in enumerate(runs):
            steps, values = run.curve(name)
            shown = steps >= start
            axis.plot(
                steps[shown], values[shown], alpha=0.85, markersize=5 if name.startswith("eval") else 3,
                label=None if j else NAMES[arm], **theme.look(i),
            )  # fmt: skip
    axis.set(xlabel="optimiser step", ylabel=UNITS.get(name, theme.drawable(name)))
    axis.legend(fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.93))
    theme.headline(figure, theme.drawable(title))
    return figure


def last_nats(run: TrainTrace) -> float:
    """The loss that a run is judged by: on the test text where it has one, else the last held-out loss."""
    return run.meta["test_nats"] if "test_nats" in run.meta else run.meta["eval_nats"]


def differences(traces: Sequence[TrainTrace], against: str) -> dict[str, Estimate]:
    """{arm: last held-out nats minus those of the same seed of ``against``, over seeds}; NaN has none."""
    arms = by_arm(traces)
    choice("against", against, tuple(arms))
    nats = {
        arm: {run.meta["seed"]: last_nats(run) for run in runs if np.isfinite(last_nats(run))}
        for arm, runs in arms.items()
    }
    base = nats.pop(against)
    return {arm: paired_t(own, base) for arm, own in nats.items() if set(own) & set(base)}


def paired_differences(traces: Sequence[TrainTrace], against: str = "lowrank_relu2") -> Figure:
    """Each arm minus the same seed of ``against``: a mark per seed; of three or more, mean and interval.

    Its caller writes the headline.
    """
    found = differences(traces, against)
    if not found:
        given = sorted({t.meta["arm"] for t in traces})
        fail("traces", given, f"runs of another arm with seeds of {against}")
    figure, axis = pyplot.subplots(figsize=(8.6, 1.7 + 0.5 * len(found)))
    axis.axvline(0, color=theme.INK, linewidth=1.2)
    for row, (arm, gap) in enumerate(found.items()):
        look = theme.look(list(NAMES).index(arm))
        colour, marker = look["color"], look["marker"]
        axis.plot(gap.values, [row] * len(gap.values), marker, color=colour, markersize=8, alpha=0.85)
        note = f"{gap.count}, no interval"
        if gap.low is not None and gap.high is not None:
            axis.plot([gap.low, gap.high], [row, row], color=colour, linewidth=1.5)
            axis.plot([gap.estimate] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=3)
            note = f"{gap.estimate:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
        axis.annotate(
            note, (1, row), (4, 0), va="center", fontsize=9, annotation_clip=False,
            xycoords=("axes fraction", "data"), textcoords="offset points",
        )  # fmt: skip
    axis.set_yticks(range(len(found)), [NAMES[arm] for arm in found])
    axis.set(
        ylim=(len(found) - 0.4, -0.9),
        xlabel=f"held-out nats per token minus {NAMES[against]}, same seed (left is better)",
    )
    axis.margins(x=0.15)
    axis.grid(axis="y", visible=False)
    return figure


def run_table(traces: Sequence[TrainTrace], against: str = "lowrank_relu2") -> HTML:
    """Per arm: parameters, last held-out loss (mean and range over seeds), paired difference in nats.

    What went wrong in a run (``TrainTrace.findings``) stands below.
    """
    found, rows = differences(traces, against), []
    for arm, runs in by_arm(traces).items():
        bits = [run.meta.get("test_bits_per_byte", run.meta["eval_bits_per_byte"]) for run in runs]
        gap = found[arm].text() if arm in found else "reference" if arm == against else "not paired"
        rows.append([
            NAMES[arm], f"{runs[0].meta['parameters']:,}", str(len(runs)),
            spread([last_nats(run) for run in runs]), spread(bits), gap,
        ])  # fmt: skip
    meta = traces[0].meta
    head = ["arm", "parameters", "seeds", "nats per token", "bits per byte"]
    head.append(f"nats minus {NAMES[against]}, paired by seed")
    counted = [f"{meta[f'unigram_{unit}']:.3f}" for unit in ("nats", "bits_per_byte")]
    rows.append(["unigram baseline", "", "", *counted, ""])
    for run in traces:
        told = [f"{NAMES[run.meta['arm']]}, seed {run.meta['seed']}, {finding}" for finding in run.findings]
        rows += [[one, *[""] * (len(head) - 1)] for one in told]
    where = meta["provenance"]["device"]
    return html_table(head, rows, f"Measured: {meta['config']['steps']} steps, {meta['text']}, {where}")
