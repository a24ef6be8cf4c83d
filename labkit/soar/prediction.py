"""What a search step is told and what it answers: predictions at positions, and candidates made of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = float("-inf")  # confidence of what is not a candidate
UNMEASURED = torch.empty(0)


def put(rows: Tensor, chosen: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """Rows (..., L) with ``values`` (..., n) at positions ``where`` (..., n), those of bool ``chosen``."""
    length = rows.shape[-1]
    where = torch.where(chosen, where, length)  # an extra column takes the others
    return torch.nn.functional.pad(rows, (0, 1)).scatter(-1, where, values)[..., :length]


@dataclass
class Prediction:
    """What the model predicts where a beam may commit."""

    positions: Tensor  # (A, K, W) int64 positions of the beam's block, again for each further token of them
    tokens: Tensor  # (A, K, W) int64 argmax there, or one of the next
    confidence: Tensor  # (A, K, W) fp32 its probability, -inf where there is no mask to fill
    measure: Tensor = UNMEASURED  # (A, K, W) fp32 what the strategy asks for beside it (scoring.MEASURES)


@dataclass
class Proposal:
    """K candidates of each beam with up to D commits: A prompts, K beams, K candidates, D commits."""

    real: Tensor  # (A, K, K, D) bool: this commit is meant
    positions: Tensor  # (A, K, K, D) int64
    tokens: Tensor  # (A, K, K, D) int64
    confidence: Tensor  # (A, K, K, D) fp32
    accelerated: Tensor  # (A,) bool: some beam commits by threshold or schedule, not in search of one
    removed: Tensor | None = None  # (A, K, K, D) bool: masked again, its confidence is taken back
