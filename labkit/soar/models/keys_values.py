"""Keys and values that a cache keeps, and what puts them into a model's attention."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from labkit import checks


class Past(Protocol):
    """What attention is given instead of a cache that only grows."""

    def update(self, key: Tensor, value: Tensor, layer: int, /) -> tuple[Tensor, Tensor]:
        """Take a layer's new keys and values (B, heads, n, head); return those to attend to."""


class KeysAndValues:
    """Slots for the keys and values of start states: two tensors (slots, L, heads, head) a layer.

    model  one with a ``kv_shape``
    codes  long (L,): random factors of the fingerprints that start states are found by
    """

    codes: Tensor

    def __init__(self, model: Any, limit: int):
        self._model, self._limit = model, limit
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._laid_out: tuple | None = None
        self._slot: dict[int, int] = {}  # of a fingerprint
        self._key: list[int | None] = []  # the fingerprint in a slot

    def lay_out(self, length: int) -> None:
        """Make ready for sequences of ``length`` positions; what was kept of another length is dropped.

        ValueError if not even one has room.
        """
        weight = next(self._model.parameters())
        wanted = (length, weight.dtype, weight.device)
        if self._laid_out == wanted:
            return
        layers, heads, head = self._model.kv_shape
        one = 2 * layers * length * heads * head * weight.element_size()
        self.most = self._limit // one
        if not self.most:
            checks.fail("cache_bytes", self._limit, f"at least {one}, for one row of {length} positions")
        self._laid_out = wanted
        self.keys, self.values = ([weight.new_empty(0, length, heads, head)] * layers for _ in range(2))
        source = torch.Generator().manual_seed(1)
        codes = torch.randint(-(2**63), 2**63 - 1, (length,), generator=source)
        self.codes = codes.to(weight.device)
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

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Slots of ``keys``, -1 where one is not kept; the next ``place`` takes others first."""
        slots = np.array([self._slot.get(key, -1) for key in keys.tolist()])
        self._used[slots[slots >= 0]] = self._clock  # as if used by the last ``place``
        return slots

    def forget(self) -> None:
        """Drop all that is kept, as after a forward that ended half-way."""
        self._laid_out = None

    def _grow(self, lacking: int) -> None:
        size = len(self._used)
        if lacking <= 0 or size == self.most:
            return
        more = min(self.most, max(size + lacking, size * 3 // 2)) - size
        for kept in (self.keys, self.values):
            for layer, tensor in enumerate(kept):  # one by one: the old and the new of all would not fit
                # Zeros, for NaN in padding would count: 0 * NaN is NaN.
                kept[layer] = torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])
        self._key += [None] * more
        self._used = np.concatenate([self._used, np.full(more, -1)])


class Fill:
    """A forward over whole start states (B, n), n <= L: keeps their keys and values in ``slots`` (B,)."""

    def __init__(self, kept: KeysAndValues, slots: Tensor):
        self.kept, self.slots = kept, slots

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        for kept, new in ((self.kept.keys, key), (self.kept.values, value)):
            kept[layer][self.slots, : new.shape[2]] = new.transpose(1, 2).to(kept[layer].dtype)
        return key, value


class Patch:
    """A forward over ``where`` (B, n): copies of what ``slots`` (B,) hold, with the new ones put in.

    length  how many positions of the slots: the longest row of the forward has no more
    """

    def __init__(self, kept: KeysAndValues, slots: Tensor, where: Tensor, length: int):
        self.kept, self.slots, self.where, self.length = kept, slots, where, length
        self.rows = torch.arange(len(where), device=where.device)[:, None]

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        both = []
        for kept, new in ((self.kept.keys, key), (self.kept.values, value)):
            whole = kept[layer][self.slots, : self.length]
            whole[self.rows, self.where] = new.transpose(1, 2).to(whole.dtype)
            both.append(whole.transpose(1, 2))
        return both[0], both[1]


class Extend(Patch):
    """A ``Patch`` of what ``parents`` (B,) hold, kept in ``slots`` with the new ones."""

    def __init__(self, kept: KeysAndValues, parents: Tensor, slots: Tensor, where: Tensor, length: int):
        super().__init__(kept, slots, where, length)
        for tensor in (*kept.keys, *kept.values):
            tensor[slots, :length] = tensor[parents, :length]

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        for kept, new in ((self.kept.keys, key), (self.kept.values, value)):
            kept[layer][self.slots[:, None], self.where] = new.transpose(1, 2).to(kept[layer].dtype)
        return super().update(key, value, layer)
