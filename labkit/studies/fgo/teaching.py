"""Worked sums for a character model by supervision: seconds on one core.

Training stops at a target accuracy, well below perfect: reinforcement needs genuine errors to work on.
"""

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import build_char_model
from labkit.fgo.lab.sampler import encode
from labkit.fgo.tasks import CHARACTERS, PAD, stream_sums, verbose_sums
from labkit.progress import bar
from labkit.provenance import provenance
from labkit.studies.fgo.exam import Exam
from labkit.traces import TrainTrace

MAX_TOKENS = 72  # the longest worked solution of the default task has 70
IGNORED = -100  # cross_entropy's label for positions that do not count


@dataclass(frozen=True)
class Recipe:
    """How a character model is taught.

    target      accuracy to stop at, in [0, 1], looked at every ``exam_every`` steps from step
                ``exam_from`` on (default: half of max_steps)
    max_steps   optimiser steps at most; the learning rate falls linearly to zero over them
    greedy      whether the exam decodes greedily or samples
    max_tokens  an exam's answer stops there
    task        keywords of ``verbose_sums``; the default is its default

    ValueError names the field at fault.
    """

    target: float = 0.75
    max_steps: int = 400
    batch: int = 32
    learning_rate: float = 8e-3
    seed: int = 0
    exam_every: int = 20
    exam_from: int | None = None
    exam_questions: int = 128
    greedy: bool = True
    max_tokens: int = MAX_TOKENS
    task: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        checks.number("target", self.target, 0, 1)
        checks.number("learning_rate", self.learning_rate, 0)
        checks.integer("seed", self.seed, 0)
        for name in ("max_steps", "batch", "exam_every", "exam_questions", "max_tokens"):
            checks.integer(name, getattr(self, name), 1)
        checks.choice("greedy", self.greedy, (True, False))
        if self.exam_from is not None:
            checks.integer("exam_from", self.exam_from, 1)

    @property
    def first_exam(self) -> float:
        """No exam before this step."""
        return self.max_steps / 2 if self.exam_from is None else self.exam_from


def train_char_model(
    recipe: Recipe | None = None,
    *,
    device: str = "cpu",
    seconds: float = float("inf"),
    progress: bool = True,
    **shape: int,
) -> tuple[Qwen2ForCausalLM, TrainTrace]:
    """Teach a fresh model worked sums until it solves the recipe's ``target`` of the exam's sums.

    device      on a GPU the products run in bfloat16
    seconds     stop at the first exam after this, whatever it says
    shape       hidden, layers, heads: see ``build_char_model``

    Returns the model and its TrainTrace (series loss, accuracy). On one machine the same arguments give
    the same weights.
    """
    recipe = recipe or Recipe()
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = build_char_model(**shape)
        nn.Module.to(model, device)
        log = _fit(model, recipe, seconds, progress)
    return model, TrainTrace.from_log(log, meta=provenance(arm="sft", **vars(recipe), **shape))


def _fit(model: Qwen2ForCausalLM, recipe: Recipe, seconds: float, progress: bool) -> list[dict[str, Any]]:
    end = time.perf_counter() + seconds
    max_steps, task = recipe.max_steps, recipe.task
    # 1) odd seeds teach, even seeds examine
    rows = stream_sums(seed=2 * recipe.seed + 1, **task)
    questions = verbose_sums(recipe.exam_questions, seed=2 * recipe.seed, **task | _held_out(task))
    longest = max(len(row["prompt"]) for row in questions)
    fleet = Fleet(model, 1, model.device)
    exam = Exam(fleet, len(questions), longest, recipe.max_tokens)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, betas=(0.9, 0.98))
    log: list[dict[str, Any]] = []
    shown = bar(progress, range(1, max_steps + 1), desc="supervised", leave=False)
    for step in shown:
        # 2) one step, the learning rate warming up over 20 and falling to zero
        rate = min(step / 20, 1 - (step - 1) / max_steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * rate
        loss = _backward(model.train(), list(islice(rows, recipe.batch)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step, "loss": loss})
        # 3) an exam now and then, which may end it
        if step == max_steps or (step >= recipe.first_exam and step % recipe.exam_every == 0):
            fleet.read(model)
            log[-1]["accuracy"] = exam(questions, greedy=recipe.greedy)[0][0]["accuracy"]
            shown.set_postfix_str(f"accuracy {log[-1]['accuracy']:.2f}")
            if log[-1]["accuracy"] >= recipe.target or time.perf_counter() > end:
                break
    shown.close()
    model.eval()
    for entry in log:  # one wait for the device at the end, none per step
        entry["loss"] = float(entry["loss"])
    return log


def _held_out(task: dict[str, Any]) -> dict[str, str]:
    return {"split": "test"} if task.get("split") == "train" else {}


def _backward(model: Qwen2ForCausalLM, rows: list[dict[str, str]]) -> Tensor:
    """Add the gradient of the mean loss per token; on a CPU short and long halves apart: less padding."""
    rows = sorted(rows, key=lambda row: len(row["prompt"] + row["completion"]))
    total, tokens = torch.zeros((), device=model.device), sum(len(row["completion"]) for row in rows)
    cut = len(rows) // 2 if model.device.type == "cpu" else 0
    for half in (rows[:cut], rows[cut:]):
        if half:
            ids, labels = (part.to(model.device) for part in _batch(half))
            with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
                logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / tokens
            loss.backward()
            total += loss.detach()
    return total


def _batch(rows: list[dict[str, str]]) -> tuple[Tensor, Tensor]:
    """ids and labels, int (rows, longest): right-padded, so causal attention needs no mask."""
    ids, _ = encode([row["prompt"] + row["completion"] for row in rows])
    prompt_length = torch.tensor([len(row["prompt"]) for row in rows])[:, None]
    ignored = (ids == CHARACTERS.index(PAD)) | (torch.arange(ids.shape[1]) < prompt_length)
    return ids, ids.masked_fill(ignored, IGNORED)  # the question itself cannot be predicted
