"""Runs of the FGO study at once: each is a copy of one model, a step moves them all.

Run          an arm with a seed and a learning rate
Plan         how long all train and are examined
CopiesAdamW  a learning rate for each copy
Learner      the copies with their optimiser: what a step makes of sampled responses
Lockstep     a Learner of verbose sums with its sampler and exam
policy_step  one clipped policy-gradient step of every copy; update: its last part
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from labkit import checks
from labkit.fgo.advantages import FLAT
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import LONGEST_PROMPT
from labkit.fgo.lab.sampler import Responses, Sampler, decode, encode
from labkit.fgo.measures import act, entropy_per_token
from labkit.fgo.tasks import verbose_sums
from labkit.studies.fgo.arms import ARMS, control, judge, loss_weights
from labkit.studies.fgo.exam import Exam, grade


class Run(NamedTuple):
    """One training run."""

    arm: str
    seed: int  # all arms of a seed are asked the same questions
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """How long all train and are examined. ValueError names a number that is not allowed."""

    steps: int = 100  # of AdamW, constant rate, no weight decay; gradients clipped to norm 1 (as TRL)
    questions: int = 32  # a step, each sampled ``group`` times
    group: int = 8
    exam_every: int = 25  # steps between exams
    exam_questions: int = 512  # held-out questions of an exam, one draw each, and once greedily
    final_exams: int = 4  # the last exam asks so many times as many
    chunks: int = 3  # in which a step's responses are computed

    def __post_init__(self):
        for name, value in vars(self).items():
            checks.integer(name, value, 2 if name == "group" else 1)


class CopiesAdamW(torch.optim.AdamW):
    """AdamW without weight decay over stacked weights (R, ...), each copy with its own learning rate."""

    def __init__(self, weights: Iterable[Tensor], rates: Tensor):
        weights = list(weights)
        fused = weights[0].device.type == "cuda"
        super().__init__(weights, rates.max().item(), weight_decay=0.0, fused=fused)
        self.share = rates / rates.max()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Adam's step is proportional to the rate: a smaller rate is part of the way."""
        weights = self.param_groups[0]["params"]
        before = [] if (self.share == 1).all() else [weight.clone() for weight in weights]
        super().step(closure)
        for weight, old in zip(weights, before, strict=False):
            weight.copy_(old.lerp(weight, _along(self.share, weight)))


class Learner:
    """The runs of a fleet, one a copy, with their optimiser.

    group   responses to a question; chunks: see ``policy_step``
    limit   the most tokens that a response may have
    """

    def __init__(self, fleet: Fleet, group: int, chunks: int, limit: int):
        self.fleet, self.group, self.chunks, self.limit = fleet, group, chunks, limit

    def begin(self, runs: Sequence[Run]) -> None:
        """The runs that follow are these, from the weights as they stand."""
        if len(runs) != self.fleet.copies:
            checks.fail("runs", len(runs), f"{self.fleet.copies}, one a copy")
        self.runs, self.arms = list(runs), [ARMS[run.arm] for run in runs]
        rates = torch.tensor([run.learning_rate for run in runs], device=self.fleet.device)
        self.optimizer = CopiesAdamW(self.fleet.weights.values(), rates)
        targets = [float("nan") if arm.target is None else arm.target for arm in self.arms]
        self.target = torch.tensor(targets, dtype=torch.double)
        self.coefficient = torch.zeros_like(self.target)

    def learn(self, responses: Responses, correct: Tensor) -> dict[str, list[float]]:
        """Judge responses that ``correct``, bool (R, B), says are right, update; what is logged, by run."""
        batch = _measure(responses, correct, self.group)
        advantages = judge(batch, self.arms, self.limit)
        numbers = _numbers(batch, advantages)
        bonus, self.coefficient = control(self.coefficient, numbers["entropy"], self.target)
        pull = torch.stack([
            own * loss_weights(arm.loss, tokens, own, self.limit)
            for arm, tokens, own in zip(self.arms, batch["length"], advantages, strict=True)
        ])  # fmt: skip
        width = int(responses.mask.any(1).any(0).nonzero().max()) + 1
        loss, norm = policy_step(
            self.fleet, self.optimizer, responses.ids[..., :width], responses.mask[..., :width],
            pull.flatten(1).to(self.fleet.device, torch.float32), chunks=self.chunks,
            bonus=bonus.to(self.fleet.device, torch.float32) if bonus.any() else None,
        )  # fmt: skip
        logged = {"loss": loss, "grad_norm": norm, "entropy_coef": bonus, **numbers}
        return {name: value.tolist() for name, value in logged.items()}


class Lockstep(Learner):
    """``copies`` runs on verbose sums with their sampler and exam: one step of every run at once.

    The buffers and graphs are kept from one ``begin`` to the next.
    """

    def __init__(
        self, model: Qwen2ForCausalLM, task: Mapping[str, Any], max_tokens: int, plan: Plan, copies: int,
        device: str,
    ):  # fmt: skip
        super().__init__(Fleet(model, copies, device), plan.group, plan.chunks, max_tokens)
        self.model, self.task, self.plan, self.device = model, task, plan, device
        self.sampler = Sampler(self.fleet, plan.questions * plan.group, LONGEST_PROMPT, max_tokens)
        self.exam = Exam(self.fleet, plan.exam_questions, LONGEST_PROMPT, max_tokens)

    def begin(self, runs: Sequence[Run]) -> None:
        """Set every copy back to the model; the runs that follow are these, one a copy."""
        super().begin(runs)
        self.fleet.read(self.model)

    def step(self, number: int) -> dict[str, list[float]]:
        """Ask, sample, judge, update; what is logged, a value per run."""
        plan, seeds = self.plan, [run.seed for run in self.runs]
        asked = {
            seed: verbose_sums(plan.questions, seed=1_000_003 * (seed + 1) + number, **self.task)
            for seed in set(seeds)
        }
        prompts = {s: encode([row["prompt"] for row in rows], LONGEST_PROMPT) for s, rows in asked.items()}
        ids, length = (
            torch.stack(part).repeat_interleave(plan.group, 1).to(self.device)
            for part in zip(*(prompts[seed] for seed in seeds), strict=True)
        )
        responses = self.sampler(ids, length)
        answers = {
            s: [row["answer"] for row in rows for _ in range(plan.group)] for s, rows in asked.items()
        }
        correct = grade(decode(responses), [answers[seed] for seed in seeds])
        return self.learn(responses, torch.from_numpy(correct))


def policy_step(
    fleet: Fleet,
    optimizer: torch.optim.Optimizer,
    ids: Tensor,  # (R, B, T)
    mask: Tensor,  # (R, B, T)
    pull: Tensor,  # (R, B)
    *,
    bonus: Tensor | None = None,  # (R,)
    chunks: int = 1,
    max_grad_norm: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One step on one freshly sampled batch, without a KL term.

    Per copy, loss = -sum(pull * ratio over response tokens) - bonus * mean entropy of a token; the
    ratio to the sampling policy is 1 with gradient (TRL detaches the log-probability, too), so clipping
    never binds.

    Args:
        ids: Prompt and response, padded on the right.
        mask: bool, True on the response's tokens.
        pull: Advantage of each response times what each of its tokens weighs, ``arms.loss_weights``.
        bonus: Coefficient of the entropy bonus; None: none at all.
        chunks: The rows go through in so many parts, sorted by length: less memory, less padding.

    Returns:
        (loss, gradient norm before clipping), (R,) each.
    """
    tokens = mask.sum((1, 2)).clamp(min=1)
    long = (ids != fleet.config.pad_token_id).sum(2)
    if bonus is None:
        long *= pull != 0  # what teaches nothing comes first, and is not computed
    order = long.argsort(1)[:, min(int((long == 0).sum(1).min()), ids.shape[1] - 1) :]
    loss = torch.zeros(fleet.copies, device=ids.device)
    optimizer.zero_grad(set_to_none=True)
    for rows in order.tensor_split(min(chunks, order.shape[1]), 1):
        part = rows[..., None].expand(-1, -1, ids.shape[2])
        mine, kept = ids.gather(1, part), mask.gather(1, part)
        width = max(int(kept.any(1).any(0).nonzero().max()) + 1, 2) if kept.any() else 2
        mine, kept = mine[..., :width], kept[..., 1:width]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.device.type == "cuda"):
            logits = fleet.logits(mine)[:, :, :-1]
        every = logits.float().log_softmax(-1)
        logp = every.gather(-1, mine[..., 1:, None]).squeeze(-1)
        gain = pull.gather(1, rows)[..., None] * (logp - logp.detach()).exp()
        share = -(gain * kept).sum((1, 2))
        if bonus is not None:
            share = share + bonus * ((every.exp() * every).sum(-1) * kept).sum((1, 2)) / tokens
        share.sum().backward()  # copies share no weight: the gradient of the sum is each one's own
        loss += share.detach()
    return loss, update(fleet, optimizer, max_grad_norm)


def update(fleet: Fleet, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> Tensor:
    """Clip each copy's gradient and step; the norms before, (R,)."""
    grads = [value.grad for value in fleet.weights.values() if value.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    scale = (max_grad_norm / (norm + 1e-6)).clamp(max=1)
    for grad in grads:
        grad *= _along(scale, grad)
    optimizer.step()
    return norm


def _along(factor: Tensor, like: Tensor) -> Tensor:
    """(R,) as a factor of (R, ...)."""
    return factor.view(-1, *(1,) * (like.ndim - 1))


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
