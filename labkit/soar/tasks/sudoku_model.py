"""The lab's own masked diffusion LM for Sudoku: a small bidirectional transformer over the cells."""

from dataclasses import dataclass

import torch
from torch import nn

from labkit import checks
from labkit.soar.models.transformer import MaskedLM, check_shape


@dataclass(frozen=True)
class SudokuConfig:
    """Shape of a SudokuLM. ``side`` 4 or 9; ``width`` is a multiple of ``heads``."""

    side: int = 4
    width: int = 48
    layers: int = 3
    heads: int = 4

    def __post_init__(self):
        checks.choice("side", self.side, (4, 9))
        check_shape(self)


class SudokuLM(MaskedLM):
    """Cells (B, side²) of 0 = mask, 1..side -> logits (B, side², side + 1) in fp32.

    A cell's embedding is digit + row + column + box: with one learned vector per position instead
    the model never finds the rules (measured on 9x9: 0 % solved after 3,400 steps).
    """

    Config = SudokuConfig
    row_of: torch.Tensor  # (side²,) int64 of each cell
    column_of: torch.Tensor
    box_of: torch.Tensor

    def __init__(self, config: SudokuConfig):
        side, width = config.side, config.width
        super().__init__(config)
        self.digit = nn.Embedding(side + 1, width)
        self.row, self.column, self.box = (nn.Parameter(0.3 * torch.randn(side, width)) for _ in range(3))
        cell, root = torch.arange(side**2), int(side**0.5)
        row, column = cell // side, cell % side
        places = {"row_of": row, "column_of": column, "box_of": row // root * root + column // root}
        for name, index in places.items():
            self.register_buffer(name, index, persistent=False)
        self._body(side + 1, side**2)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return (
            self.digit(tokens) + self.row[self.row_of] + self.column[self.column_of] + self.box[self.box_of]
        )
