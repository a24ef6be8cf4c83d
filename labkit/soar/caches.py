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
        self.mask_id, self.eos_id = model.mask_id, model.eos_id
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
        length, device = tokens.shape[1], tokens.device
        start = tokens.scatter(1, positions, self.mask_id)
        asked = (positions - 1).clamp(min=0) if self.model.shift else positions
        again, filled = self._again(start, positions, asked), (start != tokens).sum(1)
        content = start
        if lengths is not None:
            inside = torch.arange(length, device=device) < torch.tensor(lengths, device=device)[:, None]
            again, content = again & inside, torch.where(inside, start, -1)
        told = torch.stack([_fingerprint(content), filled, again.sum(1)])
        key, filled, count = told.cpu().numpy()  # the one host sync
        keys, first, group = np.unique(key, return_index=True, return_inverse=True)
        self._kept.lay_out(length)
        parts = []
        for low in range(0, len(keys), self._kept.most):  # as many starts at a time as there is room for
            slots, known = self._kept.place(keys[low : low + self._kept.most])
            mine = np.flatnonzero((group >= low) & (group < low + len(slots)))
            own, begins = group[mine] - low, filled[mine] == 0
            fill = ~known
            fill[own[begins]] = True  # anew, so that decoding the same again is the same again
            if fill.any():
                row = first[low : low + len(slots)][fill]
                hidden = self._hidden(start, row, lengths, None, _Fill(self._kept, self._on(slots[fill])))
                rank = np.cumsum(fill) - 1
                hidden = hidden[self._on(rank[own[begins]])]
                parts.append((mine[begins], _take(hidden, asked[self._on(mine[begins])])))
            if not begins.all():
                rest, slot = mine[~begins], self._on(slots[own[~begins]])
                index = self._on(rest)
                where = _indices(again[index], int(count[rest].max()))
                hidden = self._hidden(tokens, rest, lengths, where, _Patch(self._kept, slot, where))
                rank = again[index].cumsum(1) - 1
                parts.append((rest, _take(hidden, rank.gather(1, asked[index]))))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        return self.model.logits_of(torch.cat([hidden for _, hidden in parts])[self._on(order)])

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

    def _hidden(
        self, tokens: torch.Tensor, rows: np.ndarray, lengths: list[int] | None,
        where: torch.Tensor | None, past: "_Fill | _Patch",
    ) -> torch.Tensor:  # fmt: skip
        own = None if lengths is None else [lengths[row] for row in rows]
        hidden = self.model.hidden(tokens[self._on(rows)], own, where, past)
        self.computed += hidden.shape[0] * hidden.shape[1]
        return hidden

    def _on(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(index).to(next(self.parameters()).device)


class KeysAndValues:
    """Slots for the keys and values of start states: two tensors (slots, L, heads, head) a layer."""

    def __init__(self, model: nn.Module, limit: int):
        self._model, self._limit = model, limit
        self.keys, self.values, self._laid_out = [], [], None

    def lay_out(self, length: int) -> None:
        """Make ready for sequences of ``length`` positions; what was kept of another length is dropped.

        ValueError if not even one has room.
        """
        weight = next(self._model.parameters())
        if self._laid_out == (length, weight.dtype, weight.device):
            return
        layers, heads, head = self._model.kv_shape
        one = 2 * layers * length * heads * head * weight.element_size()
        self.most = self._limit // one
        if not self.most:
            checks.fail("cache_bytes", self._limit, f"at least {one}, for one row of {length} positions")
        self._laid_out = (length, weight.dtype, weight.device)
        self.keys, self.values = ([weight.new_empty(0, length, heads, head)] * layers for _ in range(2))
        self._slot, self._key, self._used, self._clock = {}, [], np.zeros(0, int), 0

    def place(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slots of at most ``most`` distinct ``keys``, and which of them (bool) are filled already."""
        self._clock += 1
        slots = np.array([self._slot.get(key, -1) for key in keys.tolist()])
        known = slots >= 0
        self._used[slots[known]] = self._clock
        wanted = int((~known).sum())
        self._grow(wanted - int((self._used < self._clock - 1).sum()))
        oldest = np.argsort(self._used, kind="stable")[:wanted]
        for key, slot in zip(keys[~known].tolist(), oldest.tolist(), strict=True):
            self._slot.pop(self._key[slot], None)
            self._slot[key], self._key[slot] = slot, key
        slots[~known] = oldest
        self._used[oldest] = self._clock
        return slots, known

    def _grow(self, lacking: int) -> None:
        size = len(self._used)
        if lacking <= 0 or size == self.most:
            return
        more = min(self.most, max(size + lacking, size * 3 // 2)) - size
        for kept in (self.keys, self.values):
            for layer, tensor in enumerate(kept):  # one by one: the old and the new of all would not fit
                kept[layer] = torch.cat([tensor, tensor.new_empty(more, *tensor.shape[1:])])
        self._key += [None] * more
        self._used = np.concatenate([self._used, np.full(more, -1)])


class _Fill:
    """A forward over whole start states: keeps their keys and values in ``slots`` (B,)."""

    def __init__(self, kept: KeysAndValues, slots: torch.Tensor):
        self.kept, self.slots = kept, slots

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for kept, new in ((self.kept.keys, key), (self.kept.values, value)):
            kept[layer][self.slots] = new.transpose(1, 2).to(kept[layer].dtype)
        return key, value


class _Patch:
    """A forward over ``where`` (B, n): copies of what ``slots`` (B,) hold, with the new ones put in."""

    def __init__(self, kept: KeysAndValues, slots: torch.Tensor, where: torch.Tensor):
        self.kept, self.slots, self.where = kept, slots, where
        self.rows = torch.arange(len(where), device=where.device)[:, None]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        both = []
        for kept, new in ((self.kept.keys, key), (self.kept.values, value)):
            whole = kept[layer][self.slots]
            whole[self.rows, self.where] = new.transpose(1, 2).to(whole.dtype)
            both.append(whole.transpose(1, 2))
        return both[0], both[1]


def _take(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(B, W, width) of hidden (B, n, width) at ``positions`` (B, W)."""
    return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))


def _indices(chosen: torch.Tensor, width: int) -> torch.Tensor:
    """Long (B, width): where bool (B, L) is true, ascending, filled up with a row's first."""
    index = torch.argsort(~chosen, dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=chosen.device) < chosen.sum(1, keepdim=True)
    return torch.where(real, index, index[:, :1])


def _fingerprint(content: torch.Tensor) -> torch.Tensor:
    """Int64 (B,) of token ids (B, L), -1 where padded; the same however much padding there is."""
    source = torch.Generator().manual_seed(1)
    codes = torch.randint(-(2**63), 2**63 - 1, (content.shape[1],), generator=source)
    return ((content + 1) * codes.to(content.device)).sum(1)
