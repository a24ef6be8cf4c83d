"""Advantages of FGO and GRPO: small pure functions of (Q, G) tensors, one row per question.

FGO (arXiv 2602.10048) splits the G responses of a question into a correct and a wrong subgroup. With
L tokens, response entropy H and the subgroup's own means, its weights and signed rewards are

    W+ = softmax_correct((mean(L+) / L)^alpha * (mean(H+) / H)^beta)     R = +W+
    W- = softmax_wrong  ((L / mean(L-))^alpha * (mean(H-) / H)^beta)     R = -W-
    A  = R - mean(R over the group)

What follows from it, and is tested: a mixed group has mean(R) = 0, so its k correct responses average
A = +1/k and the other n - k average -1/(n - k); a one-sided group has A = +-(W - 1/n); a subgroup of
one has W = 1. n counts the valid rows: an invalid row is in no subgroup, no mean, and has A = 0.
"""

import torch
from torch import Tensor

from labkit import checks
from labkit.fgo.objective import SCALES, Objective

FLAT = 1e-6  # a group whose advantages all lie below this teaches nothing: they are set to exactly 0
STD_EPS = 1e-4  # TRL's term under the division by the standard deviation


def fgo_advantages(
    correct: Tensor,  # (Q, G)
    length: Tensor,  # (Q, G)
    entropy: Tensor,  # (Q, G)
    *,
    alpha: float = Objective.alpha,
    beta: float = Objective.beta,
    clamp: float = Objective.clamp,
    scale: str = Objective.scale,
    valid: Tensor | None = None,  # (Q, G)
    zero_all_wrong: bool = Objective.zero_all_wrong,
) -> Tensor:
    """FGO's advantages: the weights above, signed and centred over the valid rows of each group.

    Args:
        correct: (Q, G) bool, or numbers: > 0 is correct, <= 0 wrong, NaN unscorable.
        length: (Q, G) tokens of each response, finite and >= 0; 0 (masked as truncated) is invalid.
        entropy: (Q, G) entropy of each response in nats, finite and >= 0 on valid rows.
        alpha: exponent of the length ratio; see ``Objective`` for this and the other settings.
        beta: exponent of the entropy ratio.
        clamp: bound of both ratios.
        scale: "none" or "std".
        valid: (Q, G) bool; False takes a row out, besides unscorable rows and rows of length 0.
        zero_all_wrong: learn nothing from groups without a correct response.

    Returns:
        (Q, G) advantages in entropy's dtype (at least float32), 0 on invalid rows. A group whose
        advantages all lie below 1e-6 gets exactly 0.

    Raises:
        ValueError: an argument is out of its bounds or of another shape; the message names it.
    """
    objective = Objective(alpha=alpha, beta=beta, clamp=clamp, scale=scale, zero_all_wrong=zero_all_wrong)
    return objective_advantages(objective, correct, length, entropy, valid)


def objective_advantages(
    objective: Objective, correct: Tensor, length: Tensor, entropy: Tensor, valid: Tensor | None = None
) -> Tensor:
    """``fgo_advantages`` for an Objective; ``entropy`` is of the kind that ``objective.entropy`` names."""
    right, wrong = subgroups(correct, length, valid)
    reward = fgo_rewards(objective, right, wrong, length, entropy)
    advantage = _centre(reward, right | wrong, objective.scale)
    if objective.zero_all_wrong:
        advantage = advantage * right.any(1, keepdim=True)
    return advantage


def fgo_rewards(
    objective: Objective, right: Tensor, wrong: Tensor, length: Tensor, entropy: Tensor
) -> Tensor:
    """FGO's signed weights R (Q, G): they sum to +1 over the correct and to -1 over the wrong rows."""
    alpha, beta, clamp = float(objective.alpha), float(objective.beta), float(objective.clamp)
    # 1) the entropies of the two subgroups as floats, without what stands on invalid rows
    kept = right | wrong
    _table("entropy", entropy, kept.shape)
    dtype = torch.promote_types(entropy.dtype, torch.float32)
    entropy = torch.where(kept, entropy.to(dtype), 0)
    if not (entropy.isfinite() & (entropy >= 0)).all():
        checks.fail("entropy", _worst(entropy), "finite and >= 0 on every valid row")
    tokens = length.to(dtype)
    reward = torch.zeros_like(entropy)
    for rows, sign in ((right, 1), (wrong, -1)):
        # 2) the subgroup's own means, (Q, 1)
        count = rows.sum(1, keepdim=True).clamp(min=1)
        mean_tokens = torch.where(rows, tokens, 0).sum(1, keepdim=True) / count
        mean_entropy = torch.where(rows, entropy, 0).sum(1, keepdim=True) / count
        # 3) the weight: short and certain where right, long and certain where wrong
        length_ratio = (
            _ratio(mean_tokens, tokens, clamp) if sign > 0 else _ratio(tokens, mean_tokens, clamp)
        )
        # The cap keeps clamp ** (alpha + beta) below float32's largest number; softmax is one-hot there.
        product = (length_ratio**alpha * _ratio(mean_entropy, entropy, clamp) ** beta).clamp(max=1e30)
        # A finite fill: an empty subgroup gives uniform weights, then zeros, where -inf would give NaN.
        weight = product.masked_fill(~rows, torch.finfo(dtype).min).softmax(1)
        reward += sign * torch.where(rows, weight, 0)
    return reward


def grpo_advantages(reward: Tensor, *, scale: str = "std", valid: Tensor | None = None) -> Tensor:
    """GRPO's advantages: reward - mean over the valid rows of the group (DeepSeekMath, section 4.1).

    Args:
        reward: (Q, G) numbers or bool; a NaN row is unscorable: it has no say in the mean and A = 0.
        scale: "std": divide by the standard deviation (n - 1) + 1e-4, as TRL does; "none": leave the
            difference (Dr. GRPO).
        valid: (Q, G) bool; False takes a row out.

    Returns:
        (Q, G) advantages in reward's dtype (at least float32), 0 on invalid rows. A group whose rewards
        differ by no more than 1e-6 gets exactly 0, never noise / tiny std.

    Raises:
        ValueError: an argument is out of its bounds or of another shape; the message names it.
    """
    checks.choice("scale", scale, SCALES)
    _table("reward", reward)
    reward = reward.to(torch.promote_types(reward.dtype, torch.float32))
    if reward.isinf().any():
        checks.fail("reward", _worst(reward), "finite, or NaN where unscorable")
    return _centre(reward, _valid(~reward.isnan(), valid), scale)


def subgroups(correct: Tensor, length: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(right, wrong), bool (Q, G) each: the rows of the two subgroups. An invalid row is in neither."""
    _table("correct", correct)
    _table("length", length, correct.shape)
    if not (length.isfinite() & (length >= 0)).all():
        checks.fail("length", _worst(length), "finite and >= 0")
    kept = _valid((length > 0) & ~correct.isnan(), valid)
    return kept & (correct > 0), kept & (correct <= 0)


def _ratio(numerator: Tensor, denominator: Tensor, clamp: float) -> Tensor:
    return (numerator / denominator).nan_to_num(nan=1.0).clamp(1 / clamp, clamp)


def _centre(reward: Tensor, kept: Tensor, scale: str) -> Tensor:
    count = kept.sum(1, keepdim=True)
    mean = torch.where(kept, reward, 0).sum(1, keepdim=True) / count.clamp(min=1)
    advantage = torch.where(kept, reward - mean, 0)
    teaches = advantage.abs().amax(1, keepdim=True) > FLAT
    if scale == "std":
        variance = advantage.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
        advantage = advantage / (variance.sqrt() + STD_EPS)
    return torch.where(teaches, advantage, 0)


def _table(name: str, value: Tensor, shape: torch.Size | None = None) -> None:
    allowed = "a (Q, G) tensor with G >= 1" if shape is None else f"a tensor of shape {tuple(shape)}"
    if not isinstance(value, Tensor):
        checks.fail(name, type(value).__name__, allowed)
    if value.is_meta or value.is_complex() or value.layout != torch.strided:
        given = f"{value.dtype}, {value.layout}, on {value.device}"
        checks.fail(name, given, f"{allowed}, real, dense and with values")
    if (value.ndim != 2 or value.shape[1] == 0) if shape is None else value.shape != shape:
        checks.fail(name, tuple(value.shape), allowed)


def _valid(kept: Tensor, valid: Tensor | None) -> Tensor:
    """``kept``, without the rows that ``valid`` takes out."""
    if valid is None:
        return kept
    _table("valid", valid, kept.shape)
    if valid.dtype != torch.bool:
        checks.fail("valid", str(valid.dtype), "bool")
    return kept & valid


def _worst(value: Tensor) -> float:
    """The entry an error message should show: NaN or infinity if there is one, else the smallest."""
    bad = value[~value.isfinite()]
    return (bad[0] if len(bad) else value.min()).item()
