"""The 9x9 puzzle sets, the symmetries that keep them apart, and the sums."""

import importlib.util

import numpy as np
import pytest
import torch
from test_soar_sudoku import solutions

from labkit.soar.tasks.puzzle_sets import SIZES, load_puzzles, unpack
from labkit.soar.tasks.sums import ALPHABET, LENGTH, QUESTION, encode, question, right, sums, text_of
from labkit.studies.soar import carve
from labkit.studies.soar import puzzles as puzzle_sets
from labkit.studies.soar.lab_model import augment
from labkit.studies.soar.puzzles import pack, symmetry_class


@pytest.fixture(scope="module")
def few():
    return carve.carved(12, np.random.default_rng(8), 22, 30)


def turned(grids, rng):
    """The grids after a random symmetry of Sudoku each, in plain numpy."""
    made = []
    for grid in grids.reshape(-1, 9, 9):
        lines = [np.concatenate([3 * b + rng.permutation(3) for b in rng.permutation(3)]) for _ in range(2)]
        new = (1 + rng.permutation(9))[grid - 1][lines[0]][:, lines[1]]
        made.append((new.T if rng.random() < 0.5 else new).ravel())
    return np.array(made)


def test_the_class_survives_every_symmetry_and_tells_grids_apart(few):
    answers, rng = few[1], np.random.default_rng(0)
    known = symmetry_class(answers)
    assert len(set(known)) == len(known)
    for _ in range(5):
        assert (symmetry_class(turned(answers, rng)) == known).all()
    swapped = answers.reshape(-1, 9, 9)[:, [3, 1, 2, 0, 4, 5, 6, 7, 8]].reshape(-1, 81)
    assert (symmetry_class(swapped) != known).all()  # rows of two bands exchanged: no symmetry
    with pytest.raises(ValueError, match="grids must be solved 9x9 grids"):
        symmetry_class(np.zeros((1, 81), int))


def test_packing_loses_nothing(few):
    boards, answers = unpack(*pack(*few))
    assert (boards == few[0]).all()
    assert (answers == few[1]).all()


def test_the_shipped_sets_are_what_they_say():
    classes = []
    for name, size in SIZES.items():
        boards, answers = load_puzzles(name)
        assert boards.shape == answers.shape == (size, 81)
        clues = (boards > 0).sum(1)
        assert clues.min() >= 22
        assert np.median(clues) < 28
        assert (np.where(boards > 0, answers, 0) == boards).all()
        for board, answer in zip(boards[:8], answers[:8], strict=True):
            assert list(solutions(board.tolist())) == [answer.tolist()]
        classes.append(set(symmetry_class(answers).tolist()))
    assert not classes[0] & classes[1]  # so no test grid is a turned validation grid
    assert (load_puzzles("test", 3)[0] == load_puzzles("test")[0][:3]).all()
    with pytest.raises(ValueError, match="name must be one of 'validation', 'test'; got 'train'"):
        load_puzzles("train")


def test_training_puzzles_with_a_held_out_grid_are_left_out(tmp_path, monkeypatch, few):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(puzzle_sets, "generate", lambda name, count, workers: few)
    held = turned(few[1][:2], np.random.default_rng(1))
    monkeypatch.setattr(puzzle_sets, "load_puzzles", lambda name: (held, held))
    boards, _ = puzzle_sets.training_puzzles(12)
    assert (boards == few[0][2:]).all()
    monkeypatch.setattr(puzzle_sets, "generate", None)  # the second time they are kept
    assert (puzzle_sets.training_puzzles(12)[0] == boards).all()


def test_slices_are_the_same_for_any_number_of_workers(monkeypatch):
    monkeypatch.setattr(puzzle_sets, "SLICE", 2)
    whole = puzzle_sets.generate("test", 5)
    assert whole[0].shape == (5, 81)
    assert (whole[0][2:4] == carve.carved(2, np.random.default_rng(3_000_001), 22, 28)[0]).all()


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is optional")
def test_numba_makes_the_same_puzzles(monkeypatch):
    fast = carve.carved(3, np.random.default_rng(2), 24, 30)
    monkeypatch.setattr(carve, "_compiled", lambda: (carve.solve, carve.carve))
    assert (carve.carved(3, np.random.default_rng(2), 24, 30)[0] == fast[0]).all()


def test_a_search_that_takes_too_long_is_given_up():
    order = list(range(9)) * 81
    assert carve.solve([0] * 81, order, 10) == -1
    assert carve.solve([0] * 81, order, 5000) == 1
    assert carve.solve([1, 1, *[0] * 79], order, 5000) == 0


def test_augmentation_turns_puzzle_and_solution_alike(few):
    boards, answers = (torch.from_numpy(part) for part in few)
    turned_boards, turned_answers = augment(boards, answers, torch.Generator().manual_seed(0))
    given = turned_boards > 0
    assert (turned_boards[given] == turned_answers[given]).all()
    assert (given.sum(1) == (boards > 0).sum(1)).all()
    assert (turned_answers != answers).any(1).all()
    assert (symmetry_class(turned_answers.numpy()) == symmetry_class(few[1])).all()


def test_a_sum_is_worked_out_and_read_back():
    texts = sums(300, seed=4)
    assert {len(text) for text in texts} == {LENGTH}
    for text in texts:
        asked, first, second, answer = text.strip(" .").replace("=", ";", 1).split(";")
        a, b, c = map(int, asked.split("+"))
        assert (first, second, answer) == (f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}", f"A{a + b + c}")
    tokens = encode(texts)
    assert [text_of(row) for row in tokens.tolist()] == [text.lstrip() for text in texts]
    assert right(tokens.numpy(), texts).all()
    tokens[0, -LENGTH // 2 :] = ALPHABET.index("7")
    assert right(tokens.numpy(), texts).tolist() == [False] + [True] * 299
    assert (question(27, 15, 30) == encode(["27+15+30="])).all()
    assert question(1, 2, 3).shape == (1, QUESTION)


def test_held_out_sums_are_never_trained_on():
    asked = {text[:QUESTION] for text in sums(20_000, seed=0)}
    held = {text[:QUESTION] for text in sums(2000, seed=1, test=True)}
    assert not asked & held
    assert len(held) > 1000


def test_the_largest_terms_still_fit_a_text():
    assert set(sums(2, seed=0, terms=(49, 49), test=held(49, 49, 49))) == {
        "49+49+49=49+49=98;98+49=147;A147"
    }
    drawn = [int(term) for text in sums(500, terms=(10, 40)) for term in text[:8].split("+")]
    assert (min(drawn), max(drawn)) == (10, 40)


def held(a, b, c):
    """The rule of the sums that are kept for tests."""
    return (7919 * a + 104729 * b + 1299709 * c) // 97 % 8 == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sums(1, terms=(10, 50)), "terms must be an integer between 10 and 49; got 50"),
        (lambda: sums(1, terms=(0, 9)), "terms must be an integer between 1 and 49; got 0"),
        (lambda: question(1, 2), r"terms must be 3 numbers; got \(1, 2\)"),
        (lambda: question(1, 2, 31), "terms must be an integer between 1 and 30; got 31"),
        (lambda: encode(["12", "1"]), "texts must be of one length.*several lengths"),
        (lambda: encode(["x"]), r"texts must be of one length.*\['x'\]"),
        (lambda: sums(0), "count must be an integer >= 1; got 0"),
    ],
)
def test_bad_sums(call, message):
    with pytest.raises(ValueError, match=message):
        call()
