"""study.json as it grows, and curves.npz beside it: what was tried, chosen, timed and judged.

Journal      opened on a folder, goes on from what an earlier call left there
chosen       the learning rate of each arm whose rates were all tried
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit.checks import fail
from labkit.elas.config import ARMS, LORO_REVISION, PretrainConfig
from labkit.elas.data import Text, windows
from labkit.elas.evaluation import unigram
from labkit.paths import write_json
from labkit.provenance import provenance
from labkit.studies.elas.fastloop import validation_and_test
from labkit.studies.elas.plan import RULES, TUNE_SEED, Job, rates
from labkit.studies.elas.records import load_curves, save_curves
from labkit.studies.files import check
from labkit.traces import TrainTrace

CURVES = 3  # seeds of each arm whose curves are kept
SHAPE = {
    "config": {"steps": int, "batch_size": int, "seq_len": int}, "loro_revision": int,
    "text": {"name": str, "unigram_nats": float}, "tried": {str: {str: float | None}},
    "chosen": {str: float | None}, "times": {str: {"ms": {"p50": float}}},
    "runs": [{"stage": str, "arm": str, "lr": float, "seed": int, "steps": int, "parameters": int,
              "validation_nats": float | None, "findings": list}],
}  # fmt: skip
JUDGED = ("validation_nats", "test_nats", "test_bits_per_byte")


class Journal:
    """The files of one study. ValueError if ``folder`` holds a study of other settings or another text.

    The keys of study.json:

    provenance, resumed   of the first call and of later ones
    config                what all arms share
    text                  name, tokens of each side, loss on the test side of counting tokens alone
    loro_revision         of the optimiser, see records.note
    tried, chosen         {arm: {rate: validation nats}} of seed TUNE_SEED, and {arm: the best rate}
    times                 {arm: FastRun.throughput and the device}
    runs                  {stage, arm, lr, seed, steps, parameters, validation_nats, test_nats,
                          test_bits_per_byte, seconds, findings, posthoc_nats?}; null where not finite
    """

    def __init__(self, folder: Path, base: PretrainConfig, text: Text, command: str):
        self.path, self.curves = folder / "study.json", folder / "curves.npz"
        about: dict[str, Any] = {
            "provenance": provenance(command=command), "resumed": [], "config": asdict(base),
            "text": _sides(text, base.seq_len), "loro_revision": LORO_REVISION,
            "tried": {}, "chosen": {}, "times": {}, "runs": [],
        }  # fmt: skip
        self.body, self.traces = about, list[TrainTrace]()
        if not self.path.exists():
            return
        self.body = json.loads(self.path.read_text())
        for key in ("config", "text", "loro_revision"):
            if self.body[key] != (mine := json.loads(json.dumps(about[key]))):
                fail(
                    "--out", str(folder), f"new, or a study of the same {key}: {self.body[key]}, not {mine}"
                )
        self.body["resumed"].append(about["provenance"])
        self.traces = load_curves(self.curves) if self.curves.exists() else []

    def done(self, job: Job) -> bool:
        """Whether the job's result stands in the record."""
        if job.stage == "times":
            return job.shown in self.body["times"]
        mine = (job.stage, job.shown, job.config.lr, job.config.seed)
        return any((r["stage"], r["arm"], r["lr"], r["seed"]) == mine for r in self.body["runs"])

    def add(self, job: Job, found: Mapping[str, Any] | TrainTrace) -> None:
        """Take a result in, and write both files."""
        if isinstance(found, TrainTrace):
            self._add_run(job, found)
        else:
            self.body["times"][job.shown] = dict(found)
        check("study", self.body, SHAPE)
        write_json(self.path, self.body, strict=True)

    def _add_run(self, job: Job, trace: TrainTrace) -> None:
        meta = trace.meta
        row = {"stage": job.stage, "arm": job.shown, "lr": job.config.lr, "seed": job.config.seed}
        row |= {"steps": meta["steps_done"], "parameters": meta["parameters"]}
        row |= {name: _finite(meta[name]) for name in JUDGED if name in meta}
        row |= {"seconds": round(meta["seconds"], 1), "findings": meta["findings"]}
        if "posthoc_nats" in meta:
            row["posthoc_nats"] = {rule: _finite(nats) for rule, nats in meta["posthoc_nats"].items()}
        order = [*ARMS, *RULES]
        self.body["runs"].append(row)
        self.body["runs"].sort(key=lambda r: (r["stage"], order.index(r["arm"]), r["seed"], r["lr"]))
        tried = [r for r in self.body["runs"] if r["stage"] == "tune"]
        self.body["tried"] = {
            arm: {f"{r['lr']:g}": r["validation_nats"] for r in tried if r["arm"] == arm}
            for arm in ARMS if any(r["arm"] == arm for r in tried)
        }  # fmt: skip
        self.body["chosen"] = chosen(self.body["runs"])
        if job.stage != "tune" and job.config.seed < CURVES:
            self.traces.append(trace)
            self.traces.sort(key=lambda t: (order.index(t.meta["arm"]), t.meta["seed"]))
            save_curves(self.curves, self.traces)


def chosen(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """{arm: the rate with the lowest validation loss}, of arms whose rates were all tried.

    None where every run broke: the arm has no learning rate to be judged at.
    """
    found: dict[str, float | None] = {}
    for arm in ARMS:
        nats = {
            r["lr"]: math.inf if r["validation_nats"] is None else r["validation_nats"]
            for r in runs if (r["stage"], r["arm"], r["seed"]) == ("tune", arm, TUNE_SEED)
        }  # fmt: skip
        if set(nats) == set(rates(arm)):
            best = min(nats, key=nats.__getitem__)
            found[arm] = best if math.isfinite(nats[best]) else None
    return found


def _sides(text: Text, seq_len: int) -> dict[str, Any]:
    validation, test = validation_and_test(text)
    sides = {"train": text.train, "validation": validation, "test": test}
    base = unigram(text, windows(test, seq_len))
    tokens = {f"{side}_tokens": len(stream) for side, stream in sides.items()}
    counted = {"unigram_nats": base.nats, "unigram_bits_per_byte": base.bits_per_byte}
    return {"name": text.name, **tokens, **counted}


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 6) if math.isfinite(value) else None
