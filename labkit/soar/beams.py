"""The beams of a batch as tensors, and one step of selection: sort, merge, collapse, keep."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from labkit.soar.config import DecodeConfig
from labkit.soar.prediction import NEVER, Proposal, put
from labkit.soar.prompts import Layout, whole_blocks
from labkit.soar.strategies import Rule
from labkit.traces import KEPT, MERGED, PRUNED


@dataclass
class Beams:
    """A prompts of a batch with K slots each. Scores are kept as exact sums.

    The sum of up to 2^11 fp32 probabilities above 2^-17 is exact in fp64 in any order, so the two
    orders of committing the same tokens have the same score to the last bit.
    """

    prompt: Tensor  # (A,) int64 which prompt of the call
    tokens: Tensor  # (A, K, L) int64
    total: Tensor  # (A, K) fp64 sum of the confidences of the committed tokens
    committed: Tensor  # (A, K) int64 how many
    left: Tensor  # (A, K) int64 masks left
    block: Tensor  # (A, K) int64
    step: Tensor  # (A, K) int64 steps spent in this block
    parent: Tensor  # (A, K) int64 slot one step ago
    exists: Tensor  # (A, K) bool

    @classmethod
    def start(
        cls,
        tokens: Tensor,  # (P, L) int64
        count: Tensor,  # (P,) int64 masks to fill
        width: int,
        prompts: Tensor,  # (A,) int64
    ) -> "Beams":
        """One beam, nothing committed, for each of ``prompts``."""
        zero = torch.zeros(len(prompts), width, dtype=torch.long, device=tokens.device)
        return cls(
            prompt=prompts,
            tokens=tokens[prompts][:, None].repeat(1, width, 1),
            total=zero.double(),
            committed=zero.clone(),
            left=count[prompts][:, None].repeat(1, width),
            block=zero.clone(),
            step=zero.clone(),
            parent=zero - 1,
            exists=zero + torch.arange(width, device=zero.device) == 0,
        )

    @property
    def active(self) -> Tensor:
        """Bool (A, K): beams that still have masks, the only ones worth a forward."""
        return self.exists & (self.left > 0)

    def score(self, rule: Rule) -> Tensor:
        """fp64 (A, K): sum of the confidences, or their running mean."""
        return self.total / self.committed.clamp(min=1) if rule.mean else self.total

    def pick(self, index: Tensor) -> "Beams":
        """The prompts at ``index`` alone."""
        return Beams(**{spec.name: getattr(self, spec.name)[index] for spec in fields(self)})

    def put(self, index: Tensor, others: "Beams") -> None:
        """Put ``others`` in place of the prompts at ``index``."""
        for spec in fields(self):
            getattr(self, spec.name)[index] = getattr(others, spec.name)


@dataclass
class Windows:
    """Where each beam may commit: the positions to fill, in runs of ``block_length`` slots."""

    slots: Tensor  # (P, M) int64 positions to fill, ascending; with ``masks`` given ones between them too
    count: Tensor  # (P,) int64 how many of them
    block_length: int
    mask_id: int
    masks: Tensor | None = None  # (P, blocks) int64 what each block has to fill; None: all its slots

    @classmethod
    def of(cls, config: DecodeConfig, layout: Layout, device: torch.device, aligned: bool) -> "Windows":
        """``aligned``: blocks begin at multiples of ``block_length`` in a row, not at its first mask."""
        block_length = config.block_length or layout.slots.shape[1]
        mask_id, own = config.mask_id, (layout.slots, layout.count)
        parts = whole_blocks(layout, block_length, mask_id) if aligned else own
        slots, count, *masks = (part.to(device) for part in parts)
        return cls(slots, count, block_length, mask_id, *masks)

    def positions(self, beams: Beams) -> tuple[Tensor, Tensor]:
        """Positions (A, K, W) of each beam's own block, and bool (A, K, W): a mask stands there.

        A block with fewer slots than W repeats its first one.
        """
        width = min(self.block_length, self.slots.shape[1])
        first = beams.block[..., None] * self.block_length
        rank = first + torch.arange(width, device=self.slots.device)
        inside = rank < self.count[beams.prompt][:, None, None]
        slots = self.slots[beams.prompt][:, None].expand(-1, beams.block.shape[1], -1)
        where = slots.gather(2, torch.where(inside, rank, first))
        masked = inside & (beams.tokens.gather(2, where) == self.mask_id)
        return where, masked & beams.exists[..., None]

    def sizes(self, beams: Beams) -> Tensor:
        """Long (A, K): masks the beam's block had when the beam entered it."""
        if self.masks is not None:
            return self.masks[beams.prompt].gather(1, beams.block)
        count = self.count[beams.prompt][:, None]
        return (count - beams.block * self.block_length).clamp(max=self.block_length)

    def progress(self, beams: Beams) -> Tensor:
        """fp64 (A, K) in (0, 1]: the next step's number among as many as there are masks to fill."""
        count, before = self.count, beams.block * self.block_length
        if self.masks is not None:
            count, passed = self.masks.sum(-1), self.masks.cumsum(-1) - self.masks
            before = passed[beams.prompt].gather(1, beams.block)
        return (before + beams.step + 1).double() / count[beams.prompt][:, None]

    def ranks(self, length: int) -> Tensor:
        """Long (P, length): which slot a position is; -1: given by the prompt, or padding."""
        every = torch.arange(self.slots.shape[1], device=self.slots.device).expand_as(self.slots)
        none = every.new_full((len(every), length), -1)
        return put(none, every < self.count[:, None], self.slots, every).contiguous()

    def advance(self, beams: Beams) -> None:
        """Move beams whose block is full to the next one, never past the last."""
        if self.block_length >= self.slots.shape[1]:
            return
        last = (self.count[beams.prompt][:, None] - 1) // self.block_length
        full = ~self.positions(beams)[1].any(-1) & (beams.block < last)
        beams.block = beams.block + full
        beams.step = torch.where(full, 0, beams.step)


@dataclass
class Decision:
    """One step's candidates, C = K * K per prompt, best first, and what became of each."""

    parent: Tensor  # (A, C) int64 slot that proposed it
    positions: Tensor  # (A, C, D) int64, -1 where unused
    tokens: Tensor  # (A, C, D) int64, -1 where unused
    confidence: Tensor  # (A, C, D) fp32, NaN where unused
    score: Tensor  # (A, C) fp64, -inf where there is no such candidate
    fate: Tensor  # (A, C) int64 KEPT, MERGED or PRUNED
    child: Tensor  # (A, C) int64 slot in the next step, -1 if not kept


def fingerprint_codes(length: int, device: torch.device) -> Tensor:
    """Random integers (length,), always the same: a sequence's fingerprint is its dot product with them."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(-(2**63), 2**63 - 1, (length,), generator=source).to(device)


def select(
    beams: Beams,
    rule: Rule,
    proposal: Proposal,
    codes: Tensor,  # (L,) int64, see fingerprint_codes
) -> tuple[Beams, Decision]:
    """The next beams and how they were chosen.

    A finished beam competes as one candidate that commits nothing. Equal scores keep the order
    (slot, candidate); of equal sequences the first stays. Sequences are compared by 64-bit
    fingerprints: no (K * K)^2 * L comparison is needed.
    """
    prompts, width = beams.exists.shape
    # 1) Score and fingerprint (A, K, K) of every candidate.
    real = proposal.real
    gain = torch.where(real, rule.worth(proposal.confidence), 0.0)
    gained = real.sum(-1)
    if proposal.removed is not None:
        gain = torch.where(proposal.removed, -gain, gain)
        gained = gained - 2 * proposal.removed.sum(-1)
    valid = gained > 0
    valid[..., 0] |= beams.exists & (beams.left == 0)
    committed = beams.committed[..., None] + gained
    total = beams.total[..., None] + gain.sum(-1)
    score = torch.where(valid, total / committed.clamp(min=1) if rule.mean else total, NEVER)
    old = beams.tokens.gather(2, proposal.positions.flatten(2)).view(real.shape)
    change = torch.where(real, (proposal.tokens - old) * codes[proposal.positions], 0).sum(-1)
    fingerprint = (beams.tokens * codes).sum(-1)[..., None] + change

    # 2) Best first; of equal sequences the first stays.
    score, order = torch.sort(score.view(prompts, -1), dim=-1, descending=True, stable=True)
    valid = score > NEVER
    ordered = (item.view(prompts, -1).gather(1, order) for item in (committed, total, fingerprint))
    committed, total, fingerprint = ordered
    same = (fingerprint[:, :, None] == fingerprint[:, None, :]) & valid[:, None, :]
    merged = torch.tril(same, diagonal=-1).any(-1)

    # 3) Prune to K, or to one after an accelerate step that got far enough.
    rank = (valid & ~merged).long().cumsum(-1) - 1
    limit = torch.full_like(rank[:, :1], width)
    if rule.strategy == "soar":
        progress = committed[:, :1] - beams.committed[:, :1]
        limit = torch.where(proposal.accelerated[:, None] & (progress >= rule.collapse), 1, limit)
    kept = valid & ~merged & (rank < limit)

    def ranked(item: Tensor) -> Tensor:  # (A, K, K, D) -> (A, C, D)
        return torch.take_along_dim(item.flatten(1, 2), order[..., None], 1)

    real = ranked(real)
    decision = Decision(
        parent=order // width,
        positions=torch.where(real, ranked(proposal.positions), -1),
        tokens=torch.where(real, ranked(proposal.tokens), -1),
        confidence=torch.where(real, ranked(proposal.confidence), float("nan")),
        score=score,
        fate=torch.where(kept, KEPT, torch.where(merged, MERGED, PRUNED)),
        child=torch.where(kept, rank, -1),
    )
    return _children(beams, decision, total, committed), decision


def _children(
    beams: Beams,
    decision: Decision,
    total: Tensor,  # (A, C) fp64
    committed: Tensor,  # (A, C) int64
) -> Beams:
    prompts, width = beams.exists.shape
    # 1) Kept candidates to the front: slot ``child`` of the next step reads candidate ``source``.
    kept = decision.child >= 0
    slot = torch.where(kept, decision.child, width)
    every = torch.arange(kept.shape[1], device=kept.device).expand(prompts, -1)
    source = every.new_zeros(prompts, width + 1).scatter(1, slot, every)[:, :width]
    # 2) The parent's tokens and what the candidate commits.
    parent = decision.parent.gather(1, source)
    tokens = torch.take_along_dim(beams.tokens, parent[..., None], 1)
    positions = torch.take_along_dim(decision.positions, source[..., None], 1)
    new_tokens = torch.take_along_dim(decision.tokens, source[..., None], 1)
    committed = committed.gather(1, source)
    return Beams(
        prompt=beams.prompt,
        tokens=put(tokens, positions >= 0, positions, new_tokens),
        total=total.gather(1, source),
        committed=committed,
        left=beams.left.gather(1, parent) - (committed - beams.committed.gather(1, parent)),
        block=beams.block.gather(1, parent),
        step=beams.step.gather(1, parent) + 1,
        parent=parent,
        exists=torch.arange(width, device=kept.device) < kept.sum(-1, keepdim=True),
    )
