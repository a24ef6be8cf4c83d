"""9x9 puzzles with one solution, by bit masks and backtracking: compiled if numba is there, else plain.

Both run the same source on the same random numbers, so a seed is the same puzzle with and without
numba; with it, about 2,000 puzzles a second and core instead of about 50.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np

NODES = 20_000  # a search that takes more is given up, and the clue it was about stays


def carved(count: int, rng: np.random.Generator, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` puzzles and their solutions, int64 (count, 81), 0 = blank.

    low, high  clues that remain: drawn between them, more where no clue can go without a second
               solution appearing (or without a search of more than ``NODES`` nodes to exclude one)
    """
    solver, carver = _compiled()
    box = np.array if find_spec("numba") else list
    puzzles, answers = np.zeros((count, 81), int), np.zeros((count, 81), int)
    for row in range(count):
        found = 0
        while found != 1:
            grid = box([*(1 + rng.permutation(9)).tolist(), *[0] * 72])
            digits = rng.permuted(np.tile(np.arange(9), (81, 1)), axis=1)  # an order for each depth
            found = solver(grid, box(digits.ravel().tolist()), NODES)
        target, order = int(rng.integers(low, high + 1)), box(rng.permutation(81).tolist())
        answers[row] = grid
        puzzles[row] = carver(solver, grid, order, target, box(list(range(9)) * 81))
    return puzzles, answers


@cache
def _compiled() -> tuple[Callable, Callable]:
    """``solve`` and ``carve``: in the part of Python that numba compiles."""
    if not find_spec("numba"):
        return solve, carve
    from numba import njit

    return njit(solve), njit(carve)


def solve(cells, order, most):
    """1 and ``cells`` (81 digits, 0 = blank) filled in, 0 if there is no solution, -1 after ``most`` nodes.

    order  81 * 9 digits less one: which to try first at each depth
    """
    # 1) Digits left in the rows, columns and boxes, as bits.
    free = [511] * 27
    for cell in range(81):
        if cells[cell]:
            bit = 1 << (cells[cell] - 1)
            for unit in (cell // 9, 9 + cell % 9, 18 + cell // 27 * 3 + cell % 9 // 3):
                if not free[unit] & bit:
                    return 0
                free[unit] ^= bit
    blank = [cell for cell in range(81) if not cells[cell]]
    untried = [0] * 82
    depth, nodes, down = 0, 0, True
    while True:
        # 2) Down: take the blank with the fewest digits left. Up: back to the one before.
        if down:
            if depth == len(blank):
                return 1
            nodes += 1
            if nodes > most:
                return -1
            best, fewest = depth, 10
            for index in range(depth, len(blank)):
                r, c = blank[index] // 9, blank[index] % 9
                possible = free[r] & free[9 + c] & free[18 + r // 3 * 3 + c // 3]
                number, rest = 0, possible
                while rest:
                    rest &= rest - 1
                    number += 1
                if number < fewest:
                    best, fewest, untried[depth] = index, number, possible
                    if number < 2:
                        break
            blank[depth], blank[best] = blank[best], blank[depth]
        else:
            depth -= 1
            if depth < 0:
                return 0
        # 3) Its old digit out, the next one in.
        cell = blank[depth]
        units = (cell // 9, 9 + cell % 9, 18 + cell // 27 * 3 + cell % 9 // 3)
        if cells[cell]:
            for unit in units:
                free[unit] ^= 1 << (cells[cell] - 1)
            cells[cell] = 0
        down = untried[depth] > 0
        if down:
            index = 9 * depth
            while not untried[depth] >> order[index] & 1:
                index += 1
            cells[cell] = order[index] + 1
            untried[depth] ^= 1 << order[index]
            for unit in units:
                free[unit] ^= 1 << order[index]
            depth += 1


def carve(solver, answer, cells, target, order):
    """Take clues away in the order of ``cells`` while the solution stays the only one."""
    puzzle, left = answer.copy(), 81
    for cell in cells:
        if left <= target:
            break
        only = True
        for digit in range(1, 10):  # a second solution must differ here
            if digit != answer[cell] and only:
                other = puzzle.copy()
                other[cell] = digit
                only = solver(other, order, NODES) == 0
        if only:
            puzzle[cell] = 0
            left -= 1
    return puzzle
