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
    wide = torch.promote_types(logits.dtype, torch.float32)
    wide_logits = logits.to(wide)
    # A logit over a small temperature may overflow; what lies below the largest may only vanish.
    below = wide_logits - wide_logits.detach().amax(-1, keepdim=True)
    logp = torch.log_softmax(below / temperature, -1)
    p = logp.exp()
    best = logits.argmax(-1)
    confidence = p.gather(-1, best[..., None]).squeeze(-1)
    logprob = logp.gather(-1, (best if tokens is None else tokens)[..., None]).squeeze(-1)
    # p log p = 0 at p = 0, where log p may be -inf.
    entropy = -(p * logp.masked_fill(p == 0, 0)).sum(-1)
    return TokenStats(best, confidence, logprob, entropy)
