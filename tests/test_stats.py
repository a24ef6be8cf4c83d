"""Intervals cover what they promise (simulated), match cases by hand, and are refused for two seeds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.intervals import ratio_half
from labkit.studies import stats

T_975 = {2: 4.302653, 4: 2.776445, 7: 2.364624}  # Student's t by degrees of freedom, from a printed table


def share_covered(intervals, truth):
    low, high = np.array([(found.low, found.high) for found in intervals]).T
    return ((low <= truth) & (truth <= high)).mean()


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_t_over_seeds_covers_95_percent(seeds):
    draws = np.random.default_rng(seeds).normal(0.3, 2.0, (4000, seeds))
    assert 0.94 < share_covered([stats.t_interval(row) for row in draws], 0.3) < 0.96


@pytest.mark.parametrize("seeds", [3, 5, 8])
@pytest.mark.parametrize(
    ("of_seeds", "of_questions"),
    [(0, 0), (0.02, 0), (0, 1), (0.02, 0.6)],
    ids=["rest", "seeds", "shared", "all"],
)
def test_answers_of_several_seeds_cover_95_percent(seeds, of_seeds, of_questions):
    """Gains of 8 %, losses of 5 %; seeds shift the gain, a share of questions acts on all seeds alike."""
    rng, questions, found = np.random.default_rng(7), 400, []
    for _ in range(1500):
        gain = 0.08 + rng.normal(0, of_seeds, (seeds, 1)).clip(-0.08, 0.08)
        alike = rng.random((1, questions)) < of_questions
        luck = np.where(alike, rng.random((1, questions)), rng.random((seeds, questions)))
        found.append(stats.bootstrap_questions(luck < gain, luck > 0.95))
    assert 0.93 < share_covered(found, 0.03) < 0.97


@pytest.mark.parametrize("questions", [200, 1000])
def test_answers_of_one_model_cover_95_percent(questions):
    luck = np.random.default_rng(5).random((1500, questions))
    found = [stats.bootstrap_questions(row < 0.08, row > 0.95) for row in luck]
    assert 0.93 < share_covered(found, 0.03) < 0.97


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_wilson_covers_95_percent(share):
    found = [stats.proportion(row < share) for row in np.random.default_rng(6).random((2000, 300))]
    assert 0.93 < share_covered(found, share) < 0.97


def test_a_cell_has_the_interval_in_brackets_or_the_values():
    assert stats.t_interval([1, 2, 3]).cell("+.1f", 10) == "+20.0 (-4.8 to +44.8)"  # 4.302653 / sqrt(3)
    assert stats.t_interval([1, 2]).cell(".0f") == "1 and 2"


def test_one_or_two_seeds_are_points_and_allow_no_verdict():
    for values, told in (
        ((0.12,), "0.12 (1 seed, no interval)"),
        ((0.12, 0.15), "0.12 and 0.15 (2 seeds, no interval)"),
    ):
        found = stats.t_interval(values)
        assert (found.low, found.high) == (None, None)
        assert found.text(".2f") == told
        assert found.verdict(margin=1) == f"no verdict from {len(values)} seed{'s' * (len(values) > 1)}"
    answers = np.random.default_rng(0).random((2, 50)) < 0.5
    for seeds in (1, 2):
        found = stats.bootstrap_questions(answers[:seeds], ~answers[:seeds])
        assert (found.low, found.n) == (None, seeds)
        assert found.values == pytest.approx(2 * answers[:seeds].mean(1) - 1)


def test_t_by_hand():
    found = stats.t_interval([1, 2, 3, 4, 10])
    half = T_975[4] * math.sqrt(12.5) / math.sqrt(5)
    assert (found.estimate, found.n, found.unit) == (4, 5, "seeds")
    assert (found.low, found.high) == (pytest.approx(4 - half), pytest.approx(4 + half))
    assert stats.t_interval([2, 2, 2]).low == 2


def test_pairs_are_made_by_seed():
    found = stats.paired_t({0: 1.0, 1: 5.0, 2: 9.0, 7: 0.0}, {2: 8.0, 1: 4.5, 0: 1.0, 3: 0.0})
    assert found.values == (0, 0.5, 1)
    assert found.high - found.estimate == pytest.approx(T_975[2] * 0.5 / math.sqrt(3))
    with pytest.raises(ValueError, match="a and b must be values of a common seed"):
        stats.paired_t({0: 1.0}, {1: 1.0})


def test_seeds_crossed_with_questions_by_hand():
    """No question counts twice: every seed gains or loses its own questions, so only seeds scatter."""
    a = np.zeros((3, 300), bool)
    b = np.zeros((3, 300), bool)
    for seed, gains in enumerate((30, 33, 36)):
        a[seed, 100 * seed : 100 * seed + gains] = True
    found = stats.bootstrap_questions(a, b, unit="puzzles")
    assert found.estimate == pytest.approx(0.11)
    assert found.high - found.estimate == pytest.approx(T_975[2] * 0.01 / math.sqrt(3))
    assert found.text("+.1f", " points", 100).endswith("3 seeds, 300 puzzles each)")


def test_seeds_that_agree_by_chance_are_not_certain():
    """Each of three seeds gains one question of a hundred, another one: 3 of 300 may be none."""
    a = np.zeros((3, 100), bool)
    a[[0, 1, 2], [0, 1, 2]] = True
    found = stats.bootstrap_questions(a, np.zeros((3, 100), bool))
    # residuals 2/3, -1/3, -1/3 in three columns: mean square 2 / (2 * 99), and t of 198 is 1.972
    assert found.high - found.estimate == pytest.approx(1.972 * math.sqrt(2 / 198 / 300), rel=1e-3)
    assert found.verdict() == "not resolved at n = 3 seeds, 100 questions each"


def test_a_resample_of_one_model_has_the_binomial_spread():
    a = np.arange(1000) < 100
    found = stats.bootstrap_questions(a, np.zeros(1000, bool))
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.1 * 0.9 / 1000), rel=0.05)
    assert (found.n, found.unit) == (1000, "questions")


@pytest.mark.parametrize("shape", [(100,), (3, 100)])
def test_equal_answers_bound_the_difference_by_clopper_pearson(shape):
    found = stats.bootstrap_questions(np.ones(shape, bool), np.ones(shape, bool))
    assert found.high == -found.low == pytest.approx(1 - 0.025 ** (1 / 100))


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_counts_the_questions_that_differ(gained, lost):
    a = np.array([True] * gained + [False] * lost + [True, False])
    b = np.array([False] * gained + [True] * lost + [True, False])
    total, far = gained + lost, abs(gained - lost)
    tail = sum(math.comb(total, k) for k in range(total + 1) if abs(total - 2 * k) >= far)
    assert stats.mcnemar(a, b) == (gained, lost, pytest.approx(min(1, tail / 2**total)))


def test_wilson_by_hand():
    found = stats.proportion(np.arange(100) < 10)  # textbook: 10 of 100 is 5.52 % to 17.44 %
    assert (found.low, found.high) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [(0.1, 0.3, None, "better"), (-0.3, -0.1, 0.2, "worse"), (-0.3, -0.1, 1, "no difference larger than 1"),
     (-0.1, 0.2, None, "not resolved at n = 8 seeds"),
     (-0.1, 0.2, 0.15, "not resolved at n = 8 seeds"), (-0.1, 0.2, 0.25, "no difference larger than 0.25")],
)  # fmt: skip
def test_verdicts(low, high, margin, said):
    found = stats.Estimate((low + high) / 2, low, high, 8, "seeds", "t", (0,) * 8)
    assert found.verdict(margin=margin) == said
    points = 100 * margin if margin else margin
    assert found.verdict(margin=points, scale=100).rstrip("0123456789.") == said.rstrip("0123456789.")


def test_texts():
    found = stats.Estimate(0.01, 0.005, 0.0155, 1200, "questions", "t", (0.01,))
    assert found.text("+.2f", " points", 100) == "+1.00 points (95 % +0.50 to +1.55, 1,200 questions)"
    assert stats.spread([1, 2, 6], ".1f") == "3.0 (1.0 to 6.0, 3 seeds)"
    assert stats.spread([1, 2], ".1f") == "1.0 and 2.0"


@pytest.mark.parametrize(
    ("call", "said"),
    [(lambda: stats.t_interval([]), "values must be finite numbers, at least one; got"),
     (lambda: stats.t_interval([1, math.nan, 2]), "values must be finite numbers"),
     (lambda: stats.mcnemar([0, 1], [1, 0]), r"right_a must be bool \(Q,\) with .*; got 'int64"),
     (lambda: stats.mcnemar(np.ones((2, 2), bool), np.ones(2, bool)), "right_a must be bool"),
     (lambda: stats.bootstrap_questions(np.ones(3, bool), np.ones(4, bool)), "right_b must be of"),
     (lambda: stats.proportion(np.ones(0, bool)), "right must be bool")],
)  # fmt: skip
def test_bad_input_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_a_ratio_of_means_covers_95_percent():
    """Accuracy per token where long responses are right less often, 40 questions, against 10^6 draws."""

    def draw(rng, count):
        length = rng.gamma(4.0, 25.0, count)
        return (rng.random(count) < 1 / (1 + np.exp(length / 50 - 2))).astype(float), length

    right, length = draw(np.random.default_rng(0), 1_000_000)
    truth, rng, inside = right.mean() / length.mean(), np.random.default_rng(1), []
    for _ in range(3000):
        right, length = draw(rng, 40)
        inside.append(abs(right.mean() / length.mean() - truth) <= ratio_half(right, length))
    assert 0.935 < np.mean(inside) < 0.965
