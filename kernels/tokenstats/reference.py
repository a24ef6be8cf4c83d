"""The truth in plain torch, on any device, differentiable."""

from typing import NamedTuple

import torch


class TokenStats(NamedTuple):
    """What the softmax of each row says; all of the shape of the logits without their last dimension."""

    argmax: torch.Tensor  # int64, lowest index among ties; the first NaN if there is one
    confidence: torch.Tensor  # probability of argmax
    logprob: torch.Tensor  # log-probability (nats) of `tokens`, or of argmax
    entropy: torch.Tensor  # -sum p log p in nats


def token_stats(
    logits: torch.Tensor, tokens: torch.Tensor | None = None, temperature: float = 1.0
) -> TokenStats:
    """TokenStats of softmax(logits / temperature); float32, or float64 for float64 logits."""
    logp = _log_softmax(logits, temperature)
    p = logp.exp()
    best = logits.argmax(-1)
    confidence = p.gather(-1, best[..., None]).squeeze(-1)
    logprob = logp.gather(-1, (best if tokens is None else tokens)[..., None]).squeeze(-1)
    # p log p = 0 at p = 0, where log p may be -inf.
    entropy = -(p * logp.masked_fill(p == 0, 0)).sum(-1)
    return TokenStats(best, confidence, logprob, entropy)


def _log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # A logit over a small temperature may overflow; what lies below the largest may only vanish.
    return torch.log_softmax((wide - wide.detach().amax(-1, keepdim=True)) / temperature, -1)


def token_stats_backward(
    logits: torch.Tensor, tokens: torch.Tensor | None, temperature: float, grads: list[torch.Tensor]
) -> torch.Tensor:
    """The gradient like ``logits`` (N, V), given those (N,) of confidence, logprob and entropy.

    By x_j / temperature: d log p_i = 1[i = j] - p_j, d entropy = -p_j (log p_j + entropy).
    """
    best, confidence, _, entropy = token_stats(logits, tokens, temperature)
    logp = _log_softmax(logits, temperature)
    p = logp.exp()
    of_best, of_token, of_entropy = (grad.to(p.dtype)[:, None] for grad in grads)
    of_best = of_best * confidence[:, None]
    d = -p * (of_best + of_token + of_entropy * (logp.masked_fill(p == 0, 0) + entropy[:, None]))
    d.scatter_add_(1, best[:, None], of_best)
    d.scatter_add_(1, (best if tokens is None else tokens)[:, None], of_token)
    return (d / temperature).to(logits.dtype)
