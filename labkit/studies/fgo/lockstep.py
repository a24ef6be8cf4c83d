"""All runs of the FGO study at once: each arm and seed is a copy of one model, a step moves them all.

Plan         what is trained and how long
Lockstep     the copies with their optimiser and sampler
policy_step  one clipped policy-gradient step of every copy
judge        the advantages that each arm gives the same kind of batch
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.advantages import FLAT, grpo_advantages, objective_advantages
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import LONGEST_PROMPT
from labkit.fgo.lab.sampler import Responses, Sampler, decode, encode
from labkit.fgo.measures import act, entropy_per_token
from labkit.fgo.objective import Objective
from labkit.fgo.tasks import verbose_sums
from labkit.studies.fgo.exam import grade

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


@dataclass(frozen=True)
class Plan:
    """What is trained and how long. ValueError names a number that is not allowed."""

    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: ARMS)  # see study
    seeds: int = 2  # seed s of every arm is asked the same questions
    steps: int = 600
    questions: int = 32  # a step, each sampled ``group`` times
    group: int = 8
    learning_rate: float = 5e-5  # of AdamW, constant, no weight decay; gradients clipped to norm 1 (as TRL)
    exam_every: int = 25  # steps between exams
    exam_questions: int = 512  # held-out questions of an exam, one draw each
    final_exams: int = 4  # the first and last ask so many times as many, and once greedily
    chunks: int = 4  # in which a step's responses are computed

    def __post_init__(self):
        for name in ("steps", "seeds", "questions", "exam_every", "exam_questions", "final_exams"):
            checks.integer(name, getattr(self, name), 1)
        checks.integer("group", self.group, 2)
        checks.number("learning_rate", self.learning_rate, 0)

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of every copy, arm by arm."""
        return [(arm, seed) for arm in self.arms for seed in range(self.seeds)]


class Lockstep:
    """All copies with their optimiser and sampler: one step of every run at once."""

    def __init__(
        self, model: Qwen2ForCausalLM, task: Mapping[str, Any], max_tokens: int, plan: Plan, device: str
    ):
        self.task, self.plan, self.device = task, plan, device
        self.fleet = Fleet(model, len(plan.runs), device)
        self.optimizer = torch.optim.AdamW(
            self.fleet.weights.values(), plan.learning_rate, weight_decay=0.0, fused=device == "cuda"
        )
        self.sampler = Sampler(self.fleet, plan.questions * plan.group, LONGEST_PROMPT, max_tokens)

    def step(self, number: int) -> dict[str, list[float]]:
        """Ask, sample, judge, update; what is logged, a value per run."""
        plan = self.plan
        draws = [1_000_003 * (seed + 1) + number for seed in range(plan.seeds)]
        asked = [verbose_sums(plan.questions, seed=draw, **self.task) for draw in draws]
        prompts = [encode([row["prompt"] for row in rows], LONGEST_PROMPT) for rows in asked]
        ids, length = (
            torch.stack([part[seed] for _, seed in plan.runs])
            .repeat_interleave(plan.group, 1)
            .to(self.device)
            for part in zip(*prompts, strict=True)
        )
        responses = self.sampler(ids, length)
        answers = [[row["answer"] for row in rows for _ in range(plan.group)] for rows in asked]
        correct = grade(decode(responses), [answers[seed] for _, seed in plan.runs])
        batch = _measure(responses, torch.from_numpy(correct), plan.group)
        advantages = judge(batch, list(plan.arms.values()), plan.seeds)
        width = int((length + responses.length).max())
        loss, norm = policy_step(
            self.fleet, self.optimizer, responses.ids[..., :width], responses.mask[..., :width],
            advantages.flatten(1).to(self.device, torch.float32), chunks=plan.chunks,
        )  # fmt: skip
        numbers = {"loss": loss, "grad_norm": norm, **_numbers(batch, advantages)}
        return {name: value.tolist() for name, value in numbers.items()}


def policy_step(
    fleet: Fleet,
    optimizer: torch.optim.Optimizer,
    ids: torch.Tensor,
    mask: torch.Tensor,
    advantages: torch.Tensor,
    *,
    chunks: int = 1,
    max_grad_norm: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step on one freshly sampled batch: TRL's "dapo" loss with one iteration and no KL term.

    Per copy, loss = -sum(A * ratio over response tokens) / number of response tokens; the ratio to the
    sampling policy is 1 with gradient (TRL detaches the log-probability, too), so clipping never binds.

    ids         (R, B, T) prompt and response, padded on the right
    mask        bool (R, B, T) True on the response's tokens
    advantages  (R, B)
    chunks      the rows go through in so many parts, sorted by length: less memory, less padding

    Returns (loss, gradient norm before clipping), (R,) each.
    """
    tokens = mask.sum((1, 2)).clamp(min=1)
    order = (ids != fleet.config.pad_token_id).sum(2).argsort(1)
    loss = torch.zeros(fleet.copies, device=ids.device)
    optimizer.zero_grad(set_to_none=True)
    for rows in order.tensor_split(chunks, 1):
        part = rows[..., None].expand(-1, -1, ids.shape[2])
        mine, kept = ids.gather(1, part), mask.gather(1, part)
        width = max(int(kept.any(1).any(0).nonzero().max()) + 1, 2) if kept.any() else 2
        mine, kept = mine[..., :width], kept[..., 1:width]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.device.type == "cuda"):
            logits = fleet.logits(mine)[:, :, :-1]
        logp = logits.float().log_softmax(-1).gather(-1, mine[..., 1:, None]).squeeze(-1)
        gain = advantages.gather(1, rows)[..., None] * (logp - logp.detach()).exp()
        share = -(gain * kept).sum((1, 2)) / tokens
        share.sum().backward()  # copies share no weight: the gradient of the sum is each one's own
        loss += share.detach()
    grads = [value.grad for value in fleet.weights.values() if value.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    scale = (max_grad_norm / (norm + 1e-6)).clamp(max=1)
    for grad in grads:
        grad *= scale.view(-1, *(1,) * (grad.ndim - 1))
    optimizer.step()
    return loss, norm


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
