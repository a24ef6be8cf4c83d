"""Training curves of several arms and seeds (TrainTrace), linked step by step.

training_curves  small multiples: both lines of two seeds; of more, their mean with the range as a band
before_after     what each arm did to the same held-out questions, in words
sample_table     what the model wrote at one step
"""

from collections.abc import Mapping, Sequence

import numpy as np
from IPython.display import HTML
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit import checks
from labkit.figures import theme
from labkit.figures.tables import CODE, html_table, marked, verdict
from labkit.studies.stats import FEWEST_SEEDS
from labkit.traces import TrainTrace

Arms = Mapping[str, TrainTrace | Sequence[TrainTrace]]  # name of the arm -> its seeds

# Series of an FGO or GRPO run -> axis label. Names are TRL's where TRL has one.
REINFORCEMENT = {
    "reward": "reward (−1 to 1)",
    "fgo/accuracy": "accuracy of samples",
    "completions/mean_length": "response length (tokens)",
    "fgo/response_entropy": "entropy, sum per response (nats)",
    "entropy": "entropy per token (nats)",
    "fgo/act": "ACT (accuracy % per 100 tokens)",
    "fgo/invalid_groups": "invalid groups, cumulative",
    "fgo/constant_groups": "constant groups, cumulative",
}
CUMULATIVE = ("fgo/invalid_groups", "fgo/constant_groups")


def stacked(
    arm: TrainTrace | Sequence[TrainTrace], name: str, *, cumulative: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(steps, (seeds, steps) values) of one series of an arm, at the steps that all its seeds logged.

    cumulative  running sum over steps, for counts
    """
    runs = [arm] if isinstance(arm, TrainTrace) else list(arm)
    if not runs:
        checks.fail("arm", arm, "a TrainTrace or a non-empty list of them")
    curves = [dict(zip(*run.curve(name), strict=True)) for run in runs]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    table = np.array([[curve[step] for step in steps] for curve in curves])  # (seeds, steps)
    return np.array(steps), table.cumsum(1) if cumulative else table


def training_curves(
    arms: Arms,
    panels: Mapping[str, str] = REINFORCEMENT,
    *,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """One panel per series of ``panels`` {name: label}; arms differ by colour, dash and marker."""
    rows = -(-len(panels) // checks.integer("columns", columns, 1))
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(max(2.6, 9.2 / columns) * columns, 2.35 * rows + 0.5),
        sharex=True,
        squeeze=False,
    )
    for axis, (name, label) in zip(axes.flat, panels.items(), strict=False):
        for index, (arm, runs) in enumerate(arms.items()):
            steps, table = stacked(runs, name, cumulative=name in CUMULATIVE)
            look = theme.look(index)
            few = len(table) < FEWEST_SEEDS
            for line in table if few else [table.mean(0)]:
                drawn = axis.plot(steps, line, markevery=max(1, len(steps) // 5), markersize=5, **look)
            drawn[0].set_label(theme.drawable(arm))  # once per arm
            if not few:
                low, high = table.min(0), table.max(0)
                axis.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axis.set_title(theme.drawable(label), fontsize=9, fontweight="normal", loc="left")
        if name in CUMULATIVE:
            axis.set_ylim(bottom=0)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    for axis in list(axes.flat)[: len(panels)][-columns:]:  # the lowest of each column
        axis.set_xlabel("optimiser step")
        axis.tick_params(labelbottom=True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=len(arms))
    if title:
        theme.headline(figure, theme.drawable(title))
    return figure


def totals(arm: TrainTrace | Sequence[TrainTrace], name: str) -> list[float]:
    """Sum of one logged count over each run of an arm: one number a seed."""
    return stacked(arm, name, cumulative=True)[1][:, -1].tolist()


def before_after(arms: Arms) -> str:
    """Accuracy and length on the same held-out questions before and after training: each arm's means."""
    words = []
    for arm, found in arms.items():
        runs = [found] if isinstance(found, TrainTrace) else list(found)
        (low, high), (long, short) = (
            [float(np.mean([run.meta[when][name] for run in runs])) for when in ("before", "after")]
            for name in ("accuracy", "length")
        )
        words.append(f"{arm}: accuracy {low:.0%} → {high:.0%}, {long:.1f} → {short:.1f} tokens")
    return "; ".join(words)


def sample_table(trace: TrainTrace, step: int, limit: int = 8) -> HTML:
    """Up to ``limit`` completions that the run sampled at ``step``. ValueError names the known steps."""
    known = sorted({sample["step"] for sample in trace.samples})
    checks.choice("step", step, known)
    rows = []
    for sample in [s for s in trace.samples if s["step"] == step][: checks.integer("limit", limit, 1)]:
        text = marked(f"{sample.get('prompt') or ''}{sample['text']}", CODE)
        length = "–" if sample.get("length") is None else f"{sample['length']:.0f}"
        entropy = "–" if sample.get("entropy") is None else f"{sample['entropy']:.2f}"
        rows.append((text, verdict(sample["correct"]) if "correct" in sample else "", length, entropy))
    title = f"{trace.meta.get('arm', '')}, step {step}"
    return html_table(("response", "verdict", "tokens", "entropy (nats)"), rows, title, numbers=(2, 3))
