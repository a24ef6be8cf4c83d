"""Gumbel noise that is a function of its keys: drawn on the model's device, the same in any batch.

A generator's numbers depend on what was drawn before, so a batch would need one generator a prompt and a
loop over its rows on the host. Here a hash of (seed, prompt, draw, position) gives two 32-bit keys, and a
hash of keys and token id the number (counter-based, as Salmon et al. 2011: "as easy as 1, 2, 3").
"""

import hashlib
from collections import Counter

import numpy as np
import torch

from labkit.soar.prompts import Layout

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / the golden ratio, SplitMix64's step
LARGEST, SMALLEST = 1 - 2**-24, 2**-32  # of u, uniform in (0, 1), in fp32
# Numbers drawn in one go: a CPU's cache holds few, a GPU wants few calls.
AT_ONCE = {"cpu": 2**17, "gpu": 2**27}


class PromptNoise:
    """The noise of each prompt of ``layout``; its rows come in turn, in the order of the forward calls.

    A prompt is known by its text and by how often it came before in this batch. So neighbours in the
    batch never change a sample, and copies of one prompt are still different.
    """

    def __init__(self, layout: Layout, seed: int):
        seen: Counter[tuple[int, ...]] = Counter()
        roots = []
        for row, length in zip(layout.tokens.tolist(), layout.lengths, strict=True):
            key = tuple(row[:length])
            digest = hashlib.sha256(repr((seed, key, seen[key])).encode()).digest()
            seen[key] += 1
            roots.append(int.from_bytes(digest[:8], "big"))
        self._roots, self._draws = np.array(roots, np.uint64), np.zeros(len(roots), np.uint64)

    def __call__(self, prompt: np.ndarray, width: int, size: int, device: torch.device) -> torch.Tensor:
        """fp32 (R, width, size): for rows of ``prompt`` (R,), those of one prompt side by side."""
        every = np.arange(len(prompt))
        first = np.concatenate([[True], prompt[1:] != prompt[:-1]])
        nth = every - np.maximum.accumulate(np.where(first, every, 0))
        draw = self._draws[prompt] + nth.astype(np.uint64)
        self._draws += np.bincount(prompt, minlength=len(self._draws)).astype(np.uint64)
        row = _mixed(self._roots[prompt] + (draw + np.uint64(1)) * np.uint64(GOLDEN))
        key = _mixed(row[:, None] + np.arange(1, width + 1, dtype=np.uint64) * np.uint64(GOLDEN))
        keys = torch.from_numpy(key.view(np.int32).reshape(-1, 2)).to(device)
        return gumbel(keys, size).view(len(prompt), width, size)


def gumbel(keys: torch.Tensor, size: int) -> torch.Tensor:
    """Standard Gumbel numbers fp32 (N, size), a function of each row of ``keys`` int32 (N, 2) alone.

    From 31 random bits, so at most 22.2. The bits are the same on every device, the logarithms need not
    be to the last bit: CPU and GPU may differ where two tokens are that close.
    """
    found = torch.empty(len(keys), size, device=keys.device)
    piece = max(1, AT_ONCE["cpu" if keys.device.type == "cpu" else "gpu"] // size)
    for some, numbers in zip(keys.split(piece), found.split(piece), strict=True):
        _draw(some, numbers)
    return found


def _draw(keys: torch.Tensor, numbers: torch.Tensor) -> None:
    """``gumbel`` into fp32 ``numbers`` (N, size), in place throughout: memory is what takes the time."""
    token = torch.arange(numbers.shape[1], dtype=torch.int32, device=keys.device)
    bits = token * (GOLDEN >> 32) + keys[:, :1]  # int32 products wrap, as they should
    shifted = numbers.view(torch.int32)
    # The rounds of lowbias32 (Wellons), with shifts that keep the sign; the second key goes in between.
    _fold(bits, 16, shifted).mul_(0x7FEB352D).bitwise_xor_(keys[:, 1:])
    _fold(bits, 15, shifted).mul_(0x846CA68B - 2**32)
    numbers.copy_(_fold(bits, 16, shifted).bitwise_and_(2**31 - 1))
    # -log(1 - u) and not -log(u): large numbers come from small u, where fp32 is fine.
    numbers.mul_(-(2.0**-31)).clamp_(-LARGEST, -SMALLEST)
    numbers.log1p_().neg_().log_().neg_()


def _fold(bits: torch.Tensor, shift: int, out: torch.Tensor) -> torch.Tensor:
    return bits.bitwise_xor_(torch.bitwise_right_shift(bits, shift, out=out))


def _mixed(state: np.ndarray) -> np.ndarray:
    """SplitMix64's output function on uint64 (Steele, Lea and Flood 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return state ^ (state >> np.uint64(31))
