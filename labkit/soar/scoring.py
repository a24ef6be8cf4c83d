"""Beam rows to (token, confidence) at the positions a search asks about: the one caller of the model."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labkit.soar.config import DecodeConfig
from labkit.soar.noise import PromptNoise
from labkit.soar.prompts import Layout
from tokenstats import token_stats


class Scorer:
    """Calls ``model`` on beam rows and reads the argmax and its probability in fp32.

    A model may offer more than tokens (B, L) -> logits (B, L, V), and is asked for it if it does:
    ``logits_at(tokens, positions, lengths)`` returns logits (B, W, V) at those positions alone, a new
    tensor that is then written to, and pads rows of different lengths itself. A plain callable gets
    one call per distinct length, so padding never changes a result.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], layout: Layout, config: DecodeConfig):
        self.model, self.config = model, config
        self.forward_calls = self.forward_rows = 0
        self._lengths = np.array(layout.lengths)
        self._uniform = len(set(layout.lengths)) == 1
        self._noise = None if config.seed is None else PromptNoise(layout, config.seed)

    def __call__(
        self,
        rows: Tensor,  # (R, L) int64 sequences with masks
        positions: Tensor,  # (R, W) int64 where to look
        fixed: Tensor,  # (P, L) bool: given by the prompt, hidden in the unconditional half of CFG
        prompt: np.ndarray,  # (R,) int64 the prompt each row belongs to
    ) -> tuple[Tensor, Tensor]:
        """Token int64 and confidence fp32, (R, W) each, of R beam rows."""
        mask_id, cfg_scale = self.config.mask_id, self.config.cfg_scale
        lengths = None if self._uniform else self._lengths[prompt].tolist()
        logits = self._logits(rows, positions, lengths)
        if logits.dtype == torch.float64:
            logits = logits.float()
        if cfg_scale:  # classifier-free guidance as LLaDA applies it (Ho and Salimans 2022)
            given = fixed[torch.from_numpy(prompt).to(rows.device)]
            empty = self._logits(torch.where(given, mask_id, rows), positions, lengths).float()
            logits = empty + (cfg_scale + 1) * (logits - empty)
        if mask_id < logits.shape[-1]:
            logits[..., mask_id] = float("-inf")  # a mask is never an answer
        flat = logits.flatten(0, 1)
        if self._noise:
            noise = self._noise(prompt, positions.shape[1], flat.shape[1], flat.device)
            token = (flat.float() / self.config.temperature + noise.flatten(0, 1)).argmax(-1)
            confidence = token_stats(flat, token).logprob.exp()
        else:
            token, confidence, *_ = token_stats(flat)
        return token.view(positions.shape), confidence.view(positions.shape)

    def _logits(self, rows: Tensor, positions: Tensor, lengths: list[int] | None) -> Tensor:
        """Logits (R, W, V) at ``positions``; lengths: of each row, None if all have one."""
        self.forward_rows += len(rows)
        if hasattr(self.model, "logits_at"):
            self.forward_calls += 1
            return self.model.logits_at(rows, positions, lengths)
        if lengths is None:
            return self._gathered(rows, positions)
        parts, order = [], []
        for length in sorted(set(lengths)):
            index = [row for row, own in enumerate(lengths) if own == length]
            some = torch.tensor(index, device=rows.device)
            parts.append(self._gathered(rows[some, :length], positions[some].clamp(max=length - 1)))
            order += index
        return torch.cat(parts)[torch.tensor(order, device=rows.device).argsort()]

    def _gathered(self, rows: Tensor, positions: Tensor) -> Tensor:
        self.forward_calls += 1
        logits = self.model(rows)
        shape = getattr(logits, "shape", ())
        if len(shape) != 3 or shape[:2] != rows.shape or not logits.is_floating_point():
            raise ValueError(
                f"model must map tokens (B, L) to float logits (B, L, V); "
                f"for tokens {tuple(rows.shape)} it gave {tuple(shape) or type(logits).__name__}"
            )
        return torch.take_along_dim(logits, positions[..., None], 1)
