"""Prompts to one padded array, and which of its positions a search may fill."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch.nn.utils.rnn import pad_sequence

from labkit import checks

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
ALLOWED = "a LongTensor (P, L) or a list of non-empty lists of token ids >= 0, at least one prompt"


@dataclass(frozen=True)
class Layout:
    """P prompts laid out side by side, shorter ones padded on the right."""

    tokens: torch.Tensor  # long (P, L): prompt, then masks to fill (``gen_length`` > 0), then padding
    lengths: list[int]  # of P, positions without the padding
    prompt_length: list[int]  # of P, positions before the generated part (0 for infill)
    slots: torch.Tensor  # long (P, M): positions to fill, ascending; padded with 0 beyond ``count``
    count: torch.Tensor  # long (P,): how many positions each prompt has to fill


def lay_out(
    prompts: torch.Tensor | Sequence, mask_id: int, gen_length: int, vocab_size: int | None = None
) -> Layout:
    """Lay out prompts for generation (``gen_length`` > 0) or infill (0: the masks they contain).

    ValueError if prompts is empty, not integer, holds a negative id or one from ``vocab_size`` on, or
    holds ``mask_id`` although there is a part to generate (which masks belong to which block would be
    anyone's guess).
    """
    rows, lengths = _padded(prompts)
    inside = torch.arange(rows.shape[1]) < lengths[:, None]
    if vocab_size is not None:
        checks.integer("mask_id", mask_id, 0, vocab_size - 1)
        if (largest := int(rows.max())) >= vocab_size:
            checks.fail("prompts", f"token id {largest}", f"of token ids below the model's {vocab_size}")
    open_ = (rows == mask_id) & inside
    if gen_length and open_.any():
        raise ValueError(
            f"prompts must hold no mask_id={mask_id} when gen_length > 0; "
            "to fill the masks of a prompt pass gen_length=None"
        )
    prompt_length = lengths.tolist() if gen_length else [0] * len(rows)
    if gen_length:
        place = torch.arange(rows.shape[1] + gen_length)
        rows = torch.nn.functional.pad(rows, (0, gen_length))
        open_ = (place >= lengths[:, None]) & (place < lengths[:, None] + gen_length)
        rows = torch.where(open_, mask_id, rows)
        lengths = lengths + gen_length
    return Layout(rows, lengths.tolist(), prompt_length, *_ascending(open_))


def whole_blocks(layout: Layout, block_length: int, mask_id: int) -> tuple[torch.Tensor, ...]:
    """The blocks of ``block_length`` positions, counted from the start of a row, that hold masks to fill.

    Returns ``slots`` and ``count`` as a Layout has them, of all positions of these blocks, given ones
    included (the last block ends where the row does); and long (P, blocks), the masks in each of them.
    """
    prompts, length = layout.tokens.shape
    blocks = -(-length // block_length)
    tokens = torch.nn.functional.pad(layout.tokens, (0, blocks * block_length - length))
    inside = torch.arange(tokens.shape[1]) < torch.tensor(layout.lengths)[:, None]
    masks = ((tokens == mask_id) & inside).view(prompts, blocks, block_length).sum(-1)
    slots, count = _ascending((masks > 0).repeat_interleave(block_length, 1) & inside)
    index, number = _ascending(masks > 0)
    masks = masks.gather(1, index) * (torch.arange(index.shape[1]) < number[:, None])
    return slots, count, masks


def _ascending(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where bool (P, L) is true, long (P, M), ascending, padded with 0; and how often, long (P,)."""
    count = chosen.sum(1)
    most = max(1, int(count.max()))
    slots = torch.argsort(~chosen, dim=1, stable=True)[:, :most]
    return torch.where(torch.arange(most) < count[:, None], slots, 0), count


def _padded(prompts: torch.Tensor | Sequence) -> tuple[torch.Tensor, torch.Tensor]:
    """Long (P, L) on the host, padded with 0 on the right, and the lengths (P,)."""
    if isinstance(prompts, torch.Tensor):
        whole = prompts.ndim == 2 and prompts.dtype in INTEGERS
        if not whole or not prompts.numel() or prompts.min() < 0:
            given = f"{prompts.dtype} {tuple(prompts.shape)}" if not whole else "no or negative tokens"
            checks.fail("prompts", given, ALLOWED)
        return prompts.cpu().long(), torch.full((len(prompts),), prompts.shape[1])
    rows = [torch.tensor(row) for row in _as_lists(prompts)]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def _as_lists(prompts: Sequence) -> list[list[int]]:
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        checks.fail("prompts", type(prompts).__name__, ALLOWED)
    rows = []
    for row in prompts:
        if isinstance(row, torch.Tensor):
            row = row.tolist()
        tokens = isinstance(row, Sequence) and not isinstance(row, (str, bytes))
        if not tokens or any(isinstance(t, bool) or not isinstance(t, Integral) or t < 0 for t in row):
            checks.fail("prompts", row, ALLOWED)
        rows.append([int(token) for token in row])
    if not rows or not all(rows):
        checks.fail("prompts", "an empty prompt" if rows else "no prompt", ALLOWED)
    return rows
