"""Traces as the scrubber draws them: a list of runs, named panels, thinned curves, samples by step."""

from collections.abc import Mapping, Sequence

import numpy as np

from labkit import checks
from labkit.figures import curves, pretraining
from labkit.traces import GroupTrace, TrainTrace

PANELS = 8  # shown at most
LAST = 2**31 - 1  # a step, for a page holds them as int32
GROUPS = {
    "correct": "right responses of the group",
    "length": "response length (tokens)",
    "sampled_sum": "entropy, sum of sampled tokens (nats)",
    "full_sum": "entropy, sum (nats)",
    "full_mean": "entropy per token (nats)",
}
LABELS = curves.REINFORCEMENT | pretraining.UNITS | {"learning_rate": "learning rate"}

Traces = TrainTrace | GroupTrace | Sequence[TrainTrace] | Mapping[str, object]


def thin(steps: np.ndarray, values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``limit`` (>= 4) points of a curve: its ends and the extremes of equal stretches between."""
    if len(steps) <= limit:
        return steps, values
    kept = {0, len(steps) - 1}
    for part in np.array_split(np.arange(1, len(steps) - 1), (limit - 2) // 2):
        kept |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    places = np.array(sorted(kept))
    return steps[places], values[places]


def runs_of(traces: Traces) -> list[tuple[str, object, TrainTrace]]:
    """(arm, seed, trace) of every run, in the order given."""
    if isinstance(traces, GroupTrace):
        return [("samples", traces.meta.get("seed", 0), _of_groups(traces))]
    if not isinstance(traces, Mapping):
        arms: dict[str, list[TrainTrace]] = {}
        for i, trace in enumerate(traces if isinstance(traces, list | tuple) else [traces]):
            meta = trace.meta if isinstance(trace, TrainTrace) else {}
            arms.setdefault(str(meta.get("arm", f"run {i}")), []).append(trace)
        traces = {pretraining.NAMES.get(arm, arm): found for arm, found in arms.items()}
    runs = []
    for arm, found in traces.items():
        for i, trace in enumerate(found if isinstance(found, list | tuple) else [found]):
            if not isinstance(trace, TrainTrace):
                allowed = "TrainTraces, lists of them, a mapping of arms to them, or a GroupTrace"
                checks.fail("traces", type(trace).__name__, allowed)
            if not len(trace.step):
                checks.fail("traces", f"a trace of {arm} without steps", "TrainTraces of at least one step")
            steps = [int(trace.step.min()), int(trace.step.max()), *by_step(trace)]
            if -min(steps) > LAST or max(steps) > LAST:  # the page would draw it elsewhere
                checks.fail("traces", max(steps, key=abs), f"of steps up to {LAST:,}")
            runs.append((str(arm), trace.meta.get("seed", i), trace))
    if not runs:
        checks.fail("traces", traces, "at least one TrainTrace")
    return runs


def panels_of(traces: list[TrainTrace], on: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """{series: label} to draw: those asked for, else the known ones that some trace has."""
    known = {
        name: None
        for trace in traces
        for name, values in trace.series.items()
        if not np.isnan(values).all()
    }
    if not known:
        arms = ", ".join(str(trace.meta.get("arm", "?")) for trace in traces)
        checks.fail("traces", arms, "runs that logged something")
    if on is None:
        on = ([name for name in LABELS if name in known] or list(known))[:PANELS]
    on = on if isinstance(on, Mapping) else {name: (GROUPS | LABELS).get(name, name) for name in on}
    for name in on:
        checks.choice("on", name, sorted(known))
    if not 1 <= len(on) <= PANELS:
        checks.fail("on", list(on), f"1 to {PANELS} series")
    return dict(on)


def flat(trace: TrainTrace) -> TrainTrace:
    """The trace with every (n, layers) series as its mean over layers."""
    series = {name: values.mean(1) if values.ndim == 2 else values for name, values in trace.series.items()}
    return TrainTrace(trace.step, series, trace.samples, trace.meta)


def curves_of(traces: list[TrainTrace], names: list[str]) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """(run, panel, steps, values) of every curve that was logged, without gaps."""
    found = []
    for run, trace in enumerate(traces):
        levelled = flat(trace)
        for panel, name in enumerate(names):
            if name in levelled.series:
                steps, values = levelled.curve(name)
                values = values.cumsum() if name in curves.CUMULATIVE else values
                found.append((run, panel, steps, values))
    return found


def by_step(trace: TrainTrace) -> dict[int, list[dict]]:
    """The samples of each step that kept some."""
    samples: dict[int, list[dict]] = {}
    for sample in trace.samples:
        samples.setdefault(int(sample["step"]), []).append(sample)
    return samples


def _of_groups(trace: GroupTrace) -> TrainTrace:
    """Questions in the place of steps: the means of each group, and its responses as samples."""
    series = {"correct": trace.correct.mean(1), "length": trace.length.mean(1)}
    series |= {kind: values.mean(1) for kind, values in trace.entropy.items()}
    entropy = next(iter(trace.entropy.values()), np.full(trace.correct.shape, np.nan))
    samples = [
        {
            "step": q, "prompt": prompt, "text": trace.texts[q][i], "correct": bool(trace.correct[q, i]),
            "length": int(trace.length[q, i]), "entropy": float(entropy[q, i]),
        }
        for q, prompt in enumerate(trace.prompts)
        for i in range(trace.correct.shape[1])
    ]  # fmt: skip
    return TrainTrace(np.arange(len(trace.prompts)), series, samples, trace.meta)
