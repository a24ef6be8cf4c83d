"""The lab's shipped 9x9 puzzle sets, validation and test (``labkit.studies.soar.puzzles`` made them)."""

import numpy as np

from labkit import checks
from labkit.paths import CHECKPOINTS

SHIPPED = CHECKPOINTS / "sudoku9_puzzles.npz"
SIZES = {"validation": 4096, "test": 8192}


def load_puzzles(name: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(boards, solutions), int64 (N, 81), of the shipped "validation" or "test" set, or its first count.

    22 to 28 clues each. ValueError if there are fewer than ``count``.
    """
    checks.choice("name", name, tuple(SIZES))
    count = SIZES[name] if count is None else checks.integer("count", count, 1, SIZES[name])
    with np.load(SHIPPED, allow_pickle=False) as file:
        return unpack(file[f"{name}_digits"][:count], file[f"{name}_clues"][:count])


def unpack(digits: np.ndarray, clues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boards and solutions, int64 (N, 81), of what ``labkit.studies.soar.puzzles.pack`` packed.

    digits  uint8 (N, 32) of the 8x8 corner, two a byte: a ninth digit is the one that is missing
    clues   uint8 (N, 11) bits of where clues stand
    """
    corner = np.stack([digits & 15, digits >> 4], 2).reshape(-1, 8, 8).astype(int)
    eight = np.concatenate([corner, 45 - corner.sum(2, keepdims=True)], 2)
    answers = np.concatenate([eight, 45 - eight.sum(1, keepdims=True)], 1).reshape(-1, 81)
    given = np.unpackbits(clues, axis=1, count=81).astype(bool)
    return np.where(given, answers, 0), answers
