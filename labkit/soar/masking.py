"""Training states and loss of masked diffusion language models that answer prompts.

A row is a prompt and G slots for the answer, which end-of-text tokens fill up. Prompts are never masked.
Two kinds of states, drawn with a rate t each:

uniform  each slot masked with probability t (MDLM, arXiv 2406.07524; LLaDA, arXiv 2502.09992)
block    what ``decode`` sees of a text, block by block: each slot of one block masked with probability t,
         all slots before it clean, all behind it masked; the loss counts that block's masks alone. Once
         nothing before the end of the text is masked, decode fills what is behind it: such a row is
         clean, and nothing of it is counted

The loss of a row, with M its counted masks and n the slots that t was applied to (all, or the block's), is

    L = 1/(t n) sum_{i in M} -log p(x_i | masked row)                                 (LLaDA, equation 5)

Under uniform states and t ~ U(0, 1) its mean bounds -log p(answer | prompt) / G from above. Without the
weight 1/t, as the lab's own models are trained, the loss is the mean over all counted masks of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit import checks

LEAST_RATE = 1e-3  # smallest t: the weight of one mask is bounded


@dataclass(frozen=True)
class Draws:
    """The randomness of B states: numbers in [0, 1) where nothing else is said."""

    rate: Tensor  # float (B, 1): t
    block: Tensor  # long (B,): length of the row's blocks; 0: a uniform state
    chosen: Tensor  # float (B,): which of its blocks
    struck: Tensor  # float (B, G): a slot is masked where it is below t

    def part(self, index: int, parts: int) -> "Draws":
        """The draws of one of ``parts`` processes that share a batch."""
        return Draws(*(value.chunk(parts)[index] for value in vars(self).values()))

    def to(self, device: torch.device) -> "Draws":
        return Draws(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class States:
    """Masked answers."""

    inputs: Tensor  # long (B, G): the answers, some tokens replaced by the mask
    counted: Tensor  # bool (B, G): masks that the loss counts
    weight: Tensor  # float (B, 1): 1 / (t n), see above


def draw(
    count: int,
    slots: int,
    source: torch.Generator,
    *,
    block_lengths: Sequence[int],
    block_share: float,
    least_rate: float = LEAST_RATE,
) -> Draws:
    """Draws for ``count`` rows of ``slots`` on the device of ``source``.

    Rates are t ~ U(least_rate, 1), spread evenly over the batch (MDLM's low-discrepancy draw).
    ``block_share`` of the rows get a block state, each with one of ``block_lengths``.

    ValueError if a length is not in [1, slots] or the share not in [0, 1].
    """
    for length in block_lengths:
        checks.integer("block_lengths", length, 1, slots)
    checks.number("block_share", block_share, 0, 1)
    place: dict[str, Any] = {"generator": source, "device": source.device}
    even = (torch.rand(1, **place) + torch.arange(count, device=source.device) / count) % 1
    lengths = torch.tensor(block_lengths or [0], device=source.device)
    lengths = lengths[torch.randint(len(lengths), (count,), **place)]
    block = torch.where(torch.rand(count, **place) < block_share, lengths, 0)
    rate = (least_rate + (1 - least_rate) * even)[:, None]
    return Draws(rate, block, torch.rand(count, **place), torch.rand(count, slots, **place))


def mask_answers(
    answers: Tensor, used: Tensor, draws: Draws, mask_id: int, before: Tensor | int = 0
) -> States:
    """The states that ``draws`` make of answers, long (B, G).

    used    long (B,): slots until the first end of text, that included, at least 1. Block decoding stops
            there, so that blocks behind it are not chosen.
    before  long (B,): positions before the answer, where blocks are counted from the start of the row, as
            for a model whose attention is causal over them; 0: from the answer's first slot.
    """
    slots = answers.shape[1]
    whole, size = draws.block == 0, draws.block.clamp(min=1)
    offset = before % size  # of the answer's first block, its part in the prompt
    blocks = (offset + used - 1).div(size, rounding_mode="floor") + 1
    first = (draws.chosen * blocks).long() * size - offset
    low = torch.where(whole, 0, first.clamp(min=0))[:, None]
    high = torch.where(whole, slots, (first + size).clamp(max=slots))[:, None]
    slot = torch.arange(slots, device=answers.device)
    counted = (slot >= low) & (slot < high) & (draws.struck < draws.rate)
    masked = counted | (slot >= high)
    going_on = whole[:, None] | (masked & (slot < used[:, None])).any(1, keepdim=True)
    inputs = torch.where(masked & going_on, mask_id, answers)
    return States(inputs, counted & going_on, 1 / (draws.rate * (high - low)))


def masked_loss(logits: Tensor, targets: Tensor, counted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Nats: mean over the counted masks, or with ``weight`` (B, 1) the mean over rows of L, see above.

    Logits (B, L, V), targets long (B, L), counted bool (B, L).
    """
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    nats = nats.view(targets.shape) * counted
    if weight is None:
        return nats.sum() / counted.sum().clamp(min=1)
    return (nats * weight).sum() / len(targets)
