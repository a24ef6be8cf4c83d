"""Training states and loss of masked diffusion language models that answer prompts.

A row is a prompt, ``answer_length`` slots with the answer, filled up with end-of-text tokens, and padding
that nobody sees. Prompts are never masked. Two kinds of states, drawn with a rate t each:

uniform  each slot masked with probability t (MDLM, arXiv 2406.07524; LLaDA, arXiv 2502.09992)
block    what block decoding sees: each slot of one block masked with probability t, all slots before it
         clean, all behind it masked; the loss counts that block's masks alone

The loss of a row, with M its counted masks and n the slots that t was applied to (all, or the block's), is

    L = 1/(t n) sum_{i in M} -log p(x_i | masked row)                                 (LLaDA, equation 5)

for t ~ U(0, 1) an upper bound on -log p(answer | prompt) / n under uniform states. Without the weight 1/t,
as the lab's own models are trained, it is the mean over all counted masks of a batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit import checks

LEAST_RATE = 1e-3  # smallest t: the weight of one mask is bounded


@dataclass(frozen=True)
class States:
    """Masked rows.

    inputs   long (B, L): the tokens, some replaced by the mask
    counted  bool (B, L): masks that the loss counts
    weight   float (B, 1): 1 / (t n), see above
    """

    inputs: Tensor
    counted: Tensor
    weight: Tensor


def spread_rates(count: int, source: torch.Generator, least: float = LEAST_RATE) -> Tensor:
    """Float (B, 1) of rates t ~ U(least, 1), spread evenly over a batch (MDLM's low-discrepancy draw)."""
    first = torch.rand(1, generator=source, device=source.device)
    t = (first + torch.arange(count, device=source.device) / count) % 1
    return (least + (1 - least) * t)[:, None]


def mask_answers(
    tokens: Tensor,
    start: Tensor,
    used: Tensor,
    answer_length: int,
    rate: Tensor,
    block: Tensor,
    mask_id: int,
    source: torch.Generator,
) -> States:
    """Draw a state of each row.

    Args:
        tokens: Long (B, L).
        start: Long (B,): where the answer begins.
        used: Long (B,): slots until the first end of text, that included, at least 1. Block decoding stops
            there, so blocks behind it are not drawn.
        answer_length: Slots of every row.
        rate: Float (B, 1), t.
        block: Long (B,): length of the row's blocks; 0: a uniform state.
        mask_id: The mask's token id.
        source: Of randomness, on the device of the tokens.
    """
    size = block.clamp(min=1)
    blocks = (used - 1).div(size, rounding_mode="floor") + 1
    chosen = torch.rand(len(tokens), generator=source, device=tokens.device)
    first = (chosen * blocks).long() * size
    whole = block == 0
    low = torch.where(whole, 0, first)[:, None]
    high = torch.where(whole, answer_length, (first + size).clamp(max=answer_length))[:, None]
    slot = torch.arange(tokens.shape[1], device=tokens.device) - start[:, None]
    struck = torch.rand(tokens.shape, generator=source, device=tokens.device) < rate
    counted = (slot >= low) & (slot < high) & struck
    hidden = counted | ((slot >= high) & (slot < answer_length))
    return States(torch.where(hidden, mask_id, tokens), counted, 1 / (rate * (high - low)))


def masked_loss(logits: Tensor, targets: Tensor, counted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Nats: mean over the counted masks, or with ``weight`` (B, 1) the mean over rows of L, see above.

    Logits (B, L, V), targets long (B, L), counted bool (B, L).
    """
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    nats = nats.view(targets.shape) * counted
    if weight is None:
        return nats.sum() / counted.sum().clamp(min=1)
    return (nats * weight).sum() / len(targets)


def block_lengths(count: int, lengths: tuple[int, ...], share: float, source: torch.Generator) -> Tensor:
    """Long (B,): of each row one of ``lengths``, or 0, a uniform state; ``share`` of the rows have blocks.

    ValueError if a length is not positive or the share not in [0, 1].
    """
    for length in lengths:
        checks.integer("block_lengths", length, 1)
    checks.number("block_share", share, 0, 1)
    if not lengths:
        return torch.zeros(count, dtype=torch.long, device=source.device)
    pick = torch.randint(len(lengths), (count,), generator=source, device=source.device)
    drawn = torch.tensor(lengths, device=source.device)[pick]
    blocked = torch.rand(count, generator=source, device=source.device) < share
    return torch.where(blocked, drawn, 0)
