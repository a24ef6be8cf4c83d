"""The numbers of sampled responses, one definition each, for the trainer, the lab and the study.

response_entropy    the three readings of "the entropy of a response"
entropy_per_token   over all tokens of several responses
act                 accuracy per 100 tokens, the paper's measure of a short and right chain of thought
"""

from typing import Any

import torch
from torch import Tensor


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
