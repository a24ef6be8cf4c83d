"""Is ``FusedMove`` right on this card? A few steps of a random search, beside ``TorchMove``."""

from dataclasses import fields, replace

import torch

from labkit.soar.beam_kernel import FusedMove
from labkit.soar.beams import Beams, Windows
from labkit.soar.moves import Move, TorchMove
from labkit.soar.prompts import lay_out
from labkit.soar.strategies import Rule
from sparse24 import selfcheck

PROMPTS, STEPS = 3, 5  # beams fill up in the first step and merge from the second on


def trusted(move: FusedMove) -> bool:
    """Whether the kernel for sizes like ``move``'s was compared and found right (sparse24.selfcheck)."""
    key = ("labkit.soar.beam_step", move.beams.tokens.device, *move.specialisation)
    return selfcheck.ok(key, lambda: compare(*random_case(move)), instead="labkit.soar.moves.TorchMove")


def random_case(move: Move) -> tuple[Beams, Rule, Windows, torch.Tensor, int | None]:
    """What a ``Move`` is made of: ``PROMPTS`` prompts of ``move``'s sizes, the number of masks random."""
    rule, windows, length = move.rule, move.windows, move.beams.tokens.shape[-1]
    device, most = windows.slots.device, windows.slots.shape[1]
    source = torch.Generator().manual_seed(length)  # leaves torch's own state alone
    count = torch.randint(max(1, most // 2), most + 1, (PROMPTS,), generator=source)
    count[0] = most
    rank = torch.rand(PROMPTS, length, generator=source).argsort(1).argsort(1)
    tokens = torch.where(rank < count[:, None], windows.mask_id, windows.mask_id + 1)
    slots = lay_out(tokens, windows.mask_id, gen_length=0).slots.to(device)
    if rule.steps is not None:
        spend = -(-min(windows.block_length, most) // rule.reach)
        rule = replace(rule, steps=torch.tensor([spend, spend + 1, spend], device=device))
    count = count.to(device)
    beams = Beams.start(tokens.to(device), count, rule.width, torch.arange(PROMPTS, device=device))
    windows = Windows(slots, count, windows.block_length, windows.mask_id)
    return beams, rule, windows, windows.ranks(length), move.eos_id


def compare(beams: Beams, rule: Rule, windows: Windows, ranks: torch.Tensor, eos_id: int | None) -> None:
    """AssertionError, naming step and field, where the kernel's beams differ from the reference's."""
    plain = TorchMove(beams.pick(torch.arange(PROMPTS, device=ranks.device)), rule, windows, ranks, eos_id)
    fused = FusedMove(beams, rule, windows, ranks, eos_id)
    source = torch.Generator().manual_seed(0)
    rows = torch.arange(PROMPTS * rule.width, device=ranks.device)
    answers = [windows.mask_id + 1, windows.mask_id + 2, windows.mask_id + 1 if eos_id is None else eos_id]
    shape = PROMPTS, 1, ranks.shape[1]
    # One answer a position: different orders of the same commits meet. Eighths: confidences tie.
    tokens = torch.tensor(answers)[torch.randint(3, shape, generator=source)].to(ranks.device)
    confidences = (torch.randint(1, 9, shape, generator=source) / 8).to(ranks.device)
    for step in range(STEPS):
        where = plain.where
        token = tokens.expand(-1, rule.width, -1).gather(2, where).flatten(0, 1)
        confidence = confidences.expand(-1, rule.width, -1).gather(2, where).flatten(0, 1)
        # No beam accelerates in the first step, half of them may later on.
        calm = torch.rand(len(rows), 1, generator=source).to(rows.device) < (0.5 if step else 2.0)
        confidence = torch.where(calm, confidence * rule.threshold, confidence)
        plain(rows, token, confidence)
        fused(rows, token, confidence)
        different = differences(plain, fused)
        assert not different, f"step {step + 1} differs in {', '.join(different)}"


def differences(plain: Move, fused: Move) -> list[str]:
    """Names of what differs between two moves where a beam exists, ``where`` and ``active`` included."""
    there = plain.beams.exists
    if not torch.equal(there, fused.beams.exists):
        return ["exists"]
    pairs = {f.name: [getattr(m.beams, f.name) for m in (plain, fused)] for f in fields(Beams)}
    pairs = {name: pair for name, pair in pairs.items() if name not in ("prompt", "exists")}
    pairs |= {"where": [plain.where, fused.where], "active": [plain.active, fused.active]}
    return [name for name, (one, other) in pairs.items() if not torch.equal(one[there], other[there])]
