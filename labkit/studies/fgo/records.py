"""What the lab keeps of its FGO study on a GPU.

runs    {arm: a TrainTrace per seed} of ``studies fgo``
missing what of the plan was not run
tuned   {family: its validation runs and the learning rate that they chose}
save    one arm's runs as one file; load: back
bench   tokens per second of the sampler, transformers and TRL: what ``studies fgo-bench`` wrote
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from labkit import checks
from labkit.studies.fgo.arms import ARMS
from labkit.traces import TrainTrace

RESULTS = Path(__file__).resolve().parent / "results"
TUNED = "tune.json"
SMOLLM = "smollm.json"
DIFFUSION = "diffusion.json"
SAMPLED = 2  # runs of an arm whose answers are kept
PILOTS = ("pilot_1e-4", "pilot_3e-4")
Arms = Mapping[str, Sequence[TrainTrace]]


@cache
def runs(name: str = "study") -> dict[str, list[TrainTrace]]:
    """The recorded runs, arms in the study's order, seeds in theirs. FileNotFoundError if there are none.

    name  "study", or "pilot_1e-4", "pilot_3e-4": GRPO and FGO, one seed, at these learning rates, from a
          first reasoner that sampled a quarter of its answers right
    """
    folder = RESULTS / ("" if checks.choice("name", name, ("study", *PILOTS)) == "study" else name)
    traces = [trace for path in sorted(folder.glob("*.npz")) for trace in load(path)]
    if not traces:
        raise FileNotFoundError(f"no recorded runs in {folder.name}")
    found = {arm: [t for t in traces if t.meta["arm"] == arm] for arm in ARMS}
    return {arm: sorted(own, key=lambda t: t.meta["seed"]) for arm, own in found.items() if own}


def missing(arms: Arms) -> list[str]:
    """The planned arms that were not run."""
    return [arm for arm in ARMS if arm not in arms]


def file_of(arm: str) -> str:
    """The name of an arm's file, in plain letters."""
    word = "".join(c if c.isalnum() else "_" for c in arm.lower().replace("w/o", "without"))
    return "_".join(filter(None, word.split("_"))) + ".npz"


def save(traces: Sequence[TrainTrace], path: Path) -> None:
    """An arm's runs, of the same steps, as one TrainTrace: series (steps, runs) in float32."""
    series = {
        name: np.stack([trace.series[name] for trace in traces], 1).astype(np.float32)
        for name in traces[0].series
    }
    kept = enumerate(traces[:SAMPLED])
    samples = [{**sample, "run": run} for run, trace in kept for sample in trace.samples]
    TrainTrace(traces[0].step, series, samples, {"each": [trace.meta for trace in traces]}).save(path)


def load(path: Path) -> list[TrainTrace]:
    """What ``save`` wrote, or one run that stands alone."""
    whole = TrainTrace.load(path)
    if "each" not in whole.meta:
        return [whole]
    return [
        TrainTrace(
            whole.step, {name: values[:, run] for name, values in whole.series.items()},
            [sample for sample in whole.samples if sample["run"] == run], meta,
        )
        for run, meta in enumerate(whole.meta["each"])
    ]  # fmt: skip


def tuned(folder: Path = RESULTS) -> dict:
    """Empty where nothing was chosen yet."""
    path = folder / TUNED
    return json.loads(path.read_text()) if path.exists() else {}


def bench() -> dict:
    """``ways`` and ``provenance``."""
    return json.loads((RESULTS / "bench.json").read_text())
