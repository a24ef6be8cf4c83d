"""Beam rows to (token, confidence) at the positions a search asks about: the one caller of the model."""

import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

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
        self._lengths, self._count = np.array(layout.lengths), layout.count.tolist()
        self._uniform = len(set(layout.lengths)) == 1
        self._generators = _generators(layout, seed) if temperature else []

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
            noise = self._gumbel(logits.shape, prompt.tolist(), flat.device)
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

    def _gumbel(self, shape: torch.Size, prompt: list[int], device: torch.device) -> torch.Tensor:
        noise = torch.zeros(shape)
        for row, owner in enumerate(prompt):
            width = min(shape[1], self._count[owner])  # the prompt's own, whatever its neighbours need
            source = self._generators[owner]
            uniform = torch.rand((width, shape[2]), dtype=torch.float64, generator=source)
            noise[row, :width] = -(-uniform.clamp_min(1e-300).log()).log()
        return noise.flatten(0, 1).to(device)


def _generators(layout: Layout, seed: int) -> list[torch.Generator]:
    """One generator per prompt, seeded by its text and by how often it came before in this batch.

    So neighbours in the batch never change a sample, and copies of one prompt are still different.
    """
    seen, made = Counter(), []
    for row, length in zip(layout.tokens.tolist(), layout.lengths, strict=True):
        key = tuple(row[:length])
        digest = hashlib.sha256(repr((seed, key, seen[key])).encode()).digest()
        seen[key] += 1
        made.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))
    return made
