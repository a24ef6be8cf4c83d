"""Prompts to one padded array, and which of its positions a search may fill."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch

from labkit import checks


@dataclass(frozen=True)
class Layout:
    """P prompts laid out side by side, shorter ones padded on the right.

    tokens         long (P, L): prompt, then masks to fill (``gen_length`` > 0), then padding
    lengths        P ints, positions without the padding
    prompt_length  P ints, positions before the generated part (0 for infill)
    slots          long (P, M): positions to fill, ascending; rows padded with 0 beyond ``count``
    count          long (P,): how many positions each prompt has to fill
    """

    tokens: torch.Tensor
    lengths: list[int]
    prompt_length: list[int]
    slots: torch.Tensor
    count: torch.Tensor


def lay_out(
    prompts: torch.Tensor | Sequence, mask_id: int, gen_length: int, vocab_size: int | None = None
) -> Layout:
    """Lay out prompts for generation (``gen_length`` > 0) or infill (0: the masks they contain).

    ValueError if prompts is empty, not integer, holds a negative id or one from ``vocab_size`` on, or
    holds ``mask_id`` although there is a part to generate (which masks belong to which block would be
    anyone's guess).
    """
    rows = _as_lists(prompts)
    if vocab_size is not None:
        checks.integer("mask_id", mask_id, 0, vocab_size - 1)
        if (largest := max(max(row) for row in rows)) >= vocab_size:
            checks.fail("prompts", f"token id {largest}", f"of token ids below the model's {vocab_size}")
    if gen_length and any(mask_id in row for row in rows):
        raise ValueError(
            f"prompts must hold no mask_id={mask_id} when gen_length > 0; "
            "to fill the masks of a prompt pass gen_length=None"
        )
    lengths = [len(row) + gen_length for row in rows]
    tokens = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    places = []
    for index, row in enumerate(rows):
        tokens[index, : lengths[index]] = torch.tensor(row + [mask_id] * gen_length)
        masked = [i for i, token in enumerate(row) if token == mask_id]
        places.append(masked if not gen_length else list(range(len(row), lengths[index])))
    slots = torch.zeros(len(rows), max(1, *map(len, places)), dtype=torch.long)
    for index, place in enumerate(places):
        slots[index, : len(place)] = torch.tensor(place, dtype=torch.long)
    prompt_length = [len(row) if gen_length else 0 for row in rows]
    return Layout(tokens, lengths, prompt_length, slots, torch.tensor([len(p) for p in places]))


def _as_lists(prompts: torch.Tensor | Sequence) -> list[list[int]]:
    allowed = "a LongTensor (P, L) or a list of non-empty lists of token ids >= 0, at least one prompt"
    if isinstance(prompts, torch.Tensor):
        if prompts.ndim != 2 or prompts.is_floating_point() or prompts.dtype == torch.bool:
            checks.fail("prompts", f"{prompts.dtype} {tuple(prompts.shape)}", allowed)
        prompts = prompts.tolist()
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        checks.fail("prompts", type(prompts).__name__, allowed)
    rows = []
    for row in prompts:
        if isinstance(row, torch.Tensor):
            row = row.tolist()
        if isinstance(row, (str, bytes)) or not isinstance(row, Sequence):
            checks.fail("prompts", row, allowed)
        if any(isinstance(t, bool) or not isinstance(t, Integral) or t < 0 for t in row):
            checks.fail("prompts", list(row), allowed)
        rows.append([int(token) for token in row])
    if not rows or not all(rows):
        checks.fail("prompts", "an empty prompt" if rows else "no prompt", allowed)
    return rows
