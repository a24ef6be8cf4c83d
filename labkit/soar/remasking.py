"""Remasking: a step that may also mask again what an earlier one committed."""

import torch
from torch import Tensor

from labkit.soar.prediction import NEVER, Prediction, Proposal, put


class RunningConfidence:
    """Running Confidence Remasking, the decoder of MDPO (He et al., arXiv 2508.13148, section "RCR").

    A step fills every mask of the block for now and keeps the most confident positions, one more for
    each token of the schedule; the rest is masked, some of it again. A position that was filled before
    keeps the confidence it was filled with, so what comes later can push it out. As the authors' code
    has it, except that theirs may also reopen an earlier block. One beam a prompt.
    """

    def __init__(self, prompts: int, length: int, device: torch.device):
        self._filled = torch.full((prompts, length), NEVER, device=device)  # confidence at the last fill

    def propose(
        self,
        prediction: Prediction,
        tokens: Tensor,  # (A, 1, L) int64 the beams'
        prompt: Tensor,  # (A,) int64
        inside: Tensor,  # (A, 1, W) bool: no repetition that pads a short block
        number: Tensor,  # (A, 1) int64 how many more positions are to stand, 0 as 1
        mask_id: int,
    ) -> Proposal:
        """One candidate of up to W changes; ``removed`` are the positions that are masked again."""
        where, confidence = prediction.positions, prediction.confidence
        filled = self._filled[prompt]
        masked = confidence > NEVER
        standing = inside & (tokens.gather(2, where) != mask_id)
        # 1) The most confident positions stand after this step, of equals the lower.
        held = torch.where(standing, filled[:, None].gather(2, where), confidence)
        kept = standing.sum(-1) + torch.where(masked.any(-1), number.clamp(min=1), 0)
        rank = torch.argsort(torch.argsort(held, dim=-1, descending=True, stable=True), dim=-1)
        stays = rank < kept[..., None]
        commit, removed = masked & stays, standing & ~stays & masked.any(-1, keepdim=True)
        # 2) Remember with what confidence each was filled.
        self._filled[prompt] = put(filled, commit[:, 0], where[:, 0], confidence[:, 0])
        # 3) The changes, (A, 1, 1, W).
        return Proposal(
            real=(commit | removed)[:, :, None],
            positions=where[:, :, None],
            tokens=torch.where(removed, mask_id, prediction.tokens)[:, :, None],
            confidence=held[:, :, None],
            accelerated=(number > 0).any(-1),
            removed=removed[:, :, None],
        )
