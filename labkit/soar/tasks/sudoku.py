"""Sudoku as a task for masked diffusion: puzzles with one solution, made by numpy and a seed.

A puzzle is a row of side² cells, 0 for blank: the blanks are the masks a model fills in. 4x4 ones are made
here; 9x9 ones come with the lab (puzzle_sets), made by labkit.studies.soar.puzzles.
"""

from functools import cache
from itertools import permutations

import numpy as np

from labkit import checks

BLANK = 0
SEEN = 20  # of the 288 solved 4x4 grids: what "train" puzzles are cut from


def puzzles(
    count: int, *, seed: int = 0, clues: tuple[int, int] = (4, 6), grids: str = "all"
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` 4x4 puzzles with exactly one solution: int64 (count, 16) puzzles and solutions.

    clues  (low, high): each puzzle loses cells in random order until it has a number of clues drawn
           from this range, or until no cell can go without a second solution appearing
    grids  of the 288 solved grids "train" cuts puzzles from 20, "test" from the other 268, so no test
           solution was seen in training; or "all". A model taught from many more grids solves every
           4x4 puzzle, and then there is nothing to search

    ValueError names the argument that is out of range.
    """
    checks.integer("count", count, 1)
    checks.integer("seed", seed, 0)
    checks.choice("grids", grids, ("all", "train", "test"))
    low, high = clues
    checks.integer("clues", low, 4, high)
    checks.integer("clues", high, low, 15)
    rng = np.random.default_rng(seed)
    # Slices bound the memory of the comparison with all grids.
    parts = [_small(min(1000, count - start), rng, low, high, grids) for start in range(0, count, 1000)]
    return np.concatenate([p for p, _ in parts]), np.concatenate([s for _, s in parts])


def solved(sequences: np.ndarray, solutions: np.ndarray) -> np.ndarray:
    """Bool (N,): which filled-in boards equal their one solution."""
    return (np.asarray(sequences) == solutions).all(-1)


@cache
def _small_grids(grids: str) -> np.ndarray:
    """The solved 4x4 grids of "all" (288), "train" or "test", int64 (N, 16)."""
    rows = np.array(list(permutations(range(1, 5))))
    every = rows[np.indices((24,) * 4).reshape(4, -1).T]  # (24^4, 4, 4): no digit twice in a row
    every = every[(np.sort(every, axis=1) == np.arange(1, 5)[:, None]).all((1, 2))]
    boxes = every.reshape(-1, 2, 2, 2, 2).swapaxes(2, 3).reshape(-1, 4, 4)
    every = every[(np.sort(boxes, axis=2) == np.arange(1, 5)).all((1, 2))].reshape(-1, 16)
    order = np.random.default_rng(0).permutation(len(every))
    return every[{"all": order, "train": order[:SEEN], "test": order[SEEN:]}[grids]]


def _small(
    count: int, rng: np.random.Generator, low: int, high: int, grids: str
) -> tuple[np.ndarray, np.ndarray]:
    pool, every = _small_grids(grids), _small_grids("all")
    answer = pool[rng.integers(len(pool), size=count)]
    puzzle = answer.copy()
    target = rng.integers(low, high + 1, size=count)
    differ = every[None] != answer[:, None]
    against = differ.sum(-1)  # (count, 288) clues that contradict each grid
    order = rng.permuted(np.tile(np.arange(16), (count, 1)), axis=1)
    row = np.arange(count)
    for cell in order.T:
        without = against - differ[row, :, cell]
        go = ((without == 0).sum(1) == 1) & ((puzzle > 0).sum(1) > target)
        puzzle[row[go], cell[go]] = BLANK
        against = np.where(go[:, None], without, against)
    return puzzle, answer
