"""The numbers of sampled responses, one definition each, for the trainer, the lab and the study.

response_entropy    the three readings of "the entropy of a response"
entropy_per_token   over all tokens of several responses
act                 accuracy per 100 tokens, the paper's measure of a short and right chain of thought
summarise           all of them of a set of responses
with_intervals      accuracy, length, ACT and entropy of an evaluation, each with its 95 % interval
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from labkit.intervals import ratio_half, t_half, wilson


def response_entropy(logprob: Tensor, entropy: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The entropies of responses in nats, one for each name of ``objective.ENTROPY_KINDS``.

    sampled_sum: -sum p log p over the sampled tokens' own probabilities (the authors' code).
    full_sum: sum of the entropies of the whole distributions. full_mean: full_sum per token.

    Args:
        logprob: (..., T) float, log-probability of every sampled token.
        entropy: (..., T) float, entropy of the distribution it was sampled from.
        mask: (..., T) 1 on the tokens of the response; what stands elsewhere is not read.

    Returns:
        {kind: (...) float}, each >= 0.
    """
    mask = mask.bool()  # where, not *: padding may hold NaN
    # Rounding can put a token of probability 1 a hair below 0.
    sampled = torch.where(mask, -logprob.exp() * logprob, 0).sum(-1).clamp(min=0)
    full = torch.where(mask, entropy, 0).sum(-1).clamp(min=0)
    return {"sampled_sum": sampled, "full_sum": full, "full_mean": full / mask.sum(-1).clamp(min=1)}


def entropy_per_token(full_sum: Any, length: Any, dim: tuple[int, ...] | None = None) -> Any:
    """Nats per token over the responses along ``dim`` (None: all), every token counting the same.

    Args:
        full_sum: array or tensor of "full_sum" entropies in nats.
        length: tokens of the same responses, at least 1 each.
        dim: axes of the responses.
    """
    return full_sum.sum(dim) / length.sum(dim)


def act(accuracy: Any, tokens: Any) -> Any:
    """Accuracy in % per 100 tokens, of an accuracy in [0, 1] and the mean length (> 0, or NaN)."""
    return 100 * accuracy / tokens * 100


def summarise(
    correct: np.ndarray, length: np.ndarray, sampled: np.ndarray, full: np.ndarray
) -> dict[str, float]:
    """Means over (Q, G) responses to Q questions; for every evaluation of the lab.

    correct bool; length in tokens, at least 1; sampled and full: "sampled_sum" and "full_sum" in nats.
    """
    accuracy, tokens = float(correct.mean()), float(length.mean())
    return {
        "accuracy": accuracy,
        "length": tokens,
        "entropy": float(sampled.mean()),
        "entropy_per_token": float(entropy_per_token(full, length)),
        "act": act(accuracy, tokens),
    }


class Interval(NamedTuple):
    """An estimate with the ends of its 95 % interval; NaN where nothing was measured."""

    estimate: float
    low: float
    high: float


def with_intervals(
    correct: np.ndarray, length: np.ndarray, entropy: np.ndarray | None = None
) -> dict[str, Interval]:
    """accuracy, length, act and, where given, response_entropy over Q questions.

    Responses to one question are alike, so the question is the unit: each figure is made of the questions'
    means. Accuracy has Wilson's interval where there is one response each or all questions agree, else
    Student's t as length and entropy; ACT, a ratio of means, has the delta method's, or accuracy's
    ends by the mean length where all questions agree.

    Args:
        correct: float (Q, G), 1 right, 0 wrong, NaN unscorable: such a response takes no part.
        length: (Q, G) tokens, above 0.
        entropy: (Q, G) nats.
    """
    valid = ~np.isnan(correct)
    asked = valid.any(1)
    tables = {"accuracy": correct, "length": length} | (
        {} if entropy is None else {"response_entropy": entropy}
    )
    if not asked.any():
        return dict.fromkeys((*tables, "act"), Interval(*3 * [float("nan")]))
    mean = {  # (questions,) each
        name: np.nanmean(np.where(valid, table, np.nan)[asked].astype(float), 1)
        for name, table in tables.items()
    }
    found = {name: _around(values.mean(), t_half(values)) for name, values in mean.items()}
    found["accuracy"] = found["accuracy"]._replace(high=min(found["accuracy"].high, 1.0))
    right = mean["accuracy"]
    if correct.shape[1] == 1 or np.ptp(right) == 0:
        found["accuracy"] = Interval(float(right.mean()), *wilson(round(right.sum()), len(right)))
    tokens = float(mean["length"].mean())
    if np.ptp(right) == 0:  # the spread of lengths says nothing of an accuracy of 0
        return found | {"act": Interval(*(act(share, tokens) for share in found["accuracy"]))}
    share = act(right.mean(), tokens)
    return found | {"act": _around(share, act(1, 1) * ratio_half(right, mean["length"]))}


def _around(estimate: float, half: float) -> Interval:
    low = max(float(estimate - half), 0.0)  # NaN, of a single question, stays
    return Interval(float(estimate), low, float(estimate + half))
