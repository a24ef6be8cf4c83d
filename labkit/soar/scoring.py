"""Beam rows to (token, confidence) at the positions a search asks about: the one caller of the model."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

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

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        layout: Layout,
        mask_id: int,
        *,
        temperature: float = 0.0,
        cfg_scale: float = 0.0,
        seed: int = 0,
    ):
        self.model, self.mask_id, self.cfg_scale = model, mask_id, cfg_scale
        self.temperature = temperature
        self.forward_calls = self.forward_rows = 0
        self._lengths = np.array(layout.lengths)
        self._uniform = len(set(layout.lengths)) == 1
        self._noise = PromptNoise(layout, seed) if temperature else None

    def __call__(
        self, rows: torch.Tensor, positions: torch.Tensor, fixed: torch.Tensor, prompt: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token (R, W) long and confidence (R, W) fp32 of R beam rows.

        rows       long (R, L) sequences with masks
        positions  long (R, W) where to look
        fixed      bool (P, L) given by the prompt (hidden in the unconditional half of CFG)
        prompt     int (R,) the prompt each row belongs to
        """
        lengths = None if self._uniform else self._lengths[prompt].tolist()
        logits = self._logits(rows, positions, lengths)
        if logits.dtype == torch.float64:
            logits = logits.float()
        if self.cfg_scale:  # classifier-free guidance as LLaDA applies it (Ho and Salimans 2022)
            given = fixed[torch.from_numpy(prompt).to(rows.device)]
            empty = self._logits(torch.where(given, self.mask_id, rows), positions, lengths).float()
            logits = empty + (self.cfg_scale + 1) * (logits - empty)
        if self.mask_id < logits.shape[-1]:
            logits[..., self.mask_id] = float("-inf")  # a mask is never an answer
        flat = logits.flatten(0, 1)
        if self.temperature:
            noise = self._gumbel(logits.shape, prompt, flat.device)
            token = (flat.float() / self.temperature + noise).argmax(-1)
            confidence = token_stats(flat, token).logprob.exp()
        else:
            token, confidence, *_ = token_stats(flat)
        return token.view(positions.shape), confidence.view(positions.shape)

    def _logits(
        self, rows: torch.Tensor, positions: torch.Tensor, lengths: list[int] | None
    ) -> torch.Tensor:
        self.forward_rows += len(rows)
        if hasattr(self.model, "logits_at"):
            self.forward_calls += 1
            return self.model.logits_at(rows, positions, lengths)
        if lengths is None:
            return self._gathered(rows, positions)
        parts = []
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        for length in sorted(set(lengths)):
            index = torch.tensor([i for i in order if lengths[i] == length], device=rows.device)
            parts.append(self._gathered(rows[index, :length], positions[index].clamp(max=length - 1)))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[back.to(rows.device)]

    def _gathered(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.forward_calls += 1
        logits = self.model(rows)
        shape = getattr(logits, "shape", ())
        if len(shape) != 3 or shape[:2] != rows.shape or not logits.is_floating_point():
            raise ValueError(
                f"model must map tokens (B, L) to float logits (B, L, V); "
                f"for tokens {tuple(rows.shape)} it gave {tuple(shape) or type(logits).__name__}"
            )
        return torch.take_along_dim(logits, positions[..., None], 1)

    def _gumbel(self, shape: torch.Size, prompt: Sequence[int], device: torch.device) -> torch.Tensor:
        return self._noise(np.asarray(prompt), *shape[1:], device).flatten(0, 1)
