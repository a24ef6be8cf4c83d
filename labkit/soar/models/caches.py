"""Block and prefix caches: most positions of a sequence are not computed again at every step.

While ``decode`` fills one block, a sequence changes there and nowhere else. ``Cached`` computes the block's
start state (the sequence with all of the block masked) once and in full, and keeps the keys and values of
every position and layer. At the later steps it computes a part of the positions again; queries see the
new keys and values of that part, and the kept, frozen ones of the rest:

approximate-prefix  again: what the start state has masked (this block and all later ones); frozen: the
                    prompt and earlier blocks. The prefix cache of Fast-dLLM (arXiv 2505.22618)
approximate-dual    again: the block alone. Fast-dLLM's DualCache
exact-block         again: the attention blocks that the block lies in, and what stands between. Only for
                    attention that is causal over blocks (arXiv 2503.09573): keys and values of earlier
                    blocks are final there, and logits equal the uncached ones

In a model that attends in both directions, as LLaDA, Dream and the lab's own do, every position looks at
the block, so the frozen ones go stale from the second layer on and no cache is exact: expect other
answers. Exact are the first step of a block (so blocks of one position too), models of one layer, and
blocks beside which nothing is frozen. Where logits stand one position to the left (Dream), the position
before each one asked for is computed again too.

What is kept depends on the tokens of the start state alone. It is found by their 64-bit fingerprint, so
beams, prompts and calls with one start share it, and results depend neither on the batch nor on what was
dropped. It takes 2 * layers * heads * head width numbers a position: 0.5 MiB for LLaDA-8B in bf16, that is
416 MiB for a row of 832 positions; 56 KiB and 46 MiB for Dream-7B.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from labkit import checks
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.models.keys_values import Fill, KeysAndValues, Patch

CACHES = ("approximate-prefix", "approximate-dual", "exact-block")
CACHE_BYTES = 16 * 2**30


def check_cache(cache: str | None, cache_bytes: int, block_causal: int | None) -> None:
    """ValueError if a model whose attention is ``block_causal`` (None: everywhere) can't have the cache."""
    checks.choice("cache", cache, (None, *CACHES))
    checks.integer("cache_bytes", cache_bytes, 1)
    if block_causal is not None:
        checks.integer("block_causal", block_causal, 1)
    if cache == "exact-block" and block_causal is None:
        allowed = "an approximate one, or None, unless block_causal is given: no cache is exact for a model"
        checks.fail("cache", cache, f"{allowed} that attends in both directions")


class Cached(nn.Module):
    """``model`` with a cache of one of CACHES; for ``decode`` it is that model.

    model        DiffusionLM or MaskedLM
    cache_bytes  most memory for keys and values; it is taken as needed. What neither this call nor the
                 one before it used makes room first (classifier-free guidance alternates between two).
                 If the rows of one call need more, they are refilled at every call: slower than no cache

    ``positions`` of ``logits_at`` must be all slots of the row's block; repeated ones do no harm.
    ``computed`` counts the token positions that went through the layers. One host sync a forward.
    """

    def __init__(self, model: nn.Module, cache: str, cache_bytes: int = CACHE_BYTES):
        super().__init__()
        check_cache(cache, cache_bytes, model.block_causal)
        if cache is None:
            checks.fail("cache", cache, "one of " + ", ".join(map(repr, CACHES)))
        self.model, self.cache, self.computed = model, cache, 0
        self.mask_id, self.eos_id, self.eos_ids = model.mask_id, model.eos_id, eos_ids(model)
        self.max_length, self.vocab_size = model.max_length, model.vocab_size
        self._kept = KeysAndValues(model, cache_bytes)

    @property
    def kept_bytes(self) -> int:
        """Memory that the cache has taken."""
        return sum(tensor.nbytes for tensor in (*self._kept.keys, *self._kept.values))

    def forward(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Logits (B, L, V), without the cache."""
        return self.model(tokens, *rest)

    @torch.no_grad()
    def logits_at(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: list[int] | None = None
    ) -> torch.Tensor:
        """Logits (B, W, V) at ``positions`` (B, W), the slots of each row's block in tokens (B, L)."""
        self._kept.lay_out(tokens.shape[1])
        longest, own_lengths = tokens.shape[1] if lengths is None else max(lengths), None
        tokens = tokens[:, :longest]  # other prompts of the same decode may be longer than all of these
        if lengths is not None and min(lengths) < longest:
            own_lengths = torch.tensor(lengths, device=tokens.device)
        start, asked, again, told = self._planned(tokens, positions, own_lengths)
        key, filled, count = told.cpu().numpy()  # the one host sync
        keys, first, group = np.unique(key, return_index=True, return_inverse=True)
        parts = []
        for low in range(0, len(keys), self._kept.most):  # as many starts at a time as there is room for
            slots, known = self._kept.place(keys[low : low + self._kept.most])
            mine = np.flatnonzero((group >= low) & (group < low + len(slots)))
            own, begins = group[mine] - low, filled[mine] == 0
            fill = ~known
            fill[own[begins]] = True  # anew, so that decoding the same again is the same again
            if fill.any():
                row = self._on(first[low : low + len(slots)][fill])
                past = Fill(self._kept, self._on(slots[fill]))
                hidden = self.model.hidden(start[row], _of(own_lengths, row), past=past)
                self.computed += hidden.shape[0] * longest
                rank = np.cumsum(fill) - 1
                hidden = hidden[self._on(rank[own[begins]])]
                place = asked[self._on(mine[begins])]
                parts.append((mine[begins], torch.take_along_dim(hidden, place[..., None], 1)))
            if not begins.all():
                rest, slot = mine[~begins], self._on(slots[own[~begins]])
                row = self._on(rest)
                where = _indices(again[row], int(count[rest].max()))
                past = Patch(self._kept, slot, where, longest)
                hidden = self.model.hidden(tokens[row], _of(own_lengths, row), where, past)
                self.computed += where.numel()
                place = (again[row].cumsum(1) - 1).gather(1, asked[row])
                parts.append((rest, torch.take_along_dim(hidden, place[..., None], 1)))
        hidden = parts[0][1]
        if len(parts) > 1:
            order = np.argsort(np.concatenate([rows for rows, _ in parts]))
            hidden = torch.cat([part for _, part in parts])[self._on(order)]
        return self.model.logits_of(hidden)

    def _planned(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Start states (B, L); where hidden states are asked for (B, W); bool (B, L) what to compute again;
        long (3, B): fingerprints of the start states, how many slots are filled, how much is done again.
        """
        start = tokens.scatter(1, positions, self.mask_id)
        asked = (positions - 1).clamp(min=0) if self.model.shift else positions
        again, content = self._again(start, positions, asked), start
        if lengths is not None:
            inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            again, content = again & inside, torch.where(inside, start, -1)
        codes = self._kept.codes[: tokens.shape[1]]
        found = ((content + 1) * codes).sum(1)  # the same however much padding there is
        return start, asked, again, torch.stack([found, (start != tokens).sum(1), again.sum(1)])

    def _again(self, start: torch.Tensor, positions: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Bool (B, L): the positions to compute again."""
        every = torch.arange(start.shape[1], device=start.device)
        first, last = positions.amin(1, keepdim=True), positions.amax(1, keepdim=True)
        if self.cache == "approximate-prefix":
            again = (start == self.mask_id) & (every >= first)  # guidance masks the prompt as well
        elif self.cache == "approximate-dual":
            again = torch.zeros_like(start, dtype=torch.bool).scatter(1, positions, True)
        else:
            size = self.model.block_causal
            again = (every // size >= first // size) & (every // size <= last // size)
        return again.scatter(1, asked, True)

    def _on(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(index).to(next(self.parameters()).device)


def _indices(chosen: torch.Tensor, width: int) -> torch.Tensor:
    """Long (B, width): where bool (B, L) is true, ascending, filled up with a row's first."""
    index = torch.argsort(~chosen, dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=chosen.device) < chosen.sum(1, keepdim=True)
    return torch.where(real, index, index[:, :1])


def _of(lengths: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
    return None if lengths is None else lengths[rows]
