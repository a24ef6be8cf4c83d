"""Approximate caches: most positions of a sequence are not computed again at every step.

While ``decode`` fills one block, a sequence changes there and nowhere else. ``Cached`` computes the block's
first state (the sequence with all of the block masked) once and in full, and keeps the keys and values of
every position and layer. At the later steps it refreshes a part of the positions; queries see the new keys
and values of that part, and the kept, frozen ones of the rest:

approximate-prefix  refreshed: what the first state has masked (this block and all later ones); frozen: the
                    prompt and earlier blocks. The prefix cache of Fast-dLLM (arXiv 2505.22618)
approximate-dual    refreshed: the block alone. Fast-dLLM's DualCache

In a model that attends in both directions, as LLaDA, Dream and the lab's own do, every position looks at
the block, so the frozen ones go stale from the second layer on and no cache is exact: expect other
answers. Where attention is causal over blocks, "exact-block" (``block_cache``) computes less and changes
nothing. Exact are the first step of a block (so blocks of one position too), models of one layer, and
blocks beside which nothing is frozen. Where logits stand one position to the left (Dream), the position
before each requested one is refreshed too.

What is kept depends on the tokens of the first state alone. It is found by their 64-bit fingerprint, so
beams, prompts and calls with one first state share it, and results depend neither on the batch nor on what
was dropped. It takes 2 * layers * heads * head width numbers a position: 0.5 MiB for LLaDA-8B in bf16, that
is 416 MiB for a row of 832 positions; 56 KiB and 46 MiB for Dream-7B.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import checks
from labkit.soar.models.diffusion_lm import DiffusionLM, eos_ids
from labkit.soar.models.keys_values import Fill, KeysAndValues, Patch
from labkit.soar.models.transformer import MaskedLM

APPROXIMATE, EXACT = ("approximate-prefix", "approximate-dual"), "exact-block"
CACHES = *APPROXIMATE, EXACT
CACHE_BYTES = 16 * 2**30


class Cached(nn.Module):
    """``model`` with a cache of one of APPROXIMATE; for ``decode`` it is that model.

    cache_bytes  most memory for keys and values; it is taken as needed. What neither this call nor the
                 one before it used makes room first (classifier-free guidance alternates between two).
                 If the rows of one call need more, they are refilled at every call: slower than no cache

    ``positions`` of ``logits_at`` must be all slots of the row's block; repeated ones do no harm.
    ``computed`` counts the token positions that went through the layers. One host sync a forward.
    """

    kinds: tuple[str, ...] = APPROXIMATE

    def __init__(self, model: DiffusionLM | MaskedLM, cache: str, cache_bytes: int = CACHE_BYTES):
        super().__init__()
        checks.choice("cache", cache, self.kinds)
        self.model, self.cache, self.computed = model, cache, 0
        self.mask_id, self.eos_id, self.eos_ids = model.mask_id, model.eos_id, eos_ids(model)
        self.max_length, self.vocab_size = model.max_length, model.vocab_size
        self.fixed_length = getattr(model, "fixed_length", False)
        self.block_causal = model.block_causal
        self._kept = KeysAndValues(model, cache_bytes)

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @property
    def kept_bytes(self) -> int:
        """Memory that the cache has taken."""
        return sum(tensor.nbytes for tensor in (*self._kept.keys, *self._kept.values))

    def forward(self, tokens: Tensor, *rest: Any) -> Tensor:
        """Logits (B, L, V), without the cache."""
        return self.model(tokens, *rest)

    @torch.no_grad()
    def logits_at(
        self,
        tokens: Tensor,  # (B, L) int64
        positions: Tensor,  # (B, W) int64 the slots of each row's block
        lengths: list[int] | None = None,
    ) -> Tensor:
        """Logits (B, W, V) at ``positions``."""
        # 1) The first state of each row's block, and what is to be refreshed.
        self._kept.lay_out(tokens.shape[1])
        longest, own_lengths = tokens.shape[1] if lengths is None else max(lengths), None
        tokens = tokens[:, :longest]  # other prompts of the same decode may be longer than all of these
        if lengths is not None and min(lengths) < longest:
            own_lengths = torch.tensor(lengths, device=tokens.device)
        first, requested, refreshed, facts = self._planned(tokens, positions, own_lengths)
        fingerprint, filled, num_refreshed = facts.cpu().numpy()  # the one host sync
        unique, row_of, group = np.unique(fingerprint, return_index=True, return_inverse=True)
        parts, most = [], self._kept.most
        for low in range(0, len(unique), most):  # as many first states at a time as there is room for
            slots, known = self._kept.place(unique[low : low + most])
            rows = np.flatnonzero((group >= low) & (group < low + len(slots)))
            own, fresh = group[rows] - low, filled[rows] == 0
            # 2) First states that are not kept yet, or at which a block begins, in full.
            fill = ~known
            fill[own[fresh]] = True  # anew, so that the same decode gives the same once more
            if fill.any():
                row = self._on(row_of[low : low + most][fill])
                filling = Fill(self._kept, self._on(slots[fill]))
                hidden = self.model.hidden(first[row], _of(own_lengths, row), past=filling)
                self.computed += hidden.shape[0] * longest
                rank = np.cumsum(fill) - 1
                hidden = hidden[self._on(rank[own[fresh]])]
                place = requested[self._on(rows[fresh])]
                parts.append((rows[fresh], torch.take_along_dim(hidden, place[..., None], 1)))
            # 3) Rows with a part of their block filled: the refreshed positions alone.
            if not fresh.all():
                later = rows[~fresh]
                row = self._on(later)
                where = _indices(refreshed[row], int(num_refreshed[later].max()))
                patch = Patch(self._kept, self._on(slots[own[~fresh]]), where, longest)
                hidden = self.model.hidden(tokens[row], _of(own_lengths, row), where, patch)
                self.computed += where.numel()
                place = (refreshed[row].cumsum(1) - 1).gather(1, requested[row])
                parts.append((later, torch.take_along_dim(hidden, place[..., None], 1)))
        return self.model.logits_of(self._in_order(parts))

    def _in_order(self, parts: list[tuple[np.ndarray, Tensor]]) -> Tensor:
        """Hidden states of all rows in the order of the rows, from ``parts``: (rows, theirs)."""
        if len(parts) == 1:
            return parts[0][1]
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        return torch.cat([part for _, part in parts])[self._on(order)]

    def _planned(self, tokens: Tensor, positions: Tensor, lengths: Tensor | None) -> tuple[Tensor, ...]:
        """First states (B, L); where hidden states are requested (B, W); bool (B, L) what to refresh;
        int64 (3, B): fingerprints of the first states, how many slots are filled, how much is refreshed.
        """
        first = tokens.scatter(1, positions, self.mask_id)
        requested = (positions - 1).clamp(min=0) if self.model.shift else positions
        refreshed, content = self._refreshed(first, positions, requested), first
        if lengths is not None:
            inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            refreshed, content = refreshed & inside, torch.where(inside, first, -1)
        codes = self._kept.codes[: tokens.shape[1]]
        fingerprint = ((content + 1) * codes).sum(1)  # the same however much padding there is
        facts = torch.stack([fingerprint, (first != tokens).sum(1), refreshed.sum(1)])
        return first, requested, refreshed, facts

    def _refreshed(self, first: Tensor, positions: Tensor, requested: Tensor) -> Tensor:
        """Bool (B, L): the positions to compute again."""
        every = torch.arange(first.shape[1], device=first.device)
        low = positions.amin(1, keepdim=True)
        if self.cache == "approximate-prefix":
            refreshed = (first == self.mask_id) & (every >= low)  # guidance masks the prompt as well
        else:
            refreshed = torch.zeros_like(first, dtype=torch.bool).scatter(1, positions, True)
        return refreshed.scatter(1, requested, True)

    def _on(self, index: np.ndarray) -> Tensor:
        return torch.from_numpy(index).to(next(self.parameters()).device)


def _indices(chosen: Tensor, width: int) -> Tensor:
    """Long (B, width): where bool (B, L) is true, ascending, filled up with a row's first."""
    index = torch.argsort(~chosen, dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=chosen.device) < chosen.sum(1, keepdim=True)
    return torch.where(real, index, index[:, :1])


def _of(lengths: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if lengths is None else lengths[rows]
