"""Intervals, paired tests and the words that go with them: every claim, figure and README row reads here.

t_interval            mean of one value per seed, Student's t
paired_t              the same of arm a minus arm b, paired by seed
bootstrap_questions   share of right answers of a minus b's on the same questions, one seed or several
mcnemar               exact test of two models' answers to the same questions
proportion            one share, Wilson's interval
spread                mean and range in words, where nothing is inferred
Estimate              what the intervals return: a text form and the verdict that the interval allows

Intervals are two-sided, 95 %. The unit is the seed, that is one training run: one or two seeds give no
interval and no verdict, only their values. tests/test_stats.py simulates the coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from labkit.checks import fail
from labkit.intervals import LEVEL, TAILS, t_half, wilson

FEWEST_SEEDS = 3
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; where there are too few seeds for one, the values alone."""

    estimate: float
    low: float | None  # None: no interval
    high: float | None
    n: int
    unit: str  # what n counts: "seeds", "questions", ...
    method: str
    values: tuple[float, ...]  # one per seed

    @property
    def count(self) -> str:
        """n with its unit: "3 seeds", "1 seed"."""
        return f"{self.n:,} {self.unit.removesuffix('s') if self.n == 1 else self.unit}"

    def text(self, form: str = "+.3f", unit: str = "", scale: float = 1.0) -> str:
        """``+0.98 points (95 % +0.48 to +1.50, 8 seeds)``; ``+0.98 and +1.04 (2 seeds, no interval)``.

        form is each number's format, unit is printed after them with its own space, scale multiplies them.
        """
        if self.low is None or self.high is None:
            return f"{self.cell(form, scale)}{unit} ({self.count}, no interval)"
        mean, low, high = (f"{scale * value:{form}}" for value in (self.estimate, self.low, self.high))
        return f"{mean}{unit} (95 % {low} to {high}, {self.count})"

    def cell(self, form: str = "+.3f", scale: float = 1.0) -> str:
        """``+0.98 (+0.48 to +1.50)``, for a table that says what the brackets are and how many seeds."""
        if self.low is None or self.high is None:
            return " and ".join(f"{scale * value:{form}}" for value in self.values)
        mean, low, high = (f"{scale * value:{form}}" for value in (self.estimate, self.low, self.high))
        return f"{mean} ({low} to {high})"

    def verdict(
        self, more: str = "better", less: str = "worse", margin: float | None = None, scale: float = 1.0
    ) -> str:
        """The words that the interval allows: ``more``, ``less``, no difference, or not resolved.

        margin  smallest difference that would matter, in the unit of ``estimate`` times ``scale``: "no
                difference larger than it" is said if the interval excludes one, also where it excludes zero
        """
        if self.low is None or self.high is None:
            return f"no verdict from {self.count}"
        if margin is not None and -margin < scale * self.low and scale * self.high < margin:
            return f"no difference larger than {margin:g}"
        if self.low > 0 or self.high < 0:
            return more if self.low > 0 else less
        return f"not resolved at n = {self.count}"


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's t interval. ValueError unless all are finite and there is one."""
    values = tuple(map(float, values))
    if not values or not np.isfinite(values).all():
        fail("values", list(values), "finite numbers, at least one")
    if len(values) < FEWEST_SEEDS:
        return _points(values)
    return _around(values, t_half(values), len(values), "seeds", "t over seeds")


def paired_t(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """``t_interval`` of a minus b, each {seed: value}; a seed that one of them lacks is left out."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        fail("a and b", (sorted(a), sorted(b)), "values of a common seed")
    return t_interval([a[seed] - b[seed] for seed in seeds])


def bootstrap_questions(
    right_a: np.ndarray, right_b: np.ndarray, unit: str = "questions", seed: int = 0
) -> Estimate:
    """Share of questions answered right by a minus that by b.

    right_a, right_b  bool (Q,) of one model each, or (S, Q): a row per training seed, the same questions
    unit              what the questions are
    seed              of the resampling

    (Q,): questions are resampled in pairs, and the interval holds for this one model. (S, Q): the seed is
    the unit, so one or two give no interval; of three or more, seeds and questions are both random,
    crossed. A bootstrap of so few seeds is too short: the variance comes from mean squares and t's degrees
    of freedom from Hillis (Statistics in Medicine 26, 2007, 596-619).
    """
    a, b = _answers("right_a", right_a, 2), _answers("right_b", right_b, 2)
    if a.shape != b.shape:
        fail("right_b", b.shape, f"of the shape of right_a, {a.shape}")
    gain = np.atleast_2d(a.astype(int) - b)
    values, (seeds, questions) = tuple(gain.mean(1).tolist()), gain.shape
    n, words, method = questions, unit, "bootstrap of questions"
    if a.ndim == 2:
        if seeds < FEWEST_SEEDS:
            return _points(values)
        n, words, method = seeds, f"seeds, {questions:,} {unit} each", "seeds x questions, t"
    if not gain.any():  # no spread to resample: at most this share of other questions would differ
        return _around(values, stats.binomtest(0, questions).proportion_ci(LEVEL).high, n, words, method)
    if a.ndim == 2:
        return _around(values, _crossed(gain), n, words, method)
    kinds = [(gain == kind).mean() for kind in (1, -1, 0)]  # a resample is three counts
    draws = np.random.default_rng(seed).multinomial(questions, kinds, RESAMPLES) @ [1, -1, 0]
    low, high = np.quantile(draws / questions, TAILS).tolist()
    return Estimate(values[0], low, high, n, words, method, values)


def _crossed(gain: np.ndarray) -> float:
    """Half the interval of the mean of (S, Q) gains with random rows and random columns."""
    seeds, questions = gain.shape
    rows, columns, mean = gain.mean(1), gain.mean(0), gain.mean()
    inner = (seeds - 1) * (questions - 1)
    of_seeds = questions * ((rows - mean) ** 2).sum() / (seeds - 1)
    of_questions = seeds * ((columns - mean) ** 2).sum() / (questions - 1)
    rest = ((gain - rows[:, None] - columns + mean) ** 2).sum() / inner
    # What all seeds find hard alike counts beside the seeds' scatter, unless an F test does not see it.
    seen = of_questions > rest * stats.f.ppf(LEVEL, questions - 1, inner)
    free = seeds - 1
    if not np.ptp(rows):  # counts of few questions agree by chance: the scatter within them is left
        of_seeds, free = rest, inner
    total = of_seeds + (of_questions - rest) * seen
    freedom = free * (total / of_seeds) ** 2 if of_seeds else np.inf
    return stats.t.ppf(TAILS[1], freedom) * (total / (seeds * questions)) ** 0.5


class Paired(NamedTuple):
    """Questions that only a (``gained``) or only b (``lost``) answers right; the two-sided exact p."""

    gained: int
    lost: int
    p: float


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Paired:
    """McNemar's exact test of bool (Q,) answers: the sign test of the questions on which they differ."""
    a, b = _answers("right_a", right_a), _answers("right_b", right_b)
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Paired(gained, lost, float(p))


def proportion(right: np.ndarray, unit: str = "questions") -> Estimate:
    """Share of bool (Q,) answers of one model that are right, with Wilson's interval over questions."""
    right = _answers("right", right)
    low, high = wilson(int(right.sum()), right.size)
    share = float(right.mean())
    return Estimate(share, low, high, right.size, unit, "Wilson", (share,))


def spread(values: Sequence[float] | np.ndarray, form: str = ".3f") -> str:
    """``0.123 (0.120 to 0.127, 5 seeds)``: mean and range, nothing inferred; one or two are listed."""
    if len(values) < FEWEST_SEEDS:
        return " and ".join(f"{value:{form}}" for value in values)
    mean, low, high = (f"{value:{form}}" for value in (np.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high}, {len(values)} seeds)"


def _around(values: tuple[float, ...], half: float, n: int, unit: str, method: str) -> Estimate:
    mean = float(np.mean(values))
    return Estimate(mean, float(mean - half), float(mean + half), n, unit, method, values)


def _points(values: tuple[float, ...]) -> Estimate:
    return Estimate(float(np.mean(values)), None, None, len(values), "seeds", "values alone", values)


def _answers(name: str, right: np.ndarray, axes: int = 1) -> np.ndarray:
    right = np.asarray(right)
    if right.dtype != bool or not 1 <= right.ndim <= axes or right.shape[-1] < 2:
        shape = "(Q,)" if axes == 1 else "(Q,) or (S, Q)"
        fail(name, f"{right.dtype} {right.shape}", f"bool {shape} with at least two questions")
    return right
