"""The study: every arm and seed of GRPO and FGO from one model, in lockstep on one device -> TrainTraces.

    python -m labkit.studies.fgo.study --output DIR [--seconds N] [--device cuda] [--tiny]

The loop is FGOTrainer's objective, nothing else: freshly sampled groups, ``fgo_advantages`` or GRPO's,
one "dapo" step without a KL term (``fleet.policy_step``; a test holds both to the same numbers on a
recorded batch). It exists for speed: all arms share one sampler and one batched step.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.advantages import FLAT, grpo_advantages, objective_advantages
from labkit.fgo.lab.exam import Exam, decode, encode, grade
from labkit.fgo.lab.fleet import Fleet, policy_step
from labkit.fgo.lab.reasoner import LONGEST_PROMPT, NAME, load_reasoner
from labkit.fgo.lab.sampler import Responses, Sampler
from labkit.fgo.measures import act, entropy_per_token
from labkit.fgo.objective import Objective
from labkit.fgo.tasks import verbose_sums
from labkit.provenance import provenance
from labkit.traces import TrainTrace

# Settings of an Objective, or method "grpo". "w/o": an ablation of FGO's own terms.
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {"method": "grpo"},
    "FGO": {"alpha": 0.01, "beta": 1.0},
    "FGO, alpha 1": {"alpha": 1.0, "beta": 1.0},
    "w/o length (alpha 0)": {"alpha": 0.0, "beta": 1.0},
    "w/o entropy (beta 0)": {"alpha": 0.01, "beta": 0.0},
    "w/o entropy, alpha 1": {"alpha": 1.0, "beta": 0.0},
    "mean entropy": {"alpha": 0.01, "beta": 1.0, "entropy": "full_mean"},
}
FULL: dict[str, Any] = {
    "seeds": 2, "steps": 600, "questions": 32, "group": 8, "learning_rate": 5e-5, "exam_every": 25,
    "exam_questions": 512, "final_exams": 4, "chunks": 4,
}  # fmt: skip
TINY: dict[str, Any] = {
    "seeds": 2, "steps": 4, "questions": 3, "group": 4, "learning_rate": 1e-3, "exam_every": 2,
    "exam_questions": 16, "final_exams": 1, "chunks": 2,
}  # fmt: skip
SAMPLES = 6  # answers to held-out questions kept at each exam; always the same questions


def study(
    model: Qwen2ForCausalLM,
    task: Mapping[str, Any],
    max_tokens: int,
    *,
    arms: Mapping[str, Mapping[str, Any]] = ARMS,
    seeds: int = 3,
    steps: int = 400,
    questions: int = 32,
    group: int = 8,
    learning_rate: float = 1e-4,
    exam_every: int = 20,
    exam_questions: int = 512,
    final_exams: int = 4,
    chunks: int = 4,
    seconds: float = float("inf"),
    device: str = "cpu",
    progress: bool = True,
    **about: Any,
) -> dict[str, list[TrainTrace]]:
    """Train every arm with every seed from ``model``; {arm: [a TrainTrace per seed]}.

    task            keywords of ``verbose_sums``; its split "train" is asked, its split "test" examines
    arms            name -> method "grpo", or settings of ``Objective``
    seeds           seed s of every arm is asked the same questions
    questions       per step, each sampled ``group`` times
    learning_rate   of AdamW, constant, no weight decay; gradients clipped to norm 1 (TRL's defaults)
    exam_every      steps between two exams of ``exam_questions`` held-out questions, one draw each; the
                    first and the last exam ask ``final_exams`` times as many, and once greedily
    seconds         stop after the step that passes this; all arms stop together

    Series carry TRL's names plus fgo/* (FGOTrainer's; fgo/response_entropy is always the sampled sum) and
    exam/*. ``meta`` has before and after (``Exam``'s numbers), greedy twins, tokens per second.
    """
    for name, value in {"steps": steps, "seeds": seeds, "questions": questions, "exam_every": exam_every,
                        "exam_questions": exam_questions, "final_exams": final_exams}.items():  # fmt: skip
        checks.integer(name, value, 1)
    checks.integer("group", group, 2)
    checks.number("learning_rate", learning_rate, 0)
    runs = [(arm, seed) for arm in arms for seed in range(seeds)]
    fleet = Fleet(model, len(runs), device)
    optimizer = torch.optim.AdamW(
        fleet.weights.values(), learning_rate, weight_decay=0.0, fused=device == "cuda"
    )
    sampler = Sampler(fleet, questions * group, LONGEST_PROMPT, max_tokens)
    exam = Exam(fleet, exam_questions, LONGEST_PROMPT, max_tokens)
    held_out = verbose_sums(exam_questions * final_exams, seed=1, **{**task, "split": "test"})
    before, before_greedy = _examine(exam, held_out)
    logs: list[list[dict]] = [[] for _ in runs]
    samples: list[list[dict]] = [[] for _ in runs]
    began = time.perf_counter()
    torch.manual_seed(0)
    bar = tqdm(range(1, steps + 1), desc=f"{len(runs)} runs", disable=not progress)
    for step in bar:
        if (step - 1) % exam_every == 0:
            _look(exam, held_out[:exam_questions], step, logs, samples)
        asked = [verbose_sums(questions, seed=_seed(seed, step), **task) for seed in range(seeds)]
        prompts = [encode([row["prompt"] for row in rows], LONGEST_PROMPT) for rows in asked]
        ids, length = (
            torch.stack([part[seed] for _, seed in runs]).repeat_interleave(group, 1).to(device)
            for part in zip(*prompts, strict=True)
        )
        responses = sampler(ids, length)
        answers = [[row["answer"] for row in rows for _ in range(group)] for rows in asked]
        correct = grade(decode(responses), [answers[seed] for _, seed in runs])
        batch = _measure(responses, torch.from_numpy(correct), group)
        advantages = judge(batch, list(arms.values()), seeds)
        width = int((length + responses.length).max())
        loss, norm = policy_step(
            fleet, optimizer, responses.ids[..., :width], responses.mask[..., :width],
            advantages.flatten(1).to(device, torch.float32), chunks=chunks,
        )  # fmt: skip
        numbers = {"loss": loss, "grad_norm": norm, **_numbers(batch, advantages)}
        columns = {name: value.tolist() for name, value in numbers.items()}
        for index, log in enumerate(logs):
            log.append({"step": step, **{name: values[index] for name, values in columns.items()}})
        if time.perf_counter() - began > seconds:
            break
    bar.close()
    spent = time.perf_counter() - began
    _look(exam, held_out[:exam_questions], step + 1, logs, samples)
    after, after_greedy = _examine(exam, held_out)
    shared = provenance(
        **about, steps=step, questions=questions, group=group, learning_rate=learning_rate,
        exam_questions=exam_questions, final_questions=len(held_out), runs=len(runs), seconds=spent,
    )  # fmt: skip
    traces: dict[str, list[TrainTrace]] = {arm: [] for arm in arms}
    for index, (arm, seed) in enumerate(runs):
        meta = {**shared, "arm": arm, "seed": seed, "settings": dict(arms[arm])}
        meta |= {"before": before[index], "after": after[index]}
        meta |= {"before_greedy": before_greedy[index], "after_greedy": after_greedy[index]}
        traces[arm].append(TrainTrace.from_log(logs[index], samples=samples[index], meta=meta))
    return traces


def judge(batch: dict[str, torch.Tensor], arms: Sequence[Mapping[str, Any]], seeds: int) -> torch.Tensor:
    """Advantages (R, Q, G) of a measured batch whose runs are arm by arm, ``seeds`` of each."""
    every = []
    for index, arm in enumerate(arms):
        part = {k: v[index * seeds : (index + 1) * seeds].flatten(0, 1) for k, v in batch.items()}
        settings = dict(arm)
        if settings.pop("method", "fgo") == "grpo":
            found = grpo_advantages(2.0 * part["correct"] - 1.0, **settings)
        else:
            objective = Objective(**settings)
            columns = part["correct"], part["length"], part[objective.entropy]
            found = objective_advantages(objective, *columns)
        every.append(found.view(seeds, -1, found.shape[1]))
    return torch.cat(every)


def _measure(responses: Responses, correct: torch.Tensor, group: int) -> dict[str, torch.Tensor]:
    """(R, Q, G) on the host: correct, length, the three entropies."""
    found = {"correct": correct, "length": responses.length, **responses.entropies}
    return {name: value.cpu().unflatten(1, (-1, group)) for name, value in found.items()}


def _numbers(batch: dict[str, torch.Tensor], advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    """What FGOTrainer logs, (R,) each."""
    accuracy = batch["correct"].double().mean((1, 2))
    length = batch["length"].double().mean((1, 2))
    constant = batch["correct"].all(2) | ~batch["correct"].any(2)
    return {
        "reward": 2 * accuracy - 1,
        "fgo/accuracy": accuracy,
        "completions/mean_length": length,
        "fgo/response_entropy": batch["sampled_sum"].double().mean((1, 2)),
        "entropy": entropy_per_token(batch["full_sum"].double(), batch["length"], (1, 2)),
        "fgo/act": act(accuracy, length),
        "fgo/invalid_groups": (advantages.abs().amax(2) < FLAT).sum(1).double(),
        "fgo/constant_groups": constant.sum(1).double(),
    }


def _look(exam: Exam, questions: list[dict], step: int, logs: list[list[dict]], samples: list) -> None:
    """Examine before step ``step``: the model has taken step - 1."""
    numbers, answers = exam(questions, seed=7, keep=SAMPLES)
    for index, found in enumerate(numbers):
        logs[index].append({"step": step - 1, **{f"exam/{name}": value for name, value in found.items()}})
        samples[index] += [{"step": step - 1, **answer} for answer in answers[index]]


def _examine(exam: Exam, questions: list[dict]) -> tuple[list[dict], list[dict]]:
    return exam(questions, seed=11)[0], exam(questions, greedy=True)[0]


def _seed(seed: int, step: int) -> int:
    return 1_000_003 * (seed + 1) + step


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


def main(argv: list[str] | None = None) -> int:
    """The command in this module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m labkit.studies.fgo.study", description=__doc__)
    parser.add_argument("--output", required=True, help="folder for the traces")
    parser.add_argument(
        "--model", default=NAME, help="the lab's model, or a file of labkit.fgo.lab.reasoner"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop training after this")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: proves that the code runs")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="only these (repeatable)")
    for name in ("steps", "seeds", "questions"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--learning-rate", type=float)
    given = parser.parse_args(argv)
    chosen = dict(TINY if given.tiny else FULL)
    for name in ("steps", "seeds", "questions", "learning_rate"):
        if getattr(given, name) is not None:
            chosen[name] = getattr(given, name)
    words = " ".join(["python -m labkit.studies.fgo.study", *(sys.argv[1:] if argv is None else argv)])
    arms = {arm: ARMS[arm] for arm in given.arm or ARMS}
    try:
        model, about = load_reasoner(given.model, device=given.device)
        traces = study(
            model, about["task"], about["max_tokens"], arms=arms, seconds=given.seconds,
            device=given.device, command=words, **chosen,
        )  # fmt: skip
        save_traces(traces, given.output)
    except (ValueError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    for arm, found in traces.items():
        for trace in found:
            after = {k: round(v, 3) for k, v in trace.meta["after"].items()}
            print(arm, trace.meta["seed"], trace.meta["steps"], after, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
