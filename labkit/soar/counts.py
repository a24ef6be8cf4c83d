"""How many tokens a beam commits at once, by rules that users compare SOAR with.

Each takes what the model says at W positions of K beams of A prompts, and returns int64 (A, K): so many of
the most confident are committed; 0 or 1 means one. ``confidence`` is fp32 (A, K, W), -inf where no mask is.
"""

import torch
from torch import Tensor

from labkit.soar.prediction import NEVER

EARLY, LATE = 0.33, 0.67  # Prophet's thirds of a decode


def by_factor(confidence: Tensor, factor: float) -> Tensor:
    """Fast-dLLM's factor rule: the largest n with (n + 1) (1 - c) < ``factor``, c the n-th confidence.

    arXiv 2505.22618, section 3.3: under it the product of the marginals picks what the joint distribution
    would (theorem 1). The left side grows with n, so counting those that hold finds the largest.
    """
    ranked = confidence.sort(-1, descending=True).values.double()
    n = torch.arange(1, ranked.shape[-1] + 1, device=ranked.device)
    return ((n + 1) * (1 - ranked) < factor).sum(-1)


def by_entropy(
    confidence: Tensor,
    entropy: Tensor,  # fp32 (A, K, W) nats
    gamma: float,
) -> Tensor:
    """EB-Sampler: the largest set U of the most confident with sum H - max H <= ``gamma`` over U.

    Ben-Hamu et al., arXiv 2505.24857, section 4: a bound on the mutual information of what is committed
    together; the confidence is their error proxy. The left side grows with U.
    """
    _, order = torch.sort(confidence, dim=-1, descending=True, stable=True)
    ranked = entropy.double().gather(-1, order)
    held = ranked.cumsum(-1) - ranked.cummax(-1).values <= gamma
    return (held & (confidence.gather(-1, order) > NEVER)).sum(-1)


def ready(
    confidence: Tensor,
    streak: Tensor,  # fp32 (A, K, W), see Stability
    history: float,
    threshold: float,
) -> Tensor:
    """KLASS: bool (A, K, W), the masks that are stable for ``history`` steps and above the threshold.

    Kim et al., arXiv 2511.05664, algorithm 1: all of them are committed; if there is none, the most
    confident mask is.
    """
    return (streak >= history) & (confidence > threshold)


def by_gap(
    confidence: Tensor,
    gap: Tensor,  # fp32 (A, K, W) the largest logit minus the second
    progress: Tensor,  # fp64 (A, K) in (0, 1]: share of the forward calls of a decode one by one
    threshold: float,
) -> Tensor:
    """Prophet: everything once the mean gap of the masks reaches a threshold that falls, else nothing.

    Li et al., arXiv 2508.19982, section 4, with the thresholds of the authors' code, 7.5, 5 and 2.5 in the
    three thirds of a decode: here ``threshold`` and 2/3 and 1/3 of it. Theirs looks at an answer's place
    that is known beforehand and then fills the sequence; here both are the beam's block.
    """
    masked = confidence > NEVER
    masks = masked.sum(-1)
    mean = torch.where(masked, gap.double(), 0).sum(-1) / masks.clamp(min=1)
    share = 1 - ((progress >= EARLY).double() + (progress >= LATE).double()) / 3
    return torch.where(mean >= threshold * share, masks, 0)
