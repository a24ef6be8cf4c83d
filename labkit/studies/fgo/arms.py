"""The study's arms: what each makes of the same measured groups, from the formula that its source prints.

ARMS          every arm by name
FAMILIES      family -> the arm on which its learning rate is chosen
judge         advantages of every run
loss_weights  what a token of each response weighs in the loss
control       the adaptive entropy bonus

Rewards of groups (Q, G): ``correct`` bool or 0 and 1, ``length`` in tokens, at least 1. They compare the
responses to one question only, so +1 and -1 for right and wrong are as good as a source's 1 and 0.

    soft_overlong    DAPO, arXiv 2503.14476, equation 13
    linear_penalty   prime-rl, pull request 2901
    shorter_better   ShorterBetter, arXiv 2504.21370, equations 1 and 2
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from labkit.fgo.advantages import grpo_advantages, objective_advantages
from labkit.fgo.objective import Objective

Batch = Mapping[str, Tensor]  # correct, length and the three entropies, (Q, G) or (R, Q, G)
ENTROPY_STEP, ENTROPY_MOST = 0.005, 1.0  # of the bonus: Skywork-OR1's step; TRL's bound


@dataclass(frozen=True)
class Arm:
    """One arm.

    family    arms of one family differ in strength alone and share a learning rate
    method    which of ``_JUDGES`` gives the advantages, with ``settings``
    loss      see ``loss_weights``
    target    entropy per token (nats) below which a bonus is paid for it; None: no bonus
    """

    family: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "token"
    target: float | None = None


def _fgo(**settings: Any) -> Arm:
    scaled, beta = settings.get("scale") == "std", settings.setdefault("beta", 1.0)
    family = "mean entropy" if "entropy" in settings else "FGO, std" if scaled else "FGO"
    family = "w/o entropy" if beta == 0 else "w/o length" if settings["alpha"] == 0 else family
    return Arm(family, "fgo", settings)


# GRPO is TRL's (every token the same), as FGOTrainer's; 1/|o| is DeepSeekMath's own (arXiv 2402.03300,
# equation 3): every response the same. Strengths: the published one and, where a length must be scaled to
# this model's answers, a quarter and four times of it. ShorterBetter's 0.001 a token, of answers of some
# 5,000 tokens, is 0.08 here (60 tokens). The bonus aims at the first model's entropy and at twice that.
ARMS: dict[str, Arm] = {
    "GRPO": Arm("GRPO", "grpo"),
    "GRPO, 1/|o|": Arm("GRPO", "grpo", loss="response"),
    "Dr. GRPO": Arm("Dr. GRPO", "grpo", {"scale": "none"}, loss="constant"),
    "DAPO, overlong 0.2": Arm("DAPO", "dapo", {"buffer": 0.2}, loss="kept"),
    "DAPO, overlong 0.8": Arm("DAPO", "dapo", {"buffer": 0.8}, loss="kept"),
    **{f"linear penalty {c:g}": Arm("linear penalty", "linear", {"coef": c}) for c in (0.06, 0.25, 1.0)},
    **{f"ShorterBetter {b:g}": Arm("ShorterBetter", "shorter", {"beta": b}) for b in (0.02, 0.08, 0.32)},
    **{f"entropy bonus {t:g}": Arm("entropy bonus", "grpo", target=t) for t in (0.09, 0.18)},
    "FGO": _fgo(alpha=0.01),
    **{f"FGO, alpha {alpha:g}": _fgo(alpha=alpha) for alpha in (0.1, 0.5, 1.0)},
    "FGO, std": _fgo(alpha=0.01, scale="std"),
    "FGO, alpha 1, std": _fgo(alpha=1.0, scale="std"),
    "w/o length (alpha 0)": _fgo(alpha=0.0),
    "w/o entropy (beta 0)": _fgo(alpha=0.01, beta=0.0),
    **{f"w/o entropy, alpha {alpha:g}": _fgo(alpha=alpha, beta=0.0) for alpha in (0.5, 1.0, 2.0)},
    "mean entropy": _fgo(alpha=0.01, entropy="full_mean"),
}
FAMILIES = {
    "GRPO": "GRPO", "Dr. GRPO": "Dr. GRPO", "DAPO": "DAPO, overlong 0.2",
    "linear penalty": "linear penalty 0.25", "ShorterBetter": "ShorterBetter 0.08",
    "entropy bonus": "entropy bonus 0.09", "FGO": "FGO", "FGO, std": "FGO, std",
    "w/o entropy": "w/o entropy, alpha 1", "w/o length": "w/o length (alpha 0)",
    "mean entropy": "mean entropy",
}  # fmt: skip


def soft_overlong(length: Tensor, limit: float, buffer: float) -> Tensor:
    """DAPO's punishment: 0 up to ``limit - buffer`` tokens, then linearly to -1 at ``limit``."""
    return ((limit - buffer - length) / buffer).clamp(-1, 0)


def linear_penalty(correct: Tensor, length: Tensor, coef: float) -> Tensor:
    """prime-rl's: correct - coef * share of the group that is right * length / the group's longest."""
    right = correct.double()
    return right - coef * right.mean(1, keepdim=True) * length / length.amax(1, keepdim=True)


def shorter_better(correct: Tensor, length: Tensor, beta: float, alpha: float = 2.0) -> Tensor:
    """ShorterBetter's: alpha * correct - beta * |length - the group's optimal length|.

    Optimal is the shortest right response; the mean of all where none is right.
    """
    right, length = correct.bool(), length.double()
    shortest = length.masked_fill(~right, torch.inf).amin(1, keepdim=True)
    optimal = torch.where(right.any(1, keepdim=True), shortest, length.mean(1, keepdim=True))
    return alpha * right - beta * (length - optimal).abs()


def judge(batch: Batch, arms: Sequence[Arm], limit: int) -> Tensor:
    """Advantages (R, Q, G) of a batch of measured responses, run by run.

    batch  (R, Q, G) each; limit: the most tokens that a response may have
    """
    runs = ({name: value[run] for name, value in batch.items()} for run in range(len(arms)))
    return torch.stack(
        [_JUDGES[a.method](own, limit, **a.settings) for a, own in zip(arms, runs, strict=True)]
    )


def _judge_grpo(batch: Batch, limit: int, scale: str = "std") -> Tensor:
    return grpo_advantages(2.0 * batch["correct"] - 1.0, scale=scale)


def _judge_dapo(batch: Batch, limit: int, buffer: float) -> Tensor:
    """Groups all right or all wrong are left out, as dynamic sampling does; others do not replace them:
    every arm learns from as many responses as were sampled for it."""
    right = batch["correct"].double()
    reward = 2 * right - 1 + soft_overlong(batch["length"], limit, buffer * limit)
    share = right.mean(1, keepdim=True)
    return grpo_advantages(reward) * ((share > 0) & (share < 1))


def _judge_linear(batch: Batch, limit: int, coef: float) -> Tensor:
    return grpo_advantages(linear_penalty(batch["correct"], batch["length"], coef), scale="none")


def _judge_shorter(batch: Batch, limit: int, beta: float) -> Tensor:
    return grpo_advantages(shorter_better(batch["correct"], batch["length"], beta))


def _judge_fgo(batch: Batch, limit: int, **settings: Any) -> Tensor:
    objective = Objective(**settings)
    return objective_advantages(objective, batch["correct"], batch["length"], batch[objective.entropy])


_JUDGES: dict[str, Callable[..., Tensor]] = {
    "grpo": _judge_grpo, "dapo": _judge_dapo, "linear": _judge_linear, "shorter": _judge_shorter,
    "fgo": _judge_fgo,
}  # fmt: skip


def loss_weights(loss: str, length: Tensor, advantages: Tensor, limit: int) -> Tensor:
    """What each token of a response weighs in the loss: (Q, G) of one run's (Q, G).

    token     1 / tokens of the batch (TRL's "dapo" loss)
    kept      the same, of the groups that teach (DAPO, equation 8, after its sampling)
    response  1 / (responses * its own tokens) (GRPO, DeepSeekMath)
    constant  1 / (responses * limit) (Dr. GRPO, arXiv 2503.20783, with the constant of its code)
    """
    tokens = length.double()
    if loss == "response":
        return 1 / (tokens.numel() * tokens)
    if loss == "constant":
        return torch.full_like(tokens, 1 / (tokens.numel() * limit))
    counts = advantages.ne(0).any(1, keepdim=True) if loss == "kept" else torch.ones_like(tokens)
    return counts / (tokens * counts).sum().clamp(min=1) * torch.ones_like(tokens)


def control(coefficient: Tensor, entropy: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Skywork-OR1's adaptive entropy bonus (arXiv 2505.22312, section 3.2.3), (R,) each.

    coefficient  as it stands; entropy: nats per token of the sampled batch; target: NaN for no bonus

    Returns (the bonus of this step: the coefficient where entropy is not above target, else 0; the
    coefficient afterwards: a step up below the target, else a step down, within [0, 1]).
    """
    bonus = torch.where(entropy <= target, coefficient, 0)
    step = ENTROPY_STEP * (2 * (entropy < target).double() - 1)
    return bonus, (coefficient + step).clamp(0, ENTROPY_MOST)
