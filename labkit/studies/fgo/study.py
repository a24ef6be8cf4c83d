"""The study: learning rates chosen on validation seeds, then every arm trained with paired test seeds.

    python -m labkit.studies fgo --out DIR [--seconds N] [--device cuda] [--tiny]

The seeds of a unit (a family in "tune", an arm in "test") train in lockstep on one device; a unit that is
whole is kept at once and not run again, so a call that was cut off is gone on with by the same command.
Every family gets the same validation runs: each of ``rates`` with each of two seeds that no test uses, on
held-out questions that no test asks. The rule, fixed before: of the rates whose mean sampled accuracy lies
within a point of the family's best, the one with the shortest answers. Writes tune.json and one npz an
arm, see records.

The loop is FGOTrainer's objective with each arm's advantages: freshly sampled groups, one step each
(``lockstep.policy_step``; a test holds both to the same numbers on a recorded batch).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit.fgo.lab.reasoner import NAME, NAMES, file_of, load_reasoner
from labkit.fgo.tasks import stream_sums, verbose_sums
from labkit.progress import bar
from labkit.provenance import provenance
from labkit.studies.fgo import records
from labkit.studies.fgo.arms import ARMS, FAMILIES
from labkit.studies.fgo.lockstep import Lockstep, Plan, Run
from labkit.studies.files import check, digest
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.traces import TrainTrace

SAMPLES = 6  # answers to held-out questions kept at each exam; always the same questions
VALIDATION_SEEDS = (1000, 1001)
RATES = (2.5e-5, 5e-5, 1e-4, 2e-4)
NEAR = 0.01  # of accuracy: as good as the best, on validation
TUNED = {
    "chosen": float,
    "runs": [{"seed": int, "learning_rate": float, "accuracy": float, "length": float}],
}
Questions = list[dict[str, str]]


def study(
    lab: Lockstep, runs: Sequence[Run], held_out: Questions, *, progress: bool = True, **about: Any
) -> list[TrainTrace]:
    """Train ``runs``, one a copy, and examine them on the way; a TrainTrace each.

    held_out  questions of the last exam; those on the way ask the first of them

    Series carry TRL's names plus fgo/* (FGOTrainer's; fgo/response_entropy is always the sampled sum), and
    exam/* and greedy/*, of answers sampled and greedy. ``meta`` has the last exam as ``after`` and
    ``after_greedy``.
    """
    plan = lab.plan
    logs: list[list[dict]] = [[] for _ in runs]
    samples: list[list[dict]] = [[] for _ in runs]
    began = time.perf_counter()
    for step in train(lab, runs, logs, progress):
        if step % plan.exam_every == 0:
            _look(lab, held_out[: plan.exam_questions], step, logs, samples)
    after, after_greedy = examine(lab, held_out)
    spent = time.perf_counter() - began
    shared = provenance(**about, **vars(plan), final_questions=len(held_out), seconds=spent)
    return [
        TrainTrace.from_log(log, samples=answers, meta={
            **shared, "arm": run.arm, "seed": run.seed, "learning_rate": run.learning_rate,
            "settings": dict(ARMS[run.arm].settings), "after": last, "after_greedy": greedy,
        })
        for run, log, answers, last, greedy in zip(runs, logs, samples, after, after_greedy, strict=True)
    ]  # fmt: skip


def train(lab: Lockstep, runs: Sequence[Run], logs: list[list[dict]], progress: bool) -> Iterator[int]:
    """Take the plan's steps with every run; yields 0 before the first, then the number of each."""
    lab.begin(runs)
    torch.manual_seed(0)  # the first step of every arm sees the same responses
    yield 0
    for step in bar(progress, range(1, lab.plan.steps + 1), desc=runs[0].arm):
        columns = lab.step(step)
        for index, log in enumerate(logs):
            log.append({"step": step, **{name: values[index] for name, values in columns.items()}})
        yield step


def _look(lab: Lockstep, questions: Questions, step: int, logs: list[list[dict]], samples: list) -> None:
    numbers, answers = lab.exam(questions, seed=7, keep=SAMPLES)
    greedy = lab.exam(questions, greedy=True)[0]
    for index, log in enumerate(logs):
        log.append({"step": step, **{f"exam/{name}": value for name, value in numbers[index].items()}})
        log.append({"step": step, **{f"greedy/{name}": value for name, value in greedy[index].items()}})
        samples[index] += [{"step": step, **answer} for answer in answers[index]]


def examine(lab: Lockstep, questions: Questions) -> tuple[list[dict], list[dict]]:
    """(numbers of sampled answers, of greedy ones), a dict per copy."""
    return lab.exam(questions, seed=11)[0], lab.exam(questions, greedy=True)[0]


def tune(lab: Lockstep, runs: Sequence[Run], questions: Questions) -> dict[str, Any]:
    """Where each validation run arrives, and the learning rate that they choose."""
    for _ in train(lab, runs, [[] for _ in runs], progress=True):
        pass
    rows = [
        {"seed": run.seed, "learning_rate": run.learning_rate}
        | {name: own[name] for name in ("accuracy", "length")}
        for run, own in zip(runs, lab.exam(questions, seed=11)[0], strict=True)
    ]
    return {"runs": rows, "chosen": choose(rows)}


def choose(rows: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate of validation runs: nearly the most accurate, then the shortest answers."""
    means = {
        rate: np.mean([(r["accuracy"], r["length"]) for r in rows if r["learning_rate"] == rate], 0)
        for rate in {row["learning_rate"] for row in rows}
    }
    best = max(accuracy for accuracy, _ in means.values())
    return min((length, rate) for rate, (right, length) in means.items() if right >= best - NEAR)[1]


def held_out_questions(task: Mapping[str, Any], test: int, validation: int) -> tuple[Questions, Questions]:
    """Questions that no run is trained on: for the exams of the test, and others for the choice."""
    task = {**task, "split": "test"}
    asked = verbose_sums(test, seed=1, **task)
    known = {row["prompt"] for row in asked}
    others = (row for row in stream_sums(seed=2, **task) if row["prompt"] not in known)
    return asked, list(islice(others, validation))


class _Bench:
    """What the units of a call share: model, questions, one Lockstep, and how long a unit takes."""

    def __init__(self, context: Context):
        options = vars(context.options)
        name, self.context = options["model"], context
        self.model, self.about = load_reasoner(name, device=context.device)
        self.plan = Plan(**{key: options[key] for key in vars(Plan())})
        final = self.plan.exam_questions * self.plan.final_exams
        self.test, self.validation = held_out_questions(self.about["task"], final, final)
        weights = digest(file_of(name) if name in NAMES else Path(name))
        self.fixed = {"plan": vars(self.plan), "weights": weights, "device": context.device}
        self.longest, self.lab = 0.0, None  # type: float, Lockstep | None

    def lockstep(self, copies: int) -> Lockstep:
        """Kept as long as the number of copies stays."""
        if self.lab is None or self.lab.fleet.copies != copies:
            self.lab = None  # its memory goes first
            about = self.about
            self.lab = Lockstep(
                self.model, about["task"], about["max_tokens"], self.plan, copies, self.context.device
            )
        return self.lab

    def fingerprint(self, arm: str, runs: Sequence[Run]) -> str:
        """Of all that decides the result of a unit."""
        return digest([self.fixed, asdict(ARMS[arm]), runs])

    def units(self, names: Iterable[str]) -> Iterator[str]:
        """The names one by one, until one more would end after the deadline; tells what each took."""
        for name in names:
            if time.time() + 1.2 * self.longest > self.context.deadline:
                print(f"{name}: no time left", flush=True)
                return
            began = time.time()
            yield name
            spent = time.time() - began
            self.longest = max(self.longest, spent)
            print(f"{name}: {spent:.1f} s", flush=True)


def _run(context: Context) -> None:
    if "tune" in context.stages:
        _tune(context, context.prepared)
    if "test" in context.stages:
        _test(context, context.prepared)


def _tune(context: Context, bench: _Bench) -> None:
    chosen = {ARMS[arm].family for arm in context.options.arms}
    for family in bench.units(name for name in FAMILIES if name in chosen):
        arm = FAMILIES[family]
        runs = [Run(arm, seed, rate) for rate in context.options.rates for seed in VALIDATION_SEEDS]
        mark = bench.fingerprint(arm, runs)
        if records.tuned(context.out).get(family, {}).get("fingerprint") == mark:
            continue
        found = tune(bench.lockstep(len(runs)), runs, bench.validation)
        check(family, found, TUNED)
        context.write(found | {"arm": arm, "fingerprint": mark}, records.TUNED, family)


def _test(context: Context, bench: _Bench) -> None:
    tuned, before = records.tuned(context.out), None
    for arm in bench.units(context.options.arms):
        family = ARMS[arm].family
        if family not in tuned:
            print(f"{arm}: no learning rate yet, the stage tune chooses it", flush=True)
            continue
        runs = [Run(arm, seed, tuned[family]["chosen"]) for seed in range(context.options.seeds)]
        mark, path = bench.fingerprint(arm, runs), context.out / records.file_of(arm)
        if path.exists() and TrainTrace.load(path).meta["each"][0]["fingerprint"] == mark:
            continue
        lab = bench.lockstep(len(runs))
        if before is None:
            lab.begin(runs)
            before = examine(lab, bench.test)
        traces = study(lab, runs, bench.test, command=context.command, fingerprint=mark)
        for trace, start, greedy in zip(traces, *before, strict=True):
            trace.meta |= {"before": start, "before_greedy": greedy}
        records.save(traces, path)


STUDY = Study(
    "fgo",
    "GRPO, its rivals and FGO from one model: rates chosen on validation, then paired test seeds.",
    {
        "tune": Stage(_run, "a learning rate for each family, on validation seeds and questions"),
        "test": Stage(_run, "every arm with every seed; one .npz an arm"),
    },
    {
        "model": Option(NAME, "the lab's model, or a file of labkit.fgo.lab.reasoner"),
        "arms": Option(tuple(ARMS), "to train", choices=tuple(ARMS)),
        "seeds": Option(8, "of each arm; all arms of a seed are asked the same", tiny=2),
        "rates": Option(RATES, "learning rates to choose from", tiny=(1e-3,), least=0),
        "steps": Option(Plan.steps, "of each run", tiny=4),
        "questions": Option(Plan.questions, "a step", tiny=3),
        "group": Option(Plan.group, "responses to a question", tiny=4, least=2),
        "exam_every": Option(Plan.exam_every, "steps between exams", tiny=2),
        "exam_questions": Option(Plan.exam_questions, "held-out questions of an exam", tiny=16),
        "final_exams": Option(Plan.final_exams, "times as many in the last exam", tiny=1),
        "chunks": Option(Plan.chunks, "in which a step's responses are computed", tiny=2),
    },
    prepare=_Bench,
)
