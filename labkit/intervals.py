"""95 % intervals from plain numbers, one formula each: training's evaluation, labkit eval and the studies.

wilson      a share of independent right and wrong answers
t_half      the mean of independent values, as half a width
ratio_half  a ratio of two means over the same units (accuracy per token), as half a width

Which unit is independent (a question, a training seed) is the caller's to know; labkit.studies.stats says
it for studies. tests/test_stats.py simulates the coverage.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL, TAILS = 0.95, (0.025, 0.975)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Ends of Wilson's score interval for ``right`` of ``count`` (at least 1)."""
    ends = stats.binomtest(right, count).proportion_ci(LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def t_half(values: Sequence[float] | np.ndarray) -> float:
    """Half of Student's t interval around the mean of n values; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(TAILS[1], len(values) - 1) * stats.sem(values))


def ratio_half(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Half the interval around mean(numerator) / mean(denominator), by the delta method with Student's t.

    numerator, denominator  float (n,) of the same n units; the second's mean is above 0
    """
    mean = denominator.mean()
    return t_half((numerator - numerator.mean() / mean * denominator) / mean)
