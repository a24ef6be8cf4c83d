"""The study: every arm and seed of GRPO and FGO from one model, in lockstep on one device -> TrainTraces.

    python -m labkit.studies fgo --out DIR [--seconds N] [--device cuda] [--tiny]

The loop is FGOTrainer's objective, nothing else: freshly sampled groups, ``fgo_advantages`` or GRPO's,
one "dapo" step without a KL term (``lockstep.policy_step``; a test holds both to the same numbers on a
recorded batch). It exists for speed: all arms share one sampler and one batched step.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from labkit.fgo.lab.reasoner import LONGEST_PROMPT, NAME, load_reasoner
from labkit.fgo.tasks import verbose_sums
from labkit.progress import bar
from labkit.provenance import provenance
from labkit.studies.fgo.exam import Exam
from labkit.studies.fgo.lockstep import ARMS, Lockstep, Plan
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.traces import TrainTrace

SAMPLES = 6  # answers to held-out questions kept at each exam; always the same questions


def study(
    model: Qwen2ForCausalLM,
    task: Mapping[str, Any],
    max_tokens: int,
    plan: Plan,
    *,
    seconds: float = float("inf"),
    device: str = "cpu",
    progress: bool = True,
    **about: Any,
) -> dict[str, list[TrainTrace]]:
    """Train every arm with every seed from ``model``; {arm: [a TrainTrace per seed]}.

    task            keywords of ``verbose_sums``; its split "train" is asked, its split "test" examines
    plan.arms       name -> method "grpo", or settings of ``Objective``
    seconds         stop after the step that passes this; all arms stop together

    Series carry TRL's names plus fgo/* (FGOTrainer's; fgo/response_entropy is always the sampled sum) and
    exam/*. ``meta`` has before and after (``Exam``'s numbers), greedy twins, tokens per second.
    """
    runs = plan.runs
    together = Lockstep(model, task, max_tokens, plan, device)
    exam = Exam(together.fleet, plan.exam_questions, LONGEST_PROMPT, max_tokens)
    held_out = verbose_sums(plan.exam_questions * plan.final_exams, seed=1, **{**task, "split": "test"})
    look = partial(_look, exam, held_out[: plan.exam_questions])
    before, before_greedy = _examine(exam, held_out)
    logs: list[list[dict]] = [[] for _ in runs]
    samples: list[list[dict]] = [[] for _ in runs]
    began = time.perf_counter()
    torch.manual_seed(0)
    shown = bar(progress, range(1, plan.steps + 1), desc=f"{len(runs)} runs")
    for step in shown:
        if (step - 1) % plan.exam_every == 0:
            look(step, logs, samples)
        columns = together.step(step)
        for index, log in enumerate(logs):
            log.append({"step": step, **{name: values[index] for name, values in columns.items()}})
        if time.perf_counter() - began > seconds:
            break
    shown.close()
    spent = time.perf_counter() - began
    look(step + 1, logs, samples)
    after, after_greedy = _examine(exam, held_out)
    shared = provenance(
        **about, steps=step, questions=plan.questions, group=plan.group, learning_rate=plan.learning_rate,
        exam_questions=plan.exam_questions, final_questions=len(held_out), runs=len(runs), seconds=spent,
    )  # fmt: skip
    traces: dict[str, list[TrainTrace]] = {arm: [] for arm in plan.arms}
    for index, (arm, seed) in enumerate(runs):
        meta = {**shared, "arm": arm, "seed": seed, "settings": dict(plan.arms[arm])}
        meta |= {"before": before[index], "after": after[index]}
        meta |= {"before_greedy": before_greedy[index], "after_greedy": after_greedy[index]}
        traces[arm].append(TrainTrace.from_log(logs[index], samples=samples[index], meta=meta))
    return traces


def _look(exam: Exam, questions: list[dict], step: int, logs: list[list[dict]], samples: list) -> None:
    """Examine before step ``step``: the model has taken step - 1."""
    numbers, answers = exam(questions, seed=7, keep=SAMPLES)
    for index, found in enumerate(numbers):
        logs[index].append({"step": step - 1, **{f"exam/{name}": value for name, value in found.items()}})
        samples[index] += [{"step": step - 1, **answer} for answer in answers[index]]


def _examine(exam: Exam, questions: list[dict]) -> tuple[list[dict], list[dict]]:
    return exam(questions, seed=11)[0], exam(questions, greedy=True)[0]


def save_traces(traces: Mapping[str, Sequence[TrainTrace]], folder: str | Path) -> list[Path]:
    """One small npz per run, float32, named ``<arm>_<seed>.npz`` in plain letters."""
    paths = []
    for arm, found in traces.items():
        word = "".join(c if c.isalnum() else "_" for c in arm.lower().replace("w/o", "without"))
        word = "_".join(filter(None, word.split("_")))
        for trace in found:
            small = {name: values.astype(np.float32) for name, values in trace.series.items()}
            copy = TrainTrace(trace.step, small, trace.samples, trace.meta)
            paths.append(copy.save(Path(folder) / f"{word}_{trace.meta['seed']}.npz"))
    return paths


def _prepare(context: Context) -> tuple[Qwen2ForCausalLM, dict[str, Any], Plan]:
    given = dict(vars(context.options))
    given["arms"] = {arm: ARMS[arm] for arm in given["arms"]}
    model, about = load_reasoner(given.pop("model"), device=context.device)
    return model, about, Plan(**given)


def _run(context: Context) -> dict:
    """Train, save the traces; where each run arrived."""
    model, about, plan = context.prepared
    left = context.deadline - time.time()
    traces = study(
        model, about["task"], about["max_tokens"], plan, seconds=left, device=context.device,
        command=context.command,
    )  # fmt: skip
    save_traces(traces, context.out)
    keys = ("seed", "steps", "after")
    return {"arms": {arm: [{key: t.meta[key] for key in keys} for t in own] for arm, own in traces.items()}}


def _show(found: Mapping[str, Any]) -> str:
    runs = [(arm, run) for arm, own in found["arms"].items() for run in own]
    return "\n".join(f"{arm} {run['seed']} {run['steps']} {run['after']}" for arm, run in runs)


STUDY = Study(
    "fgo",
    "Every arm and seed of GRPO and FGO from one model, in lockstep on one device: a TrainTrace each.",
    {"train": Stage(_run, "all arms; one .npz a run, and where each arrived", "train.json", show=_show,
                    shape={"arms": {str: [{"seed": int, "steps": int, "after": {str: float}}]}},
                    inputs=lambda c: dict(vars(c.options)))},
    {
        "model": Option(NAME, "the lab's model, or a file of labkit.fgo.lab.reasoner"),
        "arms": Option(tuple(ARMS), "to train", choices=tuple(ARMS)),
        "seeds": Option(Plan.seeds, "of each arm; all arms of a seed are asked the same", tiny=2),
        "steps": Option(Plan.steps, "of each run", tiny=4),
        "questions": Option(Plan.questions, "a step", tiny=3),
        "group": Option(Plan.group, "responses to a question", tiny=4, least=2),
        "learning_rate": Option(Plan.learning_rate, "of AdamW, constant", tiny=1e-3, least=0),
        "exam_every": Option(Plan.exam_every, "steps between exams", tiny=2),
        "exam_questions": Option(Plan.exam_questions, "held-out questions of an exam", tiny=16),
        "final_exams": Option(Plan.final_exams, "times as many in the first and last exam", tiny=1),
        "chunks": Option(Plan.chunks, "in which a step's responses are computed", tiny=2),
    },
    prepare=_prepare,
)  # fmt: skip
