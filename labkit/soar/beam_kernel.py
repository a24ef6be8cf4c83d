"""One step of every beam as one Triton kernel: what ``moves.TorchMove`` does in a hundred small ones.

A program is a prompt. It ranks the positions of each beam's block, forms the candidates, merges equal
sequences by their fingerprints, keeps the best, and writes the next beams into a second set of buffers.
"""

import torch
import triton
import triton.language as tl

from labkit.soar.beams import Beams, Windows
from labkit.soar.moves import Move
from labkit.soar.strategies import Rule

NEVER = tl.constexpr(float("-inf"))
MOST = 1 << 14  # numbers in the largest tile of a program
# How beams decide to commit together: by schedule, never, when sure, when sure and then one is kept.
KINDS = {"greedy": 0, "parallel": 0, "pbs": 1, "adaptive": 2, "soar": 3}


@triton.jit
def _at(columns, index, values):
    """values[index]: one entry of ``values`` (C,) for each of ``index`` (K,), 0 where it is negative."""
    return tl.sum(tl.where(columns[None, :] == index[:, None], values[None, :], 0), 1)


@triton.jit
def beam_step(
    tokens_ptr, total_ptr, committed_ptr, left_ptr, block_ptr, step_ptr, exists_ptr, prompt_ptr,
    row_ptr, said_ptr, sure_ptr, slots_ptr, count_ptr, rank_ptr, steps_ptr, codes_ptr,
    tokens_out, total_out, committed_out, left_out, block_out, step_out, exists_out, parent_out,
    where_out, active_out,
    L, M, W, block_length, mask_id, eos_id, threshold, min_parallel, collapse,
    KIND: tl.constexpr, STEPS: tl.constexpr, MEAN: tl.constexpr, EOS: tl.constexpr, K: tl.constexpr,
    REACH: tl.constexpr, KP: tl.constexpr, DP: tl.constexpr, WP: tl.constexpr, LP: tl.constexpr,
):  # fmt: skip
    """The next K beams of prompt ``program_id(0)``; see ``beams.select`` for what each line must give."""
    slot, w, d, l = tl.arange(0, KP), tl.arange(0, WP), tl.arange(0, DP), tl.arange(0, LP)
    here = tl.program_id(0).to(tl.int64) * K + slot
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

    # What the model says where a beam may commit; a beam that is shown NaN proposes nothing.
    rank = first[:, None] + w[None, :]
    inside = (exists & (row >= 0))[:, None] & (rank < count) & (w < W)[None, :]
    position = tl.load(slots_ptr + rank, inside, 0)
    masked = inside & (tl.load(tokens_ptr + here[:, None] * L + position, inside, -1) == mask_id)
    sure = tl.load(sure_ptr + row[:, None] * W + w[None, :], masked, NEVER)
    broken = tl.sum((sure != sure).to(tl.int32), 1) > 0
    sure = tl.where(broken[:, None], NEVER, sure)
    masks = tl.sum((sure > NEVER).to(tl.int64), 1)

    # How many tokens a beam commits together (Rule.together).
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
        above = tl.sum((sure > threshold).to(tl.int64), 1)
        together = tl.where(above >= min_parallel, tl.minimum(above, REACH), 0)
    accelerate = together > 0

    # The most confident positions, best first, the lower one among equals.
    best = tl.full((KP, DP), NEVER, tl.float32)
    at = tl.zeros((KP, DP), tl.int64)
    for i in range(K if K > REACH else REACH):
        highest = tl.max(sure, 1)
        lowest = tl.min(tl.where(sure == highest[:, None], w[None, :], WP - 1), 1)
        best = tl.where(d[None, :] == i, highest[:, None], best)
        at = tl.where(d[None, :] == i, lowest[:, None], at)
        sure = tl.where(w[None, :] == lowest[:, None], NEVER, sure)
    real = best > NEVER
    position = tl.load(slots_ptr + first[:, None] + at, real, 0)
    said = tl.load(said_ptr + row[:, None] * W + at, real, 0)
    change = tl.where(real, (said - mask_id) * tl.load(codes_ptr + position), 0)
    gain = tl.where(real, best.to(tl.float64), 0.0)

    # Candidates: column 0 of a beam that accelerates, else one column per position.
    alone = real & (d < K)[None, :] & ~accelerate[:, None]
    joint = real & (d[None, :] < together[:, None])
    zeroth = (d == 0)[None, :]
    number = tl.where(zeroth & accelerate[:, None], together[:, None], alone.to(tl.int64))
    gains, changes = tl.sum(tl.where(joint, gain, 0.0), 1), tl.sum(tl.where(joint, change, 0), 1)
    gain = tl.where(alone, gain, tl.where(zeroth, gains[:, None], 0.0))
    change = tl.where(alone, change, tl.where(zeroth, changes[:, None], 0))
    tile = tl.load(tokens_ptr + here[:, None] * L + l[None, :], k[:, None] & (l < L)[None, :], 0)
    mark = tl.sum(tile * tl.load(codes_ptr + l, l < L, 0)[None, :], 1)
    valid = (number > 0) | (zeroth & (exists & (left == 0))[:, None])
    c = tl.arange(0, KP * DP)
    total = tl.reshape(total[:, None] + gain, (KP * DP,))
    new = tl.reshape(committed[:, None] + number, (KP * DP,))
    mark = tl.reshape(mark[:, None] + change, (KP * DP,))
    valid = tl.reshape(valid.to(tl.int32), (KP * DP,)) > 0
    at = tl.reshape(at, (KP * DP,))
    score = total
    if MEAN:
        score = total / tl.maximum(new, 1).to(tl.float64)

    # Sort by counting who is ahead; equal scores keep their order, of equal sequences the first stays.
    tied = (score[None, :] == score[:, None]) & (c[None, :] < c[:, None])
    ahead = ((score[None, :] > score[:, None]) | tied) & valid[None, :]
    merged = tl.sum((ahead & (mark[None, :] == mark[:, None])).to(tl.int32), 1) > 0
    stays = valid & ~merged
    order = tl.sum((ahead & stays[None, :]).to(tl.int32), 1)
    most = K
    if KIND == 3:  # one stays where a beam accelerated and the best candidate got on
        best_of_all = valid & (tl.sum(ahead.to(tl.int32), 1) == 0)
        began = tl.load(committed_ptr + tl.program_id(0).to(tl.int64) * K)
        progress = tl.sum(tl.where(best_of_all, new, 0), 0) - began
        hurried = tl.sum(accelerate.to(tl.int32), 0) > 0
        most = tl.where(hurried & (progress >= collapse), 1, K)
    stays = stays & (order < most)

    # Child ``slot`` is the candidate of that order.
    alive = slot < tl.sum(stays.to(tl.int32), 0)
    source = tl.sum(tl.where(stays[None, :] & (order[None, :] == slot[:, None]), c[None, :], 0), 1)
    parent, column = source // DP, source % DP
    above = tl.program_id(0).to(tl.int64) * K + parent
    row = tl.load(row_ptr + above, alive, 0)
    block = tl.load(block_ptr + above, alive, 0)
    committed = _at(c, source, new)
    number = committed - tl.load(committed_ptr + above, alive, 0)
    left = tl.load(left_ptr + above, alive, 0) - number
    step = tl.load(step_ptr + above, alive, 0) + 1
    many = _at(slot, parent, together)
    # Where none is alive the masks stay, so that the search can tell that nothing could fill them.
    tile = tl.load(tokens_ptr + above[:, None] * L + l[None, :], k[:, None] & (l < L)[None, :], 0)
    for i in range(REACH):
        taken = alive & tl.where(many > 0, i < many, (i == 0) & (number > 0))
        index = _at(c, parent * DP + tl.where(many > 0, i, column), at)
        spot = tl.load(slots_ptr + block * block_length + index, taken, 0)
        word = tl.load(said_ptr + row * W + index, taken, 0)
        tile = tl.where(taken[:, None] & (l[None, :] == spot[:, None]), word[:, None], tile)

    # Masks behind an EOS become EOS once nothing before it is masked; full blocks give way to the next.
    rank = tl.load(rank_ptr + prompt * L + l, l < L, -1)
    open_ = alive[:, None] & (rank >= 0)[None, :]
    masked = open_ & (tile == mask_id)
    if EOS:
        until = tl.min(tl.where(masked, l[None, :], LP), 1)
        stop = open_ & (tile == eos_id) & (l[None, :] < until[:, None])
        behind = masked & (tl.sum(stop.to(tl.int32), 1) > 0)[:, None]
        tile = tl.where(behind, eos_id, tile)
        left -= tl.sum(behind.to(tl.int64), 1)
        masked = masked & ~behind
    waits = tl.sum((masked & ((rank // block_length)[None, :] == block[:, None])).to(tl.int32), 1) > 0
    full = alive & ~waits & (block < (count - 1) // block_length)
    block = tl.where(full, block + 1, block)

    tl.store(tokens_out + here[:, None] * L + l[None, :], tile, k[:, None] & (l < L)[None, :])
    tl.store(total_out + here, _at(c, source, total), k)
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

    def __init__(self, *given: object):
        super().__init__(*given)
        beams, rule, windows = self.beams, self._rule, self._windows
        width, length = beams.tokens.shape[1:]
        slots = windows.slots.shape[1]
        self._sizes = length, slots, min(windows.block_length, slots)
        self._tiles = _tiles(width, rule.reach, self._sizes[2], length)
        self._next = beams.pick(torch.arange(len(beams.prompt), device=beams.prompt.device))
        self.where, self.active = windows.positions(beams)[0].contiguous(), beams.active
        self._steps = windows.count if rule.steps is None else rule.steps  # unread without STEPS

    @staticmethod
    def suits(beams: Beams, rule: Rule, windows: Windows) -> bool:
        """Whether the tiles of one program stay small enough for its registers."""
        width, length = beams.tokens.shape[1:]
        span = min(windows.block_length, windows.slots.shape[1])
        beam, depth, window, line = _tiles(width, rule.reach, span, length)
        return max((beam * depth) ** 2, beam * window, beam * line) <= MOST

    def put(self, index: torch.Tensor, others: Beams) -> None:
        super().put(index, others)
        self._next.prompt[index] = others.prompt  # a step does not write it
        self.where.copy_(self._windows.positions(self.beams)[0])

    def __call__(self, rows: torch.Tensor, token: torch.Tensor, confidence: torch.Tensor) -> None:
        old, new, rule = self.beams, self._next, self._rule
        order = ("tokens", "total", "committed", "left", "block", "step", "exists")
        beam, depth, window, line = self._tiles
        beam_step[(len(old.prompt),)](
            *(getattr(old, name) for name in order), old.prompt, rows, token, confidence,
            self._windows.slots, self._windows.count, self._ranks, self._steps, self._codes,
            *(getattr(new, name) for name in (*order, "parent")), self.where, self.active,
            *self._sizes, self._windows.block_length, self._windows.mask_id,
            -1 if self._eos is None else self._eos, rule.threshold, rule.min_parallel, rule.collapse,
            KIND=KINDS[rule.strategy], STEPS=rule.steps is not None, MEAN=rule.mean,
            EOS=self._eos is not None, K=rule.width, REACH=rule.reach,
            KP=beam, DP=depth, WP=window, LP=line,
        )  # fmt: skip
        self.beams, self._next = new, old


def _tiles(width: int, reach: int, window: int, length: int) -> tuple[int, int, int, int]:
    """Powers of two that hold the beams, the candidates of a beam, its window, the sequence."""
    return tuple(
        max(2, triton.next_power_of_2(size)) for size in (width, max(width, reach), window, length)
    )
