"""What the lab keeps of its FGO study on a GPU.

runs    {arm: a TrainTrace per seed} of ``studies fgo``
bench   tokens per second of the sampler, transformers and TRL: what ``studies fgo-bench`` wrote
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from labkit import checks
from labkit.studies.fgo.lockstep import ARMS
from labkit.traces import TrainTrace

RESULTS = Path(__file__).resolve().parent / "results"
PILOTS = ("pilot_1e-4", "pilot_3e-4")
Arms = Mapping[str, Sequence[TrainTrace]]


@cache
def runs(name: str = "study") -> dict[str, list[TrainTrace]]:
    """The recorded runs, arms in the study's order, seeds in theirs. FileNotFoundError if there are none.

    name  "study", or "pilot_1e-4", "pilot_3e-4": GRPO and FGO, one seed, at these learning rates, from a
          first reasoner that sampled a quarter of its answers right
    """
    folder = RESULTS / ("" if checks.choice("name", name, ("study", *PILOTS)) == "study" else name)
    traces = [TrainTrace.load(path) for path in sorted(folder.glob("*.npz"))]
    if not traces:
        raise FileNotFoundError(f"no recorded runs in {folder.name}")
    found = {arm: [t for t in traces if t.meta["arm"] == arm] for arm in ARMS}
    return {arm: sorted(own, key=lambda t: t.meta["seed"]) for arm, own in found.items() if own}


def bench() -> dict:
    """``ways`` and ``provenance``."""
    return json.loads((RESULTS / "bench.json").read_text())
