"""FGO on a masked diffusion LM: lab/sums on larger numbers, diffu-GRPO, a penalty on calls, FGO twice.

    python -m labkit.studies fgo-diffusion --seed 1000 1001 --rate 1e-4     validation; other rates likewise
    python -m labkit.studies fgo-diffusion --seed 0 1 2 3 4 5 6 7           every arm at its chosen rate

lab/sums was taught sums of numbers up to 30 and is sure of itself; it is asked sums of numbers from 10 to
40 at a temperature at which two groups in five are mixed. Responses are decoded adaptively, so that
each has its own number of forward calls; log-probabilities are d1's (see diffusion_lab). Numbers,
temperature, threshold and max_parallel were chosen by decoding with lab/sums at some 70 of them, before any
training: groups mixed, most answers right, and calls that differ within a group.

A call trains arms x seeds one after another and leaves out what stands in --out; calls may share --out and
run side by side. Seeds from 1000 on choose the rate: they are examined on validation sums. Without --rate
an arm takes, of the rates whose validation accuracy lies within a point of its best, the one with the
fewest calls. Other seeds are examined on test sums.

Writes diffusion.json (see diffusion_claims) and diffusion/UNIT.npz, a TrainTrace.
"""

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from labkit import checks
from labkit.provenance import provenance
from labkit.soar.load import load_model
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.tasks.sums import ROOM
from labkit.studies.fgo.diffusion_lab import ARMS, PARTS, Decoding, examine, held_out, reinforce
from labkit.studies.fgo.records import DIFFUSION, file_of
from labkit.studies.fgo.run_records import VALIDATION, once
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.traces import TrainTrace

MODEL = "lab/sums"
NEAR = 0.01  # of accuracy: as good as the best
DECODING = ("temperature", "threshold", "max_parallel")
ASKED = (*DECODING, "terms", "problems")
RUN = (*ASKED, "steps", "questions", "group", "iterations", "clip", "mask_rate")


class Lab:
    """What the stages of a call share. ValueError names the option that is not allowed."""

    def __init__(self, context: Context):
        o = context.options
        if len(o.terms) != 2 or not 1 <= o.terms[0] <= o.terms[1] <= ROOM:
            checks.fail("--terms", o.terms, f"the smallest and the largest, from 1 to {ROOM}")
        self.decoding = Decoding(**context.pick(*DECODING))
        self.exams = {part: held_out(part, o.problems, tuple(o.terms)) for part in PARTS}
        if "arms" in context.stages:
            path = context.out / DIFFUSION
            found = json.loads(path.read_text()) if path.is_file() else {}
            alike = context.pick(*RUN)
            self.rates = {arm: o.rate or chosen_rate(found, arm, alike) for arm in o.arm}
            if None in self.rates.values():
                named = ", ".join(arm for arm, rate in self.rates.items() if rate is None)
                checks.fail("--rate", o.rate, f"a number: no validation run chose one of {named}")
        self.part_of = {seed: "test" if seed < VALIDATION else "validation" for seed in o.seed}

    def model(self, context: Context) -> MaskedLM:
        """The model that every run begins from."""
        model: Any = load_model(MODEL, device=context.device)
        return model


def chosen_rate(found: dict[str, Any], arm: str, alike: Mapping[str, Any]) -> float | None:
    """The rate that the validation runs of ``arm`` with these options chose; None without one."""
    alike = json.loads(json.dumps({"arm": arm, **alike}))  # a tuple is a list in the record
    seen: dict[float, list[dict[str, Any]]] = {}
    for run in found.get("runs", {}).values():
        about = run["training"]
        same = all(about[name] == value for name, value in alike.items())
        if same and about["seed"] >= VALIDATION:
            seen.setdefault(about["rate"], []).append(run["exam"]["sampled"])
    means = {
        rate: tuple(float(np.mean([exam[name] for exam in exams])) for name in ("accuracy", "calls"))
        for rate, exams in seen.items()
    }
    best = max((accuracy for accuracy, _ in means.values()), default=0.0)
    near = [rate for rate, (accuracy, _) in means.items() if accuracy >= best - NEAR]
    return min(near, key=lambda rate: (means[rate][1], rate), default=None)


def _first(context: Context) -> dict[str, Any]:
    """The model before any reinforcement, on both parts."""
    lab: Lab = context.prepared
    model = lab.model(context)
    return {part: examine(model, texts, lab.decoding) for part, texts in lab.exams.items()}


def _arms(context: Context) -> None:
    lab, o = context.prepared, context.options
    for seed in o.seed:
        for arm in o.arm:
            if context.late:
                print(f"{arm}, seed {seed}: no time left", flush=True)
                continue
            rate = lab.rates[arm]
            unit = f"{file_of(arm).removesuffix('.npz')}-{seed}-{f'{rate:g}'.replace('.', '_')}"
            about = context.pick(*RUN) | {"arm": arm, "seed": seed, "rate": rate}
            once(context, DIFFUSION, ("runs", unit), about, partial(_run, context, unit, about))


def _run(context: Context, unit: str, about: dict[str, Any]) -> dict[str, Any]:
    """One arm with one seed, trained and examined."""
    lab, o, began = context.prepared, context.options, time.perf_counter()
    arm, seed, rate = (about[name] for name in ("arm", "seed", "rate"))
    model, part = lab.model(context), lab.part_of[seed]
    log = reinforce(model, arm, seed, rate, lab.decoding, o)
    seconds = time.perf_counter() - began
    exam = examine(model, lab.exams[part], lab.decoding)
    made = provenance(command=context.command, **about, seconds=seconds)
    TrainTrace.from_log(log, meta=made).save(context.out / "diffusion" / f"{unit}.npz")
    told = ", ".join(
        f"{how} {own['accuracy']:.1%} in {own['calls']:.2f} calls" for how, own in exam.items()
    )
    print(f"{unit}: {seconds:.1f} s, {part}: {told}", flush=True)
    return {"training": about | {"seconds": seconds}, "part": part, "exam": exam}


STUDY = Study(
    "fgo-diffusion",
    "FGO on a masked diffusion LM (lab/sums), against diffu-GRPO and a penalty on forward calls.",
    {
        "first": Stage(
            _first, "the model before, on validation and test sums", DIFFUSION, "first",
            {part: {str: {"accuracy": float, "calls": float, "right": str}} for part in PARTS},
            lambda c: c.pick(*ASKED),
            lambda found: json.dumps({
                part: {how: [own["accuracy"], own["calls"]] for how, own in found[part].items()}
                for part in PARTS
            }),
        ),
        "arms": Stage(_arms, "every arm with every seed"),
    },
    {
        "arm": Option(tuple(ARMS), "to train, one or several", choices=tuple(ARMS)),
        "seed": Option((0,), "one or several; from 1000 on of a choice of rates", least=0),
        "rate": Option(None, "learning rate (default: the one chosen on validation)", tiny=1e-3, kind=float,
                       least=0),
        "steps": Option(60, "of a run", tiny=2),
        "questions": Option(32, "a step", tiny=3),
        "group": Option(8, "responses to a question", tiny=4, least=2),
        "iterations": Option(4, "inner steps on a batch", tiny=2),
        "clip": Option(0.5, "of the ratio to the old policy, d1's", least=0),
        "mask_rate": Option(0.15, "share of the prompt that is masked in an inner step", least=0),
        "terms": Option((10, 40), "smallest and largest number of a sum"),
        "temperature": Option(5.0, "of sampling, and of the policy that is trained", least=0.01),
        "threshold": Option(0.9, "probability above which tokens are committed at once", least=0),
        "max_parallel": Option(23, "tokens committed at once at most"),
        "problems": Option(512, "of an exam", tiny=6),
    },
    prepare=Lab,
)  # fmt: skip
