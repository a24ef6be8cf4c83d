"""For how many steps a position's distribution has stood still: what KLASS asks for."""

import numpy as np
import torch
from torch import Tensor


class Stability:
    """Streaks of steps of one block in which KL(p_t || p_(t-1)) stayed below ``threshold`` nats.

    Kim et al., arXiv 2511.05664 (KLASS), section 3. One beam a prompt. Holds the log-probabilities of the
    step before, fp32 at every position of the batch's blocks. The authors' code also counts the change
    from one block to the next, for which it keeps the whole sequence's; here each block starts anew.
    """

    def __init__(self, prompts: int, threshold: float):
        self._threshold = threshold
        self._row = np.full(prompts, -1)  # of each prompt in the step before
        self._logp: Tensor | None = None  # (R, W, V) fp32
        self._positions: Tensor  # (R, W) int64
        self._streak: Tensor  # (R, W) fp32

    def __call__(
        self,
        logits: Tensor,  # (R, W, V)
        positions: Tensor,  # (R, W) int64
        prompt: np.ndarray,  # (R,) int64, each once
    ) -> Tensor:
        """fp32 (R, W): the last so many changes of this position in this block were small."""
        logp = logits.float().log_softmax(-1)
        streak = torch.zeros(positions.shape, device=logits.device)
        if self._logp is not None:
            row = torch.from_numpy(self._row[prompt]).to(logits.device)
            before = row.clamp(min=0)
            p = logp.exp()
            kl = torch.where(p > 0, p * (logp - self._logp[before]), 0).sum(-1)
            known = (row >= 0) & (self._positions[before] == positions).all(-1)
            streak = torch.where(known[:, None] & (kl < self._threshold), self._streak[before] + 1, streak)
        self._row[:] = -1
        self._row[prompt] = np.arange(len(prompt))
        self._logp, self._positions, self._streak = logp, positions, streak
        return streak
