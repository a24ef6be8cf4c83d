"""How ``studies fgo-smollm`` trains: its first lesson, its arms, and how a call goes on where one ended.

Training  where a run stands; Lab: model, data and folders of a call
lesson    supervised, until an exam is passed
reinforce one arm with one seed
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from labkit import checks
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.sampler import Sampler
from labkit.fgo.policy import load_policy
from labkit.studies.fgo import word_problems as words
from labkit.studies.fgo.arms import ARMS
from labkit.studies.fgo.lockstep import CopiesAdamW, Learner, Run, update
from labkit.studies.fgo.records import file_of
from labkit.studies.harness import Context
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar.gsm_problems import Problem
from labkit.studies.state import load_state, load_weights, save_state

FIRST = "first"  # the model that every arm begins from
WARMUP, LOOK_EVERY, SAVE_EVERY = 20, 10, 50  # steps
IGNORED = -100  # cross_entropy's label for what does not count
CHOICES = tuple(name for name, arm in ARMS.items() if arm.target is None)  # a bonus has a state of its own


@dataclass
class Training:
    """Where a run stands, as save_state keeps it."""

    model: Fleet
    optimisers: list[torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


class Lab:
    """What the stages of a call share. ValueError names the option that is not allowed."""

    def __init__(self, context: Context):
        o, stages = context.options, context.stages
        self.state = context.out / "state"
        if "arms" in stages and o.arm is None:
            checks.fail("--arm", None, f"one of {', '.join(CHOICES)}")
        needed = [("sft", "data"), ("arms", "data"), ("transfer", "gsm8k"), ("transfer", "svamp")]
        for stage, name in needed:
            if stage in stages and getattr(o, name) is None:
                checks.fail(f"--{name}", None, f"a file: the stage {stage} reads it")
        if "sft" not in stages and not (self.state / FIRST / "state.json").is_file():
            checks.fail("--out", str(context.out), "a folder that the stage sft has written")
        rate = f"{o.rate:g}".replace(".", "_")
        self.unit = f"{file_of(o.arm).removesuffix('.npz')}-{o.seed}-{rate}" if o.arm else FIRST
        if self.unit != FIRST and "arms" not in stages and {"exam", "transfer"} & set(stages):
            self.step_of(self.unit)
        self.lessons, self.pool = words.read_pools(o.data) if o.data else ([], [])
        if "arms" in stages and len(self.pool) < o.questions:
            checks.fail("--questions", o.questions, f"at most the {len(self.pool)} problems to ask")
        self.validation = words.held_out("validation", o.exam_problems)
        self.transfer = (
            {"GSM8K": words.read_gsm8k(o.gsm8k), "SVAMP": words.read_svamp(o.svamp)}
            if "transfer" in stages else {}
        )  # fmt: skip
        self.model, self.tokenizer = load_policy(o.model)
        config: Any = self.model.config
        config.eos_token_id = self.tokenizer.eos_token_id
        config.pad_token_id = self.tokenizer.pad_token_id
        self.model.generation_config.eos_token_id = config.eos_token_id
        self.fleet = Fleet(self.model, 1, context.device)
        self.rows, self.max_tokens = o.questions * o.group, o.max_tokens

    def sampler(self, *asked: Sequence[Problem]) -> Sampler:
        """One with room for the longest of these prompts."""
        longest = max(words.asked(self.tokenizer, part, 0)[0].shape[1] for part in asked)
        return Sampler(self.fleet, self.rows, longest, self.max_tokens)

    def begun(self, training: Training, unit: str) -> Training:
        """``training`` as it stood when its last call ended, if there was one."""
        if (self.state / unit / "state.json").is_file():
            load_state(training, self.state / unit)
        return training

    def step_of(self, unit: str) -> int:
        """How far a unit is; ValueError if it has not begun."""
        path = self.state / unit / "state.json"
        if not path.is_file():
            checks.fail("--arm", unit, "a run (arm, seed, rate) that the stage arms has trained in --out")
        return json.loads(path.read_text())["step"]


def draw(pool: Sequence[Problem], count: int, *seed: int) -> list[Problem]:
    """``count`` different problems; the same for the same seed."""
    chosen = np.random.default_rng(seed).choice(len(pool), min(count, len(pool)), replace=False)
    return [pool[index] for index in chosen]


def teach(training: Training, ids: Tensor, mask: Tensor, chunk: int) -> Tensor:
    """One step of AdamW on the mean loss of the tokens of ``mask``, ids and mask (B, T); the loss.

    chunk  rows computed at once
    """
    (optimizer,), loss = training.optimisers, torch.zeros((), device=ids.device)
    optimizer.zero_grad(set_to_none=True)
    labels = ids.masked_fill(~mask, IGNORED)
    for rows in torch.arange(len(ids), device=ids.device).split(chunk):
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.device.type == "cuda"):
            logits = training.model.logits(ids[None, rows])[0, :, :-1]
        own = cross_entropy(logits.float().flatten(0, 1), labels[rows, 1:].flatten(), reduction="sum")
        (own / mask.sum()).backward()
        loss += own.detach() / mask.sum()
    update(training.model, optimizer, 1.0)
    return loss


def lesson(context: Context, lab: Lab) -> Training:
    """Teach until an exam, sampled as reinforcement will sample, reaches ``target``, or for ``sft_steps``.

    The rate is constant after a warm-up: where the lesson ends is not known before.
    """
    o, pad = context.options, lab.fleet.config.pad_token_id
    lab.fleet.read(lab.model)
    optimizer = CopiesAdamW(lab.fleet.weights.values(), torch.tensor([o.sft_rate]))
    run, folder = lab.begun(Training(lab.fleet, [optimizer]), FIRST), lab.state / FIRST
    sampler, before, began = lab.sampler(lab.validation), run.seconds, time.perf_counter()
    while not passed(run, o.target) and run.step < o.sft_steps:
        optimizer.param_groups[0]["lr"] = o.sft_rate * min(1.0, (run.step + 1) / WARMUP)
        ids, mask = words.worked(lab.tokenizer, draw(lab.lessons, o.sft_batch, 0, run.step), pad)
        loss = teach(run, ids.to(lab.fleet.device), mask.to(lab.fleet.device), o.chunk)
        run.step += 1
        run.log.append({"step": run.step, "loss": loss})
        if run.step % o.exam_every == 0 or run.step == o.sft_steps:
            found = words.examine(sampler, lab.tokenizer, lab.validation, greedy=False, seed=7)
            run.log[-1]["accuracy"] = found["accuracy"]
            told = f"loss {float(loss):.3f}, sampled {found['accuracy']:.1%} right"
            print(f"step {run.step}: {told}", flush=True)
        run.seconds = before + time.perf_counter() - began
        if run.step % LOOK_EVERY == 0 and context.late:
            break
    save_state(run, folder)
    return run


def passed(run: Training, target: float) -> bool:
    """Whether the last exam was."""
    exams = [entry["accuracy"] for entry in run.log if "accuracy" in entry]
    return bool(exams) and exams[-1] >= target


def reinforce(context: Context, lab: Lab) -> Training:
    """Train the call's arm with its seed for ``steps``, or until the deadline."""
    o, folder = context.options, lab.state / lab.unit
    load_weights(lab.fleet, lab.state / FIRST)
    learner = Learner(lab.fleet, o.group, -(-lab.rows // o.chunk), o.max_tokens)
    learner.begin([Run(o.arm, o.seed, o.rate)])
    run = lab.begun(Training(lab.fleet, [learner.optimizer]), lab.unit)
    sampler, before, began = lab.sampler(lab.pool, lab.validation), run.seconds, time.perf_counter()
    while run.step < o.steps and not context.late:
        if run.step % o.exam_every == 0:
            _look(run, lab, sampler)
        entry = arm_step(learner, sampler, lab, draw(lab.pool, o.questions, o.seed, run.step), run.step)
        run.step += 1
        run.log.append({"step": run.step, **entry})
        run.seconds = before + time.perf_counter() - began
        if run.step % SAVE_EVERY == 0 and run.step < o.steps:
            save_state(run, folder)
    if run.step == o.steps and "loss" in run.log[-1]:
        _look(run, lab, sampler)
    save_state(run, folder)
    return run


def arm_step(
    learner: Learner, sampler: Sampler, lab: Lab, problems: Sequence[Problem], step: int
) -> dict[str, float]:
    """Ask, sample, judge, update; what is logged. Arms of a seed see the same responses at step 0."""
    rows = [problem for problem in problems for _ in range(learner.group)]
    ids, length = words.asked(lab.tokenizer, rows, lab.fleet.config.pad_token_id)
    device, seed = lab.fleet.device, learner.runs[0].seed
    responses = sampler(ids[None].to(device), length[None].to(device), seed=1_000_003 * (seed + 1) + step)
    correct = torch.from_numpy(gsm.right(words.answers(lab.tokenizer, responses), rows))
    return {name: value for name, (value,) in learner.learn(responses, correct[None]).items()}


def _look(run: Training, lab: Lab, sampler: Sampler) -> None:
    """A greedy exam on validation problems, logged."""
    found = words.examine(sampler, lab.tokenizer, lab.validation, greedy=True)
    kept = {f"greedy/{name}": found[name] for name in ("accuracy", "length", "entropy")}
    run.log.append({"step": run.step, **kept})
    told = f"greedy {found['accuracy']:.1%} right, {found['length']:.1f} tokens"
    print(f"step {run.step}: {told}", flush=True)
