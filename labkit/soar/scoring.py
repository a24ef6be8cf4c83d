"""Beam rows to tokens and confidences at the positions a search asks about: the one caller of the model."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labkit import checks
from labkit.soar.config import DecodeConfig
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.noise import PromptNoise
from labkit.soar.prompts import Layout
from labkit.soar.stability import Stability
from tokenstats import token_stats

# What a strategy asks for beside the confidence.
MEASURES = {"eb": "entropy", "klass": "stability", "prophet": "gap"}


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
        self._stability = Stability(len(layout.lengths), config.kl_threshold)
        self._ends = torch.tensor(eos_ids(model), dtype=torch.long)
        for name, unused in (("suppress_eos", None), ("eos_penalty", 0)):
            if (given := getattr(config, name)) and not len(self._ends):
                checks.fail(name, given, f"{unused} for a model without eos_id")

    def __call__(
        self,
        rows: Tensor,  # (R, L) int64 sequences with masks
        positions: Tensor,  # (R, W) int64 where to look
        fixed: Tensor,  # (P, L) bool: given by the prompt, hidden in the unconditional half of CFG
        prompt: np.ndarray,  # (R,) int64 the prompt each row belongs to
    ) -> tuple[Tensor, ...]:
        """Token int64 and confidence fp32, (R, W) each, of R beam rows; then the measure, if any."""
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
        self._ends = self._ends.to(logits.device)
        if self.config.suppress_eos == "logits":
            logits.index_fill_(-1, self._ends, float("-inf"))
        elif self.config.eos_penalty:
            logits[..., self._ends] -= self.config.eos_penalty
        flat = logits.flatten(0, 1)
        drawn = self._heated(flat, prompt, positions.shape[1]) if self._noise else None
        if self.config.strategy == "order_token":
            return self._branches(flat, drawn, len(rows))
        token = None if drawn is None else drawn.argmax(-1)
        scores = tuple(item.view(positions.shape) for item in self._stats(flat, token))
        if MEASURES.get(self.config.strategy) == "stability":
            scores += (self._stability(logits, positions, prompt),)
        return scores

    def _heated(self, flat: Tensor, prompt: np.ndarray, width: int) -> Tensor:
        """fp32 (N, V): noise over logits (N, V) by temperature, top_p and top_k; its argmax is a sample."""
        assert self._noise is not None
        # in fp32 logits / 1e-40 are all infinite, and -inf / 1e40 is NaN
        heated = flat.float() / min(max(self.config.temperature, 1e-30), 1e30)
        if self.config.top_p < 1 or self.config.top_k is not None:
            heated = _filtered(heated, self.config.top_p, self.config.top_k)
        noise = self._noise(prompt, width, flat.shape[1], flat.device)
        return heated + noise.flatten(0, 1)

    def _branches(self, flat: Tensor, drawn: Tensor | None, rows: int) -> tuple[Tensor, Tensor]:
        """The ``token_beam`` likeliest tokens of logits (N, V), or of those with noise, best first.

        Int64 and probability fp32, (rows, token_beam * N / rows) each: the first of all positions, then
        the second ones. -inf where there is no such token.
        """
        ranked = (flat.float() if drawn is None else drawn).clone()
        tokens, confidences = [], []
        for _ in range(self.config.token_beam):
            best, token = ranked.max(-1)
            sure = token_stats(flat, token).logprob.exp()
            tokens.append(token.view(rows, -1))
            confidences.append(sure.masked_fill(best == float("-inf"), float("-inf")).view(rows, -1))
            ranked.scatter_(1, token[:, None], float("-inf"))
        return torch.cat(tokens, 1), torch.cat(confidences, 1)

    def _stats(self, flat: Tensor, token: Tensor | None) -> tuple[Tensor, ...]:
        """What is said of each row of logits (N, V), (N,) each; ``token`` None: the argmax."""
        best, top, logprob, entropy = token_stats(flat, token)
        confidence = top if token is None else logprob.exp()
        if self.config.confidence == "margin":  # p1 - p2 = p1 (1 - exp(l2 - l1))
            confidence = -top * torch.expm1(-_gap(flat))
        elif self.config.confidence == "entropy":
            confidence = -entropy
        token = best if token is None else token
        if self.config.suppress_eos == "confidence":
            # The least there is: no probability, or the entropy of a uniform distribution.
            lowest = -math.log(flat.shape[1]) if self.config.confidence == "entropy" else 0.0
            confidence = torch.where(torch.isin(token, self._ends), lowest, confidence)
        measure = MEASURES.get(self.config.strategy)
        if measure in (None, "stability"):
            return token, confidence
        return token, confidence, entropy if measure == "entropy" else _gap(flat)

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


def _gap(flat: Tensor) -> Tensor:
    """fp32 (N,): how far the largest logit of each row of (N, V) lies above the second."""
    if flat.shape[1] < 2:
        return flat.new_full(flat.shape[:1], float("inf"), dtype=torch.float32)
    first, second = flat.float().topk(2).values.unbind(-1)
    return first - second


def _filtered(logits: Tensor, top_p: float, top_k: int | None) -> Tensor:
    """Logits (N, V) with -inf where a token may not be sampled, as Dream's ``sample_tokens`` has it.

    A token stays if those that are likelier hold at most ``top_p``, and are fewer than ``top_k``; of
    equal ones the lower id is likelier.
    """
    ranked, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    share = ranked.softmax(-1)
    kept = share.cumsum(-1) - share <= top_p
    kept[:, 0] = True
    if top_k is not None:
        kept[:, top_k:] = False
    return torch.full_like(logits, float("-inf")).scatter(1, order, ranked.where(kept, float("-inf")))
