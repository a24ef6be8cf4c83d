"""Make the lab's 9x9 puzzle sets: training, validation and test; no two share a grid up to symmetry.

Run as a command, it makes all three by their seeds: validation and test are shipped, training is kept
under runs/cache (minutes with numba, see carve.py). What it takes:

python -m labkit.studies.soar.puzzles [--train 100000] [--workers 2]
"""

import argparse
import multiprocessing
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from labkit import checks
from labkit.paths import cache_dir, write_atomic
from labkit.progress import bar
from labkit.reading import read_npz
from labkit.soar.tasks.puzzle_sets import SHIPPED, SIZES, load_puzzles, unpack
from labkit.studies.soar.carve import carved

CLUES = {"train": (22, 34), "validation": (22, 28), "test": (22, 28)}
SEEDS = {"train": 1, "validation": 2, "test": 3}
SLICE = 1000  # puzzles per seed: the sets do not depend on the number of workers


def training_puzzles(count: int, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(boards, solutions) of ``count`` training puzzles, made once and kept under runs/cache.

    Those whose grid a validation or test grid could be turned into by symmetry are left out.
    """
    file = cache_dir("sudoku") / f"train9_{count}.npz"
    if not file.exists():
        boards, answers = generate("train", count, workers)
        held = [load_puzzles(name)[1] for name in SIZES]
        fresh = ~np.isin(symmetry_class(answers), symmetry_class(np.concatenate(held)))
        _write(file, {"train": (boards[fresh], answers[fresh])})
    kept = read_npz(file, "cache")
    return unpack(kept["train_digits"], kept["train_clues"])


def generate(name: str, count: int, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """``count`` fresh puzzles of the set ``name``, the same for any number of worker processes."""
    checks.choice("name", name, tuple(SEEDS))
    slices = range(-(-checks.integer("count", count, 1) // SLICE))
    make = partial(_slice, name, count)
    if checks.integer("workers", workers, 1) == 1:
        parts = [make(index) for index in bar(True, slices, desc=f"{name} puzzles")]
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            parts = list(bar(True, pool.imap(make, slices), total=len(slices), desc=f"{name} puzzles"))
    boards, answers = zip(*parts, strict=True)
    return np.concatenate(boards), np.concatenate(answers)


def _slice(name: str, count: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    size = min(SLICE, count - index * SLICE)
    return carved(size, np.random.default_rng(SEEDS[name] * 1_000_000 + index), *CLUES[name])


def symmetry_class(grids: np.ndarray) -> np.ndarray:
    """int64 (N,): equal for solved grids (N, 81) that a symmetry of Sudoku turns into each other.

    A symmetry relabels digits, permutes rows in a band, bands, columns in a stack, stacks, or
    transposes. Two rows give a permutation of the digits, whose cycle lengths none of these change;
    the class is a fingerprint of all of them, sorted as the symmetries may sort them. Grids of two
    classes are therefore never equivalent; two that are not may, rarely, share one.
    """
    square = checked_grids(grids).reshape(-1, 9, 9)
    by_rows, by_columns = _lines_class(square), _lines_class(square.swapaxes(1, 2))
    return _mix(np.sort(np.stack([by_rows, by_columns], 1), axis=1))


def _lines_class(square: np.ndarray) -> np.ndarray:
    count = len(square)
    at = np.argsort(square, axis=2)  # (N, 9, 9) column of each digit in each row
    pairs = np.zeros((count, 9, 9), np.uint64)
    for one, two in permutations(range(9), 2):
        image = np.take_along_axis(square[:, two], at[:, one], 1) - 1  # digit of one -> digit of two
        length, now = np.zeros((count, 9), np.uint64), image
        for step in range(1, 10):
            back = (now == np.arange(9)) & (length == 0)
            length[back] = step
            now = np.take_along_axis(image, now, 1)
        pairs[:, one, two] = _mix(np.sort(length, axis=1))
    own = np.arange(9) // 3
    inside = np.stack([pairs[:, r, (own == own[r]) & (np.arange(9) != r)] for r in range(9)], 1)
    # The three rows of another band stay together when bands are permuted.
    outside = np.stack(
        [
            np.stack([_mix(np.sort(pairs[:, r, own == b], axis=1)) for b in range(3) if b != own[r]], 1)
            for r in range(9)
        ],
        1,
    )
    rows = _mix(np.concatenate([np.sort(inside, axis=2), np.sort(outside, axis=2)], 2))
    bands = _mix(np.sort(rows.reshape(count, 3, 3), axis=2))
    return _mix(np.sort(bands, axis=1))


def _mix(values: np.ndarray) -> np.ndarray:
    """Hash the last axis to one uint64 (multiply and xor-shift, wrapping)."""
    found = np.full(values.shape[:-1], 0x9E3779B97F4A7C15, np.uint64)
    for index in range(values.shape[-1]):
        found = (found ^ values[..., index].astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(29)
    return found


def checked_grids(grids: np.ndarray) -> np.ndarray:
    """``grids`` if each row of each is a permutation of 1..9; else ValueError."""
    grids = np.asarray(grids)
    if grids.ndim != 2 or grids.shape[1] != 81 or (np.sort(grids.reshape(-1, 9)) != np.arange(1, 10)).any():
        checks.fail("grids", grids.shape, "solved 9x9 grids of shape (N, 81)")
    return grids


def pack(boards: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ``unpack`` takes: uint8 (N, 32) digits and (N, 11) clues."""
    corner = checked_grids(answers).reshape(-1, 9, 9)[:, :8, :8].reshape(len(answers), -1).astype(np.uint8)
    return corner[:, ::2] | corner[:, 1::2] << 4, np.packbits(boards > 0, axis=1)


def _write(path: Path, sets: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    arrays: dict[str, Any] = {}
    for name, (boards, answers) in sets.items():
        arrays[f"{name}_digits"], arrays[f"{name}_clues"] = pack(boards, answers)
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def main(argv: list[str] | None = None) -> None:
    """Make and write the three sets."""
    parser = argparse.ArgumentParser(prog="labkit.studies.soar.puzzles", description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=int, default=100_000, help="training puzzles (default: 100000)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    given = parser.parse_args(argv)
    test = generate("test", SIZES["test"], given.workers)
    # More than needed, because validation puzzles with the grid of a test puzzle are left out.
    boards, answers = generate("validation", SIZES["validation"] + 64, given.workers)
    fresh = np.flatnonzero(~np.isin(symmetry_class(answers), symmetry_class(test[1])))
    fresh = fresh[: SIZES["validation"]]
    _write(SHIPPED, {"validation": (boards[fresh], answers[fresh]), "test": test})
    train = training_puzzles(given.train, given.workers)[0]
    print(f"{SHIPPED.name}: {SHIPPED.stat().st_size:,} bytes; {len(train):,} training puzzles")


if __name__ == "__main__":
    main()
