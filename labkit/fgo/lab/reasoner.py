"""The lab's reasoning models: one character per token, taught to be right now and then.

    python -m labkit.fgo.lab.reasoner --output labkit/checkpoints [--name lab/sums-small] [--device cuda]

trains one and writes its weights (bfloat16 safetensors, settings in the header) and its card.
``load_reasoner`` reads it back.

lab/sums-reasoner  six million weights, two to four numbers of up to two digits: the study's model
lab/sums-small     a hundred thousand weights, two or three digits: trains live on one CPU core
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.lab.char_model import Recipe, build_char_model, train_char_model
from labkit.fgo.lab.exam import Exam
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.tasks import verbose_sums
from labkit.paths import CHECKPOINTS, write_atomic
from labkit.provenance import provenance
from labkit.traces import TrainTrace

NAME, SMALL = "lab/sums-reasoner", "lab/sums-small"
LONGEST_PROMPT = len("Q99+99+99+99=")
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


def file_of(name: str) -> Path:
    """Where the weights of one of ``MODELS`` lie."""
    return (
        CHECKPOINTS / f"fgo_{checks.choice('name', name, tuple(MODELS))[4:].replace('-', '_')}.safetensors"
    )


def load_reasoner(
    name: str | Path = NAME, *, device: str | torch.device = "cpu"
) -> tuple[Qwen2ForCausalLM, dict[str, Any]]:
    """(model in eval mode, float32; what its header says: shape, task, max_tokens, provenance).

    name  a name of ``MODELS``, or a file that this module wrote

    ValueError if it is neither, or if a weight is missing, unexpected or of another shape.
    """
    path = file_of(str(name)) if str(name) in MODELS else Path(name)
    allowed = f"{NAME!r}, {SMALL!r} or a safetensors file written by labkit.fgo.lab.reasoner"
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["labkit"])
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"name must be {allowed}; got {str(name)!r} ({type(error).__name__})") from error
    model = build_char_model(**about["shape"])
    wanted = {key: value.shape for key, value in model.named_parameters()}
    found = {key: value.shape for key, value in weights.items()}
    if wanted != found:
        wrong = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise ValueError(f"name must hold the weights of its shape; {path.name} differs in {wrong[:3]}")
    model.load_state_dict(weights, strict=False)  # the head is the embedding
    about["task"]["operands"] = tuple(about["task"]["operands"])
    nn.Module.to(model, device)
    return model.eval(), about


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


def main(argv: list[str] | None = None) -> int:
    """The command in this module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m labkit.fgo.lab.reasoner", description=__doc__)
    parser.add_argument("--output", default=str(CHECKPOINTS), help="folder for the weights and the card")
    parser.add_argument("--name", choices=list(MODELS), default=NAME)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of training at most")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: proves that the code runs")
    given = parser.parse_args(argv)
    words = " ".join(["python -m labkit.fgo.lab.reasoner", *(sys.argv[1:] if argv is None else argv)])
    path, trace = make_reasoner(
        given.output, name=given.name, device=given.device, seed=given.seed, seconds=given.seconds,
        tiny=given.tiny, command=words,
    )  # fmt: skip
    print(path, {kind: trace.meta[kind]["accuracy"] for kind in ("greedy", "sampled")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
