"""The exact cache of block diffusion: finished blocks are computed once, the block at hand each step.

Where attention is causal over blocks (arXiv 2503.09573), keys and values of a block depend on it and on
those before it alone. So those of finished blocks are final, and logits are the uncached ones, up to the
rounding of products of another size. Each forward is

prefill  the blocks before the one at hand: nothing where they are kept; the last of them where the ones
         before it are kept, as when a block is finished; else all of them
step     the block at hand, or those it lies in; later ones are not computed, for nobody there looks at them

Where logits stand one position to the left, the step computes the position before the block too.

Kept are keys and values of a prefix, found by the 64-bit fingerprint of its tokens: beams, prompts and
calls with one prefix share it, and results depend neither on the batch nor on what was dropped. A model
whose weights change needs a new cache.
"""

import numpy as np
import torch
from torch import Tensor

from labkit import checks
from labkit.soar.models.caches import APPROXIMATE, CACHE_BYTES, EXACT, Cached
from labkit.soar.models.diffusion_lm import DiffusionLM
from labkit.soar.models.keys_values import Extend, Fill, Patch
from labkit.soar.models.transformer import MaskedLM


def with_cache(model: DiffusionLM | MaskedLM, cache: str, cache_bytes: int = CACHE_BYTES) -> Cached:
    """``model`` with a cache of one of CACHES. ValueError if it can't have that one."""
    return (BlockCached if cache == EXACT else Cached)(model, cache, cache_bytes)


class BlockCached(Cached):
    """``Cached`` with the exact cache, for a model with ``block_causal``."""

    kinds = (EXACT,)

    def __init__(self, model: DiffusionLM | MaskedLM, cache: str = EXACT, cache_bytes: int = CACHE_BYTES):
        if model.block_causal is None:
            allowed = f"one of {', '.join(map(repr, APPROXIMATE))}, or None, unless block_causal is given"
            checks.fail(
                "cache", cache, f"{allowed}: no cache is exact for a model that attends in both directions"
            )
        super().__init__(model, cache, cache_bytes)
        self.size, self.shift = model.block_causal, int(model.shift)

    @torch.no_grad()
    def logits_at(self, tokens: Tensor, positions: Tensor, lengths: list[int] | None = None) -> Tensor:
        """Logits (B, W, V) at ``positions``, which lie in one block of a row, or in a few side by side."""
        # 1) Where the blocks of each row begin and end, and the fingerprints of what is before them.
        self._kept.lay_out(tokens.shape[1])
        own_lengths = None if lengths is None else torch.tensor(lengths, device=tokens.device)
        low = positions.amin(1) // self.size * self.size
        high = (positions.amax(1) // self.size + 1) * self.size
        high = high.clamp(max=tokens.shape[1]) if own_lengths is None else high.minimum(own_lengths)
        first = (low - self.shift).clamp(min=0)
        prefix, before = self._fingerprint(tokens, low), self._fingerprint(tokens, low - self.size)
        facts = torch.stack([prefix, before, low, first, high]).cpu().numpy()  # the one host sync
        unique, row_of, group = np.unique(facts[0], return_index=True, return_inverse=True)
        parts, most = [], self._kept.most
        for start in range(0, len(unique), most):  # as many prefixes at a time as there is room for
            chosen = row_of[start : start + most]
            # 2) Prefixes that are not kept yet.
            try:
                slots = self._prefill(tokens, facts, chosen)
            except BaseException:  # an interrupt too: what is half written must not be found again
                self._kept.forget()
                raise
            # 3) The blocks at hand.
            rows = np.flatnonzero((group >= start) & (group < start + len(slots)))
            row, begin, end = self._on(rows), facts[3, rows], facts[4, rows]
            where = first[row, None] + torch.arange(int((end - begin).max()), device=tokens.device)
            where = torch.where(where < high[row, None], where, first[row, None])
            end = int(end.max())
            patch = Patch(self._kept, self._on(slots[group[rows] - start]), where, end)
            seen = None if own_lengths is None else own_lengths[row]
            hidden = self.model.hidden(tokens[row, :end], seen, where, patch)
            self.computed += where.numel()
            wanted = (positions[row] - self.shift).clamp(min=0) - first[row, None]
            parts.append((rows, torch.take_along_dim(hidden, wanted[..., None], 1)))
        return self.model.logits_of(self._in_order(parts))

    def _fingerprint(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """int64 (B,): of each row's tokens before ``ends`` (B,)."""
        codes = self._kept.codes[: tokens.shape[1]]
        inside = torch.arange(tokens.shape[1], device=tokens.device) < ends[:, None]
        return torch.where(inside, (tokens + 1) * codes, 0).sum(1)

    def _prefill(self, tokens: Tensor, facts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Slots (N,) with keys and values of the prefixes of ``rows`` (N,), no two of them the same."""
        prefix, before, low = facts[:3, rows]
        parents = self._kept.find(before)
        slots, known = self._kept.place(prefix)
        missing = ~known & (low > 0)
        extended, whole = (np.flatnonzero(missing & which) for which in (parents >= 0, parents < 0))
        if len(extended):  # first, while no slot of a parent is written to
            row, own = self._on(rows[extended]), self._on(slots[extended])
            ends = self._on(low[extended])[:, None]
            where = ends - self.size + torch.arange(self.size, device=tokens.device)
            end = int(low[extended].max())
            past = Extend(self._kept, self._on(parents[extended]), own, where, end)
            self.model.hidden(tokens[row, :end], None, where, past)
            self.computed += where.numel()
        if len(whole):
            row, end = self._on(rows[whole]), int(low[whole].max())
            # A shorter prefix is followed by later blocks, at which it does not look.
            self.model.hidden(tokens[row, :end], None, past=Fill(self._kept, self._on(slots[whole])))
            self.computed += len(whole) * end
        return slots
