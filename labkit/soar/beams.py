"""The beams of a batch as tensors, and one step of selection: sort, merge, collapse, keep."""

from dataclasses import dataclass, fields

import torch

from labkit.soar.strategies import NEVER, Proposal, Rule
from labkit.traces import KEPT, MERGED, PRUNED


@dataclass
class Beams:
    """A active prompts with K slots each. Scores are kept as exact sums.

    The sum of up to 2^11 fp32 probabilities above 2^-17 is exact in fp64 in any order, so the two
    orders of committing the same tokens have the same score to the last bit.
    """

    prompt: torch.Tensor  # (A,) which prompt of the call
    tokens: torch.Tensor  # (A, K, L)
    total: torch.Tensor  # (A, K) fp64 sum of the confidences of the committed tokens
    committed: torch.Tensor  # (A, K) how many
    left: torch.Tensor  # (A, K) masks left
    block: torch.Tensor  # (A, K)
    step: torch.Tensor  # (A, K) steps spent in this block
    parent: torch.Tensor  # (A, K) slot one step ago
    exists: torch.Tensor  # (A, K) bool

    @classmethod
    def start(cls, tokens: torch.Tensor, count: torch.Tensor, width: int, prompts: torch.Tensor) -> "Beams":
        """One beam, nothing committed, for each of the ``prompts`` of tokens (P, L), count (P,)."""
        zero = torch.zeros(len(prompts), width, dtype=torch.long, device=tokens.device)
        exists = zero.bool()
        exists[:, 0] = True
        return cls(
            prompt=prompts,
            tokens=tokens[prompts][:, None].repeat(1, width, 1),
            total=zero.double(),
            committed=zero.clone(),
            left=count[prompts][:, None].repeat(1, width),
            block=zero.clone(),
            step=zero.clone(),
            parent=zero - 1,
            exists=exists,
        )

    @property
    def active(self) -> torch.Tensor:
        """Bool (A, K): rows that still have masks, the only ones worth a forward."""
        return self.exists & (self.left > 0)

    def score(self, rule: Rule) -> torch.Tensor:
        """fp64 (A, K): sum of the confidences, or their running mean."""
        return self.total / self.committed.clamp(min=1) if rule.mean else self.total

    def pick(self, index: torch.Tensor) -> "Beams":
        """The prompts at ``index`` alone."""
        return Beams(**{spec.name: getattr(self, spec.name)[index] for spec in fields(self)})

    def put(self, index: torch.Tensor, others: "Beams") -> None:
        """Put ``others`` in place of the prompts at ``index``."""
        for spec in fields(self):
            getattr(self, spec.name)[index] = getattr(others, spec.name)


@dataclass
class Windows:
    """Where each beam may commit: the positions to fill, in runs of ``block_length`` slots."""

    slots: torch.Tensor  # (P, M)
    count: torch.Tensor  # (P,)
    block_length: int
    mask_id: int

    def positions(self, beams: Beams) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (A, K, W) of each beam's own block, and bool (A, K, W): a mask is there.

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

    def sizes(self, beams: Beams) -> torch.Tensor:
        """Long (A, K): masks the beam's block had when the beam entered it."""
        count = self.count[beams.prompt][:, None]
        return (count - beams.block * self.block_length).clamp(max=self.block_length)

    def ranks(self, length: int) -> torch.Tensor:
        """Long (P, length): which slot a position is; -1: given by the prompt, or padding."""
        prompts, slots = self.slots.shape
        every = torch.arange(slots, device=self.slots.device).expand(prompts, -1)
        # An extra column takes what is no slot.
        where = torch.where(every < self.count[:, None], self.slots, length)
        found = torch.full((prompts, length + 1), -1, device=where.device).scatter(1, where, every)
        return found[:, :length].contiguous()

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

    parent: torch.Tensor  # (A, C) slot that proposed it
    positions: torch.Tensor  # (A, C, D), -1 where unused
    tokens: torch.Tensor  # (A, C, D), -1 where unused
    confidence: torch.Tensor  # (A, C, D) fp32, NaN where unused
    score: torch.Tensor  # (A, C), -inf where there is no such candidate
    fate: torch.Tensor  # (A, C)
    child: torch.Tensor  # (A, C) slot in the next step, -1 if not kept


def fingerprint_codes(length: int, device: torch.device) -> torch.Tensor:
    """Random integers (length,), always the same: a sequence's fingerprint is its dot product with them."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(-(2**63), 2**63 - 1, (length,), generator=source).to(device)


def select(beams: Beams, rule: Rule, proposal: Proposal, codes: torch.Tensor) -> tuple[Beams, Decision]:
    """The next beams and how they were chosen.

    A finished beam competes as one candidate that commits nothing. Equal scores keep the order
    (slot, candidate); of equal sequences the first stays. Sequences are compared by 64-bit
    fingerprints under ``codes`` (L,): no (K * K)^2 * L comparison is needed.
    """
    prompts, width = beams.exists.shape
    real = proposal.real
    gained = real.sum(-1)
    valid = gained > 0
    valid[..., 0] |= beams.exists & (beams.left == 0)
    committed = beams.committed[..., None] + gained
    total = beams.total[..., None] + torch.where(real, proposal.confidence.double(), 0.0).sum(-1)
    score = torch.where(valid, total / committed.clamp(min=1) if rule.mean else total, NEVER)
    before = beams.tokens.gather(2, proposal.positions.flatten(2)).view(real.shape)
    change = torch.where(real, (proposal.tokens - before) * codes[proposal.positions], 0).sum(-1)
    mark = (beams.tokens * codes).sum(-1)[..., None] + change

    score, order = torch.sort(score.view(prompts, -1), dim=-1, descending=True, stable=True)
    valid = score > NEVER
    mark = mark.view(prompts, -1).gather(1, order)
    same = (mark[:, :, None] == mark[:, None, :]) & valid[:, None, :]
    merged = torch.tril(same, diagonal=-1).any(-1)
    rank = (valid & ~merged).long().cumsum(-1) - 1
    parent = order // width
    committed = committed.view(prompts, -1).gather(1, order)
    limit = torch.full_like(rank[:, :1], width)
    if rule.strategy == "soar":
        progress = committed[:, :1] - beams.committed[:, :1]
        anyone = (proposal.together > 0).any(-1, keepdim=True)
        limit = torch.where(anyone & (progress >= rule.collapse), 1, limit)
    kept = valid & ~merged & (rank < limit)

    def spread(item: torch.Tensor) -> torch.Tensor:
        return torch.take_along_dim(item.flatten(1, 2), order[..., None], 1)

    real = spread(real)
    decision = Decision(
        parent=parent,
        positions=torch.where(real, spread(proposal.positions), -1),
        tokens=torch.where(real, spread(proposal.tokens), -1),
        confidence=torch.where(real, spread(proposal.confidence), float("nan")),
        score=score,
        fate=torch.where(kept, KEPT, torch.where(merged, MERGED, PRUNED)),
        child=torch.where(kept, rank, -1),
    )
    total = total.view(prompts, -1).gather(1, order)
    return _children(beams, decision, kept, total, committed), decision


def _children(
    beams: Beams, decision: Decision, kept: torch.Tensor, total: torch.Tensor, committed: torch.Tensor
) -> Beams:
    prompts, width = beams.exists.shape
    # Kept candidates to the front: slot ``child`` of the next step reads candidate ``source``.
    slot = torch.where(kept, decision.child, width)
    every = torch.arange(kept.shape[1], device=kept.device).expand(prompts, -1)
    source = every.new_zeros(prompts, width + 1).scatter(1, slot, every)[:, :width]
    parent = decision.parent.gather(1, source)
    length = beams.tokens.shape[2]
    tokens = torch.take_along_dim(beams.tokens, parent[..., None], 1)
    where = torch.take_along_dim(decision.positions, source[..., None], 1)
    what = torch.take_along_dim(decision.tokens, source[..., None], 1)
    # Unused entries go to an extra column that is then cut off.
    tokens = torch.nn.functional.pad(tokens, (0, 1))
    tokens = tokens.scatter(2, torch.where(where < 0, length, where), what)[..., :length]
    new = committed.gather(1, source)
    return Beams(
        prompt=beams.prompt,
        tokens=tokens,
        total=total.gather(1, source),
        committed=new,
        left=beams.left.gather(1, parent) - (new - beams.committed.gather(1, parent)),
        block=beams.block.gather(1, parent),
        step=beams.step.gather(1, parent) + 1,
        parent=parent,
        exists=torch.arange(width, device=kept.device) < kept.sum(-1, keepdim=True),
    )
