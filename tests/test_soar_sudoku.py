"""Puzzles, the Sudoku model and its training."""

import numpy as np
import pytest
import torch

from labkit.soar import decode
from labkit.soar.tasks.sudoku import _small_grids, puzzles, solved
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.soar.tasks.training import train_sudoku
from labkit.studies.soar.carve import carved


def units(board, side):
    """Rows, columns and boxes of one board as sorted digit lists."""
    root = int(side**0.5)
    grid = board.reshape(side, side)
    boxes = grid.reshape(root, root, root, root).swapaxes(1, 2).reshape(side, side)
    return [sorted(unit) for part in (grid, grid.T, boxes) for unit in part.tolist()]


def solutions(board):
    """All solutions of one board, a list of digits: every digit that no neighbour has, fewest first."""
    side = int(len(board) ** 0.5)
    root = int(side**0.5)

    def neighbours(cell, other):
        (r, c), (s, d) = divmod(cell, side), divmod(other, side)
        return r == s or c == d or (r // root, c // root) == (s // root, d // root)

    near = [[other for other in range(side**2) if neighbours(cell, other)] for cell in range(side**2)]

    def filled(board):
        blanks = [cell for cell, digit in enumerate(board) if not digit]
        if not blanks:
            yield board
            return
        left = {cell: set(range(1, side + 1)) - {board[other] for other in near[cell]} for cell in blanks}
        cell = min(blanks, key=lambda cell: len(left[cell]))
        for digit in left[cell]:
            yield from filled([*board[:cell], digit, *board[cell + 1 :]])

    yield from filled(list(board))


@pytest.mark.parametrize(("side", "count", "low", "high"), [(4, 200, 4, 6), (9, 6, 24, 32)])
def test_a_puzzle_has_exactly_the_solution_it_comes_with(side, count, low, high):
    made = puzzles(count, seed=3) if side == 4 else carved(count, np.random.default_rng(3), low, high)
    puzzle, answer = made
    assert puzzle.shape == answer.shape == (count, side**2)
    given = puzzle > 0
    assert (puzzle[given] == answer[given]).all()
    assert given.sum(1).min() >= low
    assert np.median(given.sum(1)) <= high
    for board, truth in zip(puzzle, answer, strict=True):
        assert units(truth, side) == [list(range(1, side + 1))] * (3 * side)
        assert list(solutions(board.tolist())) == [truth.tolist()]


def test_there_are_288_small_grids():
    every = {tuple(grid) for grid in _small_grids("all").tolist()}
    assert len(every) == 288
    assert every == {tuple(grid) for grid in solutions([0] * 16)}


def test_training_and_test_grids_do_not_overlap():
    seen = {tuple(grid) for grid in puzzles(3000, seed=0, grids="train")[1]}
    other = {tuple(grid) for grid in puzzles(3000, seed=0, grids="test")[1]}
    assert len(seen) == 20
    assert len(other) == 268
    assert not seen & other


def test_a_seed_is_a_puzzle():
    one, two, other = (puzzles(50, seed=seed)[0] for seed in (4, 4, 5))
    assert (one == two).all()
    assert (one != other).any()
    nine, again = (carved(3, np.random.default_rng(4), 24, 32)[0] for _ in range(2))
    assert (nine == again).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be an integer >= 1; got 0"),
        ({"count": 1, "clues": (3, 5)}, "clues must be an integer between 4 and 5; got 3"),
        ({"count": 1, "clues": (5, 16)}, "clues must be an integer between 5 and 15; got 16"),
        ({"count": 1, "grids": "other"}, "grids must be one of 'all', 'train', 'test'; got 'other'"),
        ({"count": 1, "seed": -1}, "seed must be an integer >= 0; got -1"),
    ],
)
def test_bad_puzzle_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        puzzles(**options)


def test_solved_counts_whole_boards():
    truth = np.array([[1, 2], [2, 1]])
    assert solved(np.array([[1, 2], [2, 2]]), truth).tolist() == [True, False]


@pytest.mark.parametrize("side", [4, 9])
def test_logits_at_positions_equal_the_full_logits(side):
    model = SudokuLM(SudokuConfig(side, width=16, layers=2, heads=2)).eval()
    board = torch.randint(0, side + 1, (5, side**2))
    where = torch.randint(0, side**2, (5, 7))
    whole = model(board)
    assert whole.shape == (5, side**2, side + 1)
    picked = whole.gather(1, where[..., None].expand(-1, -1, side + 1))
    torch.testing.assert_close(model.logits_at(board, where, [side**2] * 5), picked)


def test_every_cell_sees_every_cell():
    model = SudokuLM(SudokuConfig(4, width=16, layers=1, heads=2)).eval()
    board = torch.zeros(1, 16, dtype=torch.long)
    for cell in range(16):
        other = board.clone()
        other[0, cell] = 1
        assert ((model(board) != model(other)).any(-1)).all()


def test_the_model_survives_a_save(tmp_path):
    model = SudokuLM(SudokuConfig(4, width=16, layers=1, heads=2)).eval()
    again, card = SudokuLM.load(model.save(tmp_path / "m.safetensors", seed=3))
    assert card == {"seed": 3}
    board = torch.randint(0, 5, (2, 16))
    assert torch.equal(model(board), again(board))


def test_a_board_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"tokens must be of shape \(B, 16\); got \(1, 15\)"):
        SudokuLM(SudokuConfig())(torch.zeros(1, 15, dtype=torch.long))
    with pytest.raises(ValueError, match="width must be a multiple of heads=4; got 50"):
        SudokuConfig(width=50)


def test_training_learns_and_repeats_itself():
    options = {"steps": 150, "eval_every": 50, "eval_puzzles": 60, "seed": 1, "progress": False}
    model, trace = train_sudoku(**options)
    again, _ = train_sudoku(**options)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    loss, share = trace.curve("loss")[1], trace.curve("solved")[1]
    assert loss[0] > 1.2  # log 4 = 1.39 nats: a fresh model knows nothing
    assert loss[-20:].mean() < 0.8
    assert share[0] < 0.05
    assert share[-1] > 0.2
    assert trace.meta["seed"] == 1
    assert trace.meta["parameters"] == sum(p.numel() for p in model.parameters())
    assert not model.training
    other, _ = train_sudoku(**(options | {"seed": 2, "steps": 5, "eval_every": 5}))
    assert not torch.equal(next(other.parameters()), next(model.parameters()))


def test_the_cache_gives_back_the_same_model_and_curves(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    options = {"steps": 4, "eval_every": 2, "eval_puzzles": 5, "progress": False, "cache": True}
    model, trace = train_sudoku(**options)
    again, curves = train_sudoku(**options)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert torch.equal(model.head.weight, again.head.weight)
    assert (curves.curve("solved")[1] == trace.curve("solved")[1]).all()
    train_sudoku(**(options | {"seed": 9}))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_a_damaged_model_in_the_cache_is_trained_again(tmp_path, monkeypatch, capsys, ending):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    options = {"steps": 4, "eval_every": 2, "eval_puzzles": 5, "progress": False, "cache": True}
    model, _ = train_sudoku(**options)
    (kept,) = tmp_path.rglob(f"*{ending}")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    again, _ = train_sudoku(**options)
    assert "damaged" in capsys.readouterr().err
    assert torch.equal(model.head.weight, again.head.weight)
    assert kept.stat().st_size == pytest.approx(len(whole), abs=99)  # the seconds are others


def test_bad_training_arguments():
    with pytest.raises(ValueError, match="steps must be an integer >= 1; got 0"):
        train_sudoku(steps=0)


@pytest.mark.parametrize("strategy", ["greedy", "parallel", "adaptive", "pbs", "soar"])
def test_a_real_model_decodes_alone_as_in_a_batch(strategy):
    torch.manual_seed(5)
    model = SudokuLM(SudokuConfig(4, width=16, layers=2, heads=2)).eval()
    board = torch.from_numpy(puzzles(16, seed=7)[0])
    many = decode(model, board, strategy, threshold=0.5)
    for index in range(16):
        alone = decode(model, board[index : index + 1], strategy, threshold=0.5)
        assert alone.sequences[0].tolist() == many.sequences[index].tolist()
        assert (many.sequences[index] > 0).all()
    given = board.numpy() > 0
    assert (many.sequences[given] == board.numpy()[given]).all()
