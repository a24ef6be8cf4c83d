"""How ``studies fgo-diffusion`` trains a masked diffusion LM by diffu-GRPO (d1, arXiv 2504.12216).

ARMS         what makes advantages of a group: diffu-GRPO's reward, a penalty, FGO
Decoding     how responses are sampled; held_out: the questions of exams
roll_out     sampled decodes and what is measured of them
one_step     d1's log-probabilities: the whole response masked, one forward
inner_step   one clipped policy-gradient step on them
reinforce    a whole run
examine      accuracy, forward calls and length, sampled, deterministic, and all in one call

From d1: advantages without division by the standard deviation, prompt tokens masked with p = 0.15, anew
for each inner step and alike for the old and the new policy, a clip of 0.5 (all three its code's), a mean
over a response's own tokens (its equation; its code takes one over all tokens of a batch). Other than d1:
no KL term, 4 inner steps for 12, all weights, not LoRA; a decode that commits whatever it is sure of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from labkit.fgo.measures import response_entropy
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.search import decode
from labkit.soar.tasks.sums import LENGTH, QUESTION, SumsLM, encode, right, sums
from labkit.studies.fgo.arms import Arm, judge
from labkit.traces import BeamTrace

SLOTS = LENGTH - QUESTION  # of a response
BASE = "diffu-GRPO"
ARMS = {
    BASE: Arm(BASE, "grpo", {"scale": "none"}),
    "linear penalty, calls": Arm("linear penalty", "linear", {"coef": 0.25}),
    "FGO, calls": Arm("FGO", "fgo", {"alpha": 1.0}),
    "FGO, tokens": Arm("FGO", "fgo", {"alpha": 1.0}),
}
COST = {"FGO, tokens": "tokens"}  # what an arm calls length; the others: forward calls
EXAM_SEED, PARTS = 11, ("validation", "test")
HOW: dict[str, dict[str, Any]] = {  # an exam: how its decode differs from that of training
    "sampled": {}, "greedy": {"temperature": 0.0}, "one call": {"temperature": 0.0, "threshold": 0.0},
}  # fmt: skip


@dataclass(frozen=True)
class Decoding:
    """Adaptive decoding: all tokens above ``threshold`` at once, at most ``max_parallel``, else one."""

    temperature: float
    threshold: float
    max_parallel: int

    def __call__(self, model: MaskedLM, texts: Sequence[str], seed: int) -> BeamTrace:
        """A decode for each text's question."""
        return decode(
            model, encode(texts)[:, :QUESTION], "adaptive", gen_length=SLOTS, record=False, seed=seed,
            **vars(self),
        )  # fmt: skip


def held_out(part: str, count: int, terms: tuple[int, int]) -> list[str]:
    """At most ``count`` different sums that no training asks for; validation and test share none."""
    found = list(dict.fromkeys(sums(5 * count, seed=EXAM_SEED, test=True, terms=terms)))
    return found[PARTS.index(part) :: 2][:count]


@dataclass(frozen=True)
class Rollouts:
    """B = Q * G sampled responses, those to one question side by side.

    tokens   long (B, LENGTH): questions and responses
    counted  bool (B, SLOTS): a response's own tokens, up to its first full stop and with it
    measured {"correct", "calls", "tokens": (Q, G)} on the host; tokens without the full stop
    """

    tokens: Tensor
    counted: Tensor
    measured: dict[str, Tensor]


def roll_out(model: MaskedLM, texts: Sequence[str], group: int, decoding: Decoding, seed: int) -> Rollouts:
    """``group`` sampled responses to the question of each text."""
    asked = [text for text in texts for _ in range(group)]
    trace = decoding(model, asked, seed)
    tokens = torch.from_numpy(trace.sequences).long()
    length = answer_length(tokens)
    found = {
        "correct": torch.from_numpy(right(trace.sequences, asked)),
        "calls": torch.from_numpy(trace.calls),
        "tokens": length.clamp(min=1),  # FGO takes a length of 0 for a response that was cut
    }
    device = next(model.parameters()).device
    counted = torch.arange(SLOTS) <= length[:, None]
    measured = {name: value.view(-1, group) for name, value in found.items()}
    return Rollouts(tokens.to(device), counted.to(device), measured)


def answer_length(tokens: Tensor) -> Tensor:
    """Characters of a response before the full stops that fill it up: long (B,) of (B, LENGTH)."""
    ends = tokens[:, QUESTION:] == SumsLM.eos_id
    return torch.where(ends.any(1), ends.int().argmax(1), SLOTS)


def prompt_mask(rows: int, rate: float, source: torch.Generator) -> Tensor:
    """Bool (rows, QUESTION) on the host, so that every device masks alike: which tokens of a prompt."""
    return torch.rand(rows, QUESTION, generator=source) < rate


def one_step(model: MaskedLM, tokens: Tensor, hidden: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token and entropy of its distribution, (B, SLOTS) each.

    One forward of the policy at ``temperature``, with the response masked and of the prompt what
    ``hidden``, bool (B, QUESTION), says.
    """
    inputs = torch.full_like(tokens, model.mask_id)
    inputs[:, :QUESTION] = tokens[:, :QUESTION].masked_fill(hidden, model.mask_id)
    every = (model(inputs)[:, QUESTION:].float() / temperature).log_softmax(-1)
    logprob = every.gather(-1, tokens[:, QUESTION:, None]).squeeze(-1)
    return logprob, -(every.exp() * every).sum(-1)


def policy_loss(logprob: Tensor, old: Tensor, advantages: Tensor, counted: Tensor, clip: float) -> Tensor:
    """PPO's clipped loss: mean over responses (B,) of the mean over a response's own tokens (B, SLOTS)."""
    ratio = (logprob - old).exp()
    pull = advantages[:, None]
    gain = torch.minimum(ratio * pull, ratio.clamp(1 - clip, 1 + clip) * pull)
    return -((gain * counted).sum(1) / counted.sum(1)).mean()


def inner_step(
    model: MaskedLM,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    hidden: Tensor,
    old: Tensor,
    advantages: Tensor,
    options: Any,
) -> Tensor:
    """One step of the optimiser on one mask of the prompts; its loss."""
    logprob, _ = one_step(model, rollouts.tokens, hidden, options.temperature)
    loss = policy_loss(logprob, old, advantages, rollouts.counted, options.clip)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def advantages_of(arm: str, rollouts: Rollouts, logprob: Tensor, entropy: Tensor) -> Tensor:
    """(B,) for the responses of ``rollouts``: logprob and entropy are ``one_step``'s with the prompt shown.

    FGO's entropy is -sum p log p of a response's own one-step probabilities, as in its authors' code: whole
    distributions depend on the prompt alone here, so that their entropy is the same for all of a group, but
    for where a response ends.
    """
    found = response_entropy(logprob, entropy, rollouts.counted)["sampled_sum"]
    own = rollouts.measured
    batch = {
        "correct": own["correct"], "length": own[COST.get(arm, "calls")],
        "sampled_sum": found.cpu().view(own["correct"].shape),
    }  # fmt: skip
    batch = {name: value[None] for name, value in batch.items()}
    return judge(batch, [ARMS[arm]], SLOTS).flatten().to(logprob)


def update(
    model: MaskedLM, optimizer: torch.optim.Optimizer, arm: str, rollouts: Rollouts, seed: int, options: Any
) -> dict[str, float]:
    """``iterations`` inner steps on one batch; what is logged."""
    source, device = torch.Generator().manual_seed(seed), rollouts.tokens.device
    count = len(rollouts.tokens)
    masks = [prompt_mask(count, options.mask_rate, source).to(device) for _ in range(options.iterations)]
    shown = torch.zeros_like(masks[0])  # a weight of FGO should not tell what was masked
    with torch.no_grad():
        known, *old = (one_step(model, rollouts.tokens, m, options.temperature) for m in (shown, *masks))
    advantages = advantages_of(arm, rollouts, *known)
    losses = [
        inner_step(model, optimizer, rollouts, hidden, before, advantages, options)
        for hidden, (before, _) in zip(masks, old, strict=True)
    ]
    own = rollouts.measured
    mixed = own["correct"].any(1) & ~own["correct"].all(1)
    return {
        "loss": float(torch.stack(losses).mean()),
        "mixed_groups": float(mixed.double().mean()),
        **{name: float(value.double().mean()) for name, value in own.items()},
    }


def reinforce(
    model: MaskedLM, arm: str, seed: int, rate: float, decoding: Decoding, options: Any
) -> list[dict[str, float]]:
    """Train ``model`` in place; what is logged of each step. All arms of a seed are asked the same."""
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
    log = []
    for step in range(options.steps):
        own = 1_000_003 * (seed + 1) + step
        texts = sums(options.questions, seed=own, terms=tuple(options.terms))
        rollouts = roll_out(model, texts, options.group, decoding, own)
        log.append({"step": step + 1, **update(model, optimizer, arm, rollouts, own, options)})
    return log


def examine(model: MaskedLM, texts: Sequence[str], decoding: Decoding) -> dict[str, dict[str, Any]]:
    """By each of HOW: which answers are right, as 0 and 1, mean forward calls and length."""
    found = {}
    for how, other in HOW.items():
        trace = replace(decoding, **other)(model, texts, EXAM_SEED)
        good = right(trace.sequences, texts)
        length = answer_length(torch.from_numpy(trace.sequences))
        found[how] = {
            "accuracy": float(good.mean()), "calls": float(trace.calls.mean()),
            "length": float(length.double().mean()), "questions": len(texts),
            "right": "".join("01"[one] for one in good.astype(int)),
        }  # fmt: skip
    return found
