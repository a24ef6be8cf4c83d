"""One step of every beam as one Triton kernel: what ``moves.TorchMove`` does in a hundred small ones.

A program is a prompt. It ranks the positions of each beam's block, forms the candidates, takes the best in
turn while dropping equal sequences by their fingerprints, and writes the next beams into other buffers.

No tile is reshaped: Triton 3.6 and 3.7 reduce a reshaped tile over the wrong threads when its rows left
lanes unused (tests/test_soar_beam_kernel.py holds the smallest kernel that shows it). Candidates stay
(KP, DP) tiles, beam by column.
"""

import torch
import triton
import triton.language as tl

from labkit.soar.beams import Beams, Windows
from labkit.soar.moves import Move
from labkit.soar.strategies import Rule

NEVER = tl.constexpr(float("-inf"))
LEAST = tl.constexpr(-(2**63))
MOST = 1 << 14  # numbers in the largest tile of a program, candidates (many tiles of them) counted 16 times
# How beams commit together: by schedule, never, when confident, when confident and then one stays.
KINDS = {"greedy": 0, "parallel": 0, "pbs": 1, "adaptive": 2, "soar": 3}


@triton.jit
def _pick(values, index, slot):
    """values[index] of non-negative ``values`` (KP,) for each of ``index`` (KP,)."""
    return tl.max(tl.where(slot[None, :] == index[:, None], values[None, :], 0), 1)


@triton.jit
def _highest(values):  # of a whole tile
    return tl.max(tl.max(values, 1), 0)


@triton.jit
def beam_step(
    tokens_ptr, total_ptr, committed_ptr, left_ptr, block_ptr, step_ptr, exists_ptr, prompt_ptr,
    row_ptr, token_ptr, confidence_ptr, slots_ptr, count_ptr, rank_ptr, steps_ptr, codes_ptr,
    tokens_out, total_out, committed_out, left_out, block_out, step_out, exists_out, parent_out,
    where_out, active_out,
    L, M, W, block_length, mask_id, eos_id, threshold, min_parallel, collapse,
    KIND: tl.constexpr, STEPS: tl.constexpr, MEAN: tl.constexpr, EOS: tl.constexpr, K: tl.constexpr,
    REACH: tl.constexpr, KP: tl.constexpr, DP: tl.constexpr, WP: tl.constexpr, LP: tl.constexpr,
):  # fmt: skip
    """The next K beams of prompt ``program_id(0)``; see ``beams.select`` for what each must be."""
    DEPTH: tl.constexpr = K if K > REACH else REACH
    slot, w, d, l = tl.arange(0, KP), tl.arange(0, WP), tl.arange(0, DP), tl.arange(0, LP)
    base = tl.program_id(0).to(tl.int64) * K
    here = base + slot
    k = slot < K
    prompt = tl.load(prompt_ptr + tl.program_id(0))
    count = tl.load(count_ptr + prompt)
    exists = tl.load(exists_ptr + here, k, 0) != 0
    left = tl.load(left_ptr + here, k, 0)
    committed = tl.load(committed_ptr + here, k, 0)
    total = tl.load(total_ptr + here, k, 0.0)
    row = tl.load(row_ptr + here, k, -1)
    first = tl.load(block_ptr + here, k, 0) * block_length
    slots_ptr += prompt * M

    # 1) What the model predicts where a beam may commit (KP, WP); a beam shown NaN proposes nothing.
    rank = first[:, None] + w[None, :]
    inside = (exists & (row >= 0))[:, None] & (rank < count) & (w < W)[None, :]
    position = tl.load(slots_ptr + rank, inside, 0)
    masked = inside & (tl.load(tokens_ptr + here[:, None] * L + position, inside, -1) == mask_id)
    confidence = tl.load(confidence_ptr + row[:, None] * W + w[None, :], masked, NEVER)
    broken = tl.max((confidence != confidence).to(tl.int32), 1) > 0
    confidence = tl.where(broken[:, None], NEVER, confidence)
    masks = tl.sum((confidence > NEVER).to(tl.int64), 1)

    # 2) How many tokens a beam commits together (Rule.num_transfer_tokens).
    together = tl.zeros_like(masks)
    if KIND == 0:
        quota = tl.minimum(masks, REACH)
        if STEPS:
            spend = tl.load(steps_ptr + prompt)
            size = tl.minimum(count - first, block_length)
            spent = tl.load(step_ptr + here, k, 0)
            quota = tl.minimum(size // spend + (spent < size % spend).to(tl.int64), masks)
        together = tl.where(quota > 1, quota, 0)
    if KIND >= 2:
        num_confident = tl.sum((confidence > threshold).to(tl.int64), 1)
        together = tl.where(num_confident >= min_parallel, tl.minimum(num_confident, REACH), 0)
    accelerate = together > 0

    # 3) The most confident positions of each beam (KP, DP), best first, the lower one among equals.
    best = tl.full((KP, DP), NEVER, tl.float32)
    at = tl.zeros((KP, DP), tl.int32)
    for i in range(DEPTH):
        highest = tl.max(confidence, 1)
        lowest = tl.min(tl.where(confidence == highest[:, None], w[None, :], WP - 1), 1)
        best = tl.where(d[None, :] == i, highest[:, None], best)
        at = tl.where(d[None, :] == i, lowest[:, None], at)
        confidence = tl.where(w[None, :] == lowest[:, None], NEVER, confidence)
    real = best > NEVER
    position = tl.load(slots_ptr + first[:, None] + at, real, 0)
    predicted = tl.load(token_ptr + row[:, None] * W + at, real, 0)
    change = tl.where(real, (predicted - mask_id) * tl.load(codes_ptr + position), 0)
    gain = tl.where(real, best.to(tl.float64), 0.0)

    # 4) Candidates (KP, DP): column 0 of a beam that accelerates, else one column per position.
    alone = real & (d < K)[None, :] & ~accelerate[:, None]
    joint = real & (d[None, :] < together[:, None])
    zeroth = (d == 0)[None, :]
    number = tl.where(zeroth & accelerate[:, None], together[:, None], alone.to(tl.int64))
    gains, changes = tl.sum(tl.where(joint, gain, 0.0), 1), tl.sum(tl.where(joint, change, 0), 1)
    gain = tl.where(alone, gain, tl.where(zeroth, gains[:, None], 0.0))
    change = tl.where(alone, change, tl.where(zeroth, changes[:, None], 0))
    tile = tl.load(tokens_ptr + here[:, None] * L + l[None, :], k[:, None] & (l < L)[None, :], 0)
    fingerprint = tl.sum(tile * tl.load(codes_ptr + l, l < L, 0)[None, :], 1)[:, None] + change
    valid = (number > 0) | (zeroth & (exists & (left == 0))[:, None])
    score = total[:, None] + gain
    if MEAN:
        score = score / tl.maximum(committed[:, None] + number, 1).to(tl.float64)
    score = tl.where(valid, score, NEVER)

    # 5) The best candidate left, the first among equals, is the next child; its equals go with it.
    c = slot[:, None] * DP + d[None, :]
    source = tl.full((KP,), -1, tl.int32)
    for child in range(K):
        highest = _highest(score)
        chosen = -_highest(tl.where(score == highest, -c, -KP * DP))
        same = _highest(tl.where(c == chosen, fingerprint, LEAST))
        source = tl.where(slot == child, tl.where(highest > NEVER, chosen, -1), source)
        score = tl.where((c == chosen) | (fingerprint == same), NEVER, score)
    alive = source >= 0
    parent, column = tl.where(alive, source // DP, 0), source % DP
    parent_row = base + parent
    together = _pick(together, parent, slot)
    left = tl.load(left_ptr + parent_row, alive, 0)
    number = tl.where(together > 0, together, (left > 0).to(tl.int64))
    committed = tl.load(committed_ptr + parent_row, alive, 0) + number
    if KIND == 3:  # one stays where a beam accelerated and the best candidate got on
        progress = tl.max(tl.where(alive & (slot == 0), committed, 0), 0) - tl.load(committed_ptr + base)
        accelerated = tl.max(accelerate.to(tl.int32), 0) > 0
        alive = alive & (slot < tl.where(accelerated & (progress >= collapse), 1, K))

    # 6) Children: the parent's tokens and what they commit.
    row = tl.load(row_ptr + parent_row, alive, 0)
    block = tl.load(block_ptr + parent_row, alive, 0)
    step = tl.load(step_ptr + parent_row, alive, 0) + 1
    left -= number
    gain = _pick(gains, parent, slot)
    # Where none is alive the masks stay, so that the search can tell that nothing could fill them.
    tile = tl.load(tokens_ptr + parent_row[:, None] * L + l[None, :], k[:, None] & (l < L)[None, :], 0)
    for i in range(DEPTH):
        taken = alive & tl.where(together > 0, i < together, (i == column) & (number > 0))
        index = _pick(tl.max(tl.where(d[None, :] == i, at, 0), 1), parent, slot)
        place = row * W + index
        spot = tl.load(slots_ptr + block * block_length + index, taken, 0)
        token = tl.load(token_ptr + place, taken, 0)
        alone_gain = tl.load(confidence_ptr + place, taken & (together == 0), 0.0)
        gain = tl.where(taken & (together == 0), alone_gain.to(tl.float64), gain)
        tile = tl.where(taken[:, None] & (l[None, :] == spot[:, None]), token[:, None], tile)
    total = tl.load(total_ptr + parent_row, alive, 0.0) + gain

    # 7) An EOS before the first mask fills the masks behind it; full blocks give way to the next.
    rank = tl.load(rank_ptr + prompt * L + l, l < L, -1)
    open_ = alive[:, None] & (rank >= 0)[None, :]
    masked = open_ & (tile == mask_id)
    if EOS:
        until = tl.min(tl.where(masked, l[None, :], LP), 1)
        stop = open_ & (tile == eos_id) & (l[None, :] < until[:, None])
        stopped = tl.max(stop.to(tl.int32), 1) > 0
        tile = tl.where(masked & stopped[:, None], eos_id, tile)
        left = tl.where(stopped, 0, left)
        masked = masked & ~stopped[:, None]
    in_block = (rank // block_length)[None, :] == block[:, None]
    has_masks = tl.max((masked & in_block).to(tl.int32), 1) > 0
    full = alive & ~has_masks & (block < (count - 1) // block_length)
    block = tl.where(full, block + 1, block)

    # 8) Where none is alive nothing but ``exists`` and the tokens is read.
    tl.store(tokens_out + here[:, None] * L + l[None, :], tile, k[:, None] & (l < L)[None, :])
    tl.store(total_out + here, total, k)
    tl.store(committed_out + here, committed, k)
    tl.store(left_out + here, left, k)
    tl.store(block_out + here, block, k)
    tl.store(step_out + here, tl.where(full, 0, step), k)
    tl.store(parent_out + here, parent, k)
    tl.store(exists_out + here, alive, k)
    tl.store(active_out + here, alive & (left > 0), k)
    first = block * block_length
    rank = first[:, None] + w[None, :]
    position = tl.load(slots_ptr + tl.where(rank < count, rank, first[:, None]))
    tl.store(where_out + here[:, None] * W + w[None, :], position, k[:, None] & (w < W)[None, :])


class FusedMove(Move):
    """``moves.Move`` by ``beam_step``: two sets of beams that take turns. Ask ``suits`` first."""

    compacts = False  # a finished prompt costs nothing and may stay until its place is wanted
    num_warps = 4  # no result depends on it; 4 was the fastest of 1, 2, 4, 8 on an H100 at most sizes

    def __init__(self, *given: object):
        super().__init__(*given)
        beams, rule, windows = self.beams, self.rule, self.windows
        width, length = beams.tokens.shape[1:]
        slots = windows.slots.shape[1]
        span = min(windows.block_length, slots)
        eos = -1 if self.eos_id is None else self.eos_id
        self._numbers = (length, slots, span, windows.block_length, windows.mask_id, eos,
                         rule.threshold, rule.min_parallel, rule.collapse)  # fmt: skip
        tiles = zip(("KP", "DP", "WP", "LP"), _tiles(width, rule.reach, span, length), strict=True)
        self._constants = {
            "KIND": KINDS[rule.strategy], "STEPS": rule.steps is not None, "MEAN": rule.mean,
            "EOS": self.eos_id is not None, "K": width, "REACH": rule.reach, **dict(tiles),
        }  # fmt: skip
        self._next = beams.pick(torch.arange(len(beams.prompt), device=beams.prompt.device))
        self.where, self.active = windows.positions(beams)[0].contiguous(), beams.active
        self._steps = windows.count if rule.steps is None else rule.steps  # unread without STEPS

    @staticmethod
    def suits(beams: Beams, rule: Rule, windows: Windows) -> bool:
        """Whether the tiles of one program stay small enough for its registers."""
        width, length = beams.tokens.shape[1:]
        span = min(windows.block_length, windows.slots.shape[1])
        beam, depth, window, line = _tiles(width, rule.reach, span, length)
        return beam * max(16 * depth, window, line) <= MOST

    @property
    def specialisation(self) -> tuple:
        """All that selects the compiled code: constants, what Triton reads off integers, warps."""
        integers = [n for n in self._numbers if isinstance(n, int)]
        seen = tuple("1" if n == 1 else "16" if n % 16 == 0 else "n" for n in integers)
        return *self._constants.items(), seen, self.num_warps

    def put(self, index: torch.Tensor, others: Beams) -> None:
        super().put(index, others)
        self._next.prompt[index] = others.prompt  # a step does not write it
        self.where.copy_(self.windows.positions(self.beams)[0])

    def __call__(self, rows: torch.Tensor, token: torch.Tensor, confidence: torch.Tensor) -> None:
        old, new = self.beams, self._next
        order = ("tokens", "total", "committed", "left", "block", "step", "exists")
        beam_step[(len(old.prompt),)](
            *(getattr(old, name) for name in order), old.prompt, rows, token, confidence,
            self.windows.slots, self.windows.count, self._ranks, self._steps, self._codes,
            *(getattr(new, name) for name in (*order, "parent")), self.where, self.active,
            *self._numbers, **self._constants, num_warps=self.num_warps,
        )  # fmt: skip
        self.beams, self._next = new, old


def _tiles(width: int, reach: int, window: int, length: int) -> tuple[int, int, int, int]:
    """Powers of two that hold the beams, the candidates of a beam, its window, the sequence."""
    sizes = width, max(width, reach), window, length
    return tuple(max(2, triton.next_power_of_2(size)) for size in sizes)
