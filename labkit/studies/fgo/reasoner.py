"""Train one of the lab's reasoning models; write its weights and its card.

    python -m labkit.studies fgo-models [--stages lab/sums-small] [--out DIR] [--device cuda]

The weights are bfloat16 safetensors with the settings in their header, which
``labkit.fgo.lab.reasoner.load_reasoner`` reads.
"""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import LONGEST_PROMPT, NAME, SMALL, file_of, load_reasoner
from labkit.fgo.tasks import verbose_sums
from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.studies.fgo.exam import Exam
from labkit.studies.fgo.teaching import Recipe, train_char_model
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.traces import TrainTrace

QUESTIONS = 2048  # of each of the two exams whose numbers stand on a card
# max_tokens: one worked solution in a thousand is longer. The exams sample, as reinforcement will: a first
# model that erred in 42 of 100 greedy answers sampled 77 wrong ones.
MODELS: dict[str, dict[str, Any]] = {
    NAME: {
        "task": {"operands": (2, 4), "digits": 2, "split": "train"}, "max_tokens": 128,
        "shape": {"hidden": 256, "layers": 7, "heads": 4},
        "recipe": {"target": 0.7, "greedy": False, "max_steps": 1000, "batch": 256,
                   "learning_rate": 1e-3, "exam_every": 20, "exam_from": 300, "exam_questions": 512},
    },
    SMALL: {
        "task": {"operands": (2, 3), "split": "train"}, "max_tokens": 72,
        "shape": {"hidden": 64, "layers": 2, "heads": 4},
        "recipe": {"target": 0.7, "greedy": False, "max_steps": 800, "batch": 32,
                   "learning_rate": 8e-3, "exam_every": 20, "exam_questions": 512},
    },
}  # fmt: skip
TINY_SHAPE = {"hidden": 32, "layers": 1, "heads": 2}
TINY: dict[str, Any] = {"target": 0.0, "max_steps": 8, "batch": 8, "learning_rate": 3e-3, "exam_every": 4}

CARD = """# {name}

A Qwen2 of {parameters:,} weights over {vocabulary} characters that adds numbers in worked steps, with slips
and checks: `{example}`

| | |
|---|---|
| what for | reinforcement learning with FGO and GRPO: it errs often enough that there is much to learn |
| data | `labkit.fgo.tasks.verbose_sums({task})`, generated; nothing else was read |
| training | supervised, {steps} steps of {batch} worked sums, to stop at the first exam with {target:.0%} of the samples right (reached {reached:.1%}) |
| held-out, greedy | {greedy[accuracy]:.1%} of {questions} questions, {greedy[length]:.1f} tokens |
| held-out, sampled | {sampled[accuracy]:.1%}, {sampled[length]:.1f} tokens, {sampled[checks]:.2f} checks |
| made by | `{command}`, seed {seed}, {seconds:.0f} s on {device}, torch {torch}, {time} |
| not for | arithmetic |

The held-out questions are never asked in training (a hash of the
prompt tells them apart). Weights are bfloat16 safetensors; Apache-2.0, like the lab.
"""  # noqa: E501


def make_reasoner(
    folder: str | Path,
    *,
    name: str = NAME,
    device: str = "cpu",
    seed: int = 0,
    seconds: float = float("inf"),
    tiny: bool = False,
    command: str = "",
    progress: bool = True,
) -> tuple[Path, TrainTrace]:
    """Train one of ``MODELS`` and write weights and card into ``folder``; (path of the weights, its trace).

    tiny     a few steps of a smaller shape, few questions: proves that the code runs
    seconds  of training at most; below the target the card says what was reached

    The numbers on the card are of the weights as written, in bfloat16.
    """
    questions = 32 if tiny else QUESTIONS
    file, chosen = file_of(name).name, MODELS[name]
    task, max_tokens = chosen["task"], chosen["max_tokens"]
    shape, recipe = (TINY_SHAPE, TINY) if tiny else (chosen["shape"], chosen["recipe"])
    began = time.perf_counter()
    model, trace = train_char_model(
        Recipe(seed=seed, max_tokens=max_tokens, task=task, **recipe),
        device=device, seconds=seconds, progress=progress, **shape,
    )  # fmt: skip
    spent = time.perf_counter() - began
    path = Path(folder) / file
    made = provenance(seed=seed, command=command, seconds=round(spent, 1))
    header = {"shape": shape, "task": task, "max_tokens": max_tokens, "recipe": recipe, "provenance": made}
    weights = {key: value.detach().bfloat16().cpu().contiguous() for key, value in model.named_parameters()}
    write_atomic(path, lambda part: save_file(weights, part, {"labkit": json.dumps(header)}))
    model, _ = load_reasoner(path, device=device)
    rows = min(questions, 512)
    exam = Exam(Fleet(model, 1, device), rows, LONGEST_PROMPT, max_tokens)
    held_out = verbose_sums(questions // rows * rows, seed=seed + 1, **task | {"split": "test"})
    numbers = {kind: exam(held_out, greedy=kind == "greedy")[0][0] for kind in ("greedy", "sampled")}
    card = CARD.format(
        name=name, parameters=sum(v.numel() for v in weights.values()), vocabulary=model.config.vocab_size,
        example=held_out[0]["prompt"] + held_out[0]["completion"],
        task=", ".join(f"{k}={v!r}" for k, v in task.items()),
        steps=int(trace.step[-1]), questions=len(held_out), command=command, seed=seed, seconds=spent,
        reached=trace.curve("accuracy")[1][-1],
        batch=recipe["batch"], target=recipe["target"], torch=made["versions"]["torch"],
        device=made["device"], time=made["time"], **numbers,
    )  # fmt: skip
    write_atomic(path.with_suffix(".md"), lambda part: part.write_text(card))
    trace.meta |= numbers
    return path, trace


def _run(context: Context, name: str) -> dict:
    """Train one model; what its two exams came to."""
    trace = make_reasoner(
        context.out, name=name, device=context.device, seed=context.options.seed,
        seconds=context.deadline - time.time(), tiny=context.tiny, command=context.command,
    )[1]  # fmt: skip
    return {"accuracy": {kind: trace.meta[kind]["accuracy"] for kind in ("greedy", "sampled")}}


def _stage(name: str) -> Stage:
    return Stage(
        partial(_run, name=name), f"train {name}", "models.json", name, {"accuracy": {str: float}},
        lambda c: c.pick("seed") | {"settings": MODELS[name]}, json.dumps,
    )  # fmt: skip


STUDY = Study(
    "fgo-models",
    "Train the lab's reasoning models: weights and a card of each.",
    {name: _stage(name) for name in MODELS},
    {"seed": Option(0, "of weights and questions", least=0)},
    default=(NAME,),
)
