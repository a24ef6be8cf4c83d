"""Test loss of the study's arms, and how far two of them are apart, paired by seed.

nats, perplexities   of an arm's seeds
gap, describe_gap    of an arm and another: with its interval, in words
describe_tried       ELAS trained in other ways, against ELAS as it is
"""

import math

import numpy as np

from labkit.studies.elas.records import runs
from labkit.studies.stats import Estimate, paired_t

# Nats per token that would matter, 2 % of perplexity: an interval within it is called no difference.
MARGIN = 0.02


def nats(arm: str) -> dict[int, float]:
    """{seed: nats per token on the test text} of an arm's recorded runs that did not break."""
    found = {run.meta["seed"]: run.meta["test_nats"] for run in runs(arm)}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def gap(arm: str, against: str) -> Estimate:
    """Test nats per token of ``arm`` minus those of the same seed of ``against``."""
    return paired_t(nats(arm), nats(against))


def describe_gap(difference: Estimate) -> str:
    """A difference in nats per token and what its interval allows to say; more nats are worse."""
    return f"{difference.text('+.3f', ' nats')}: {difference.verdict('worse', 'better', MARGIN)}"


def describe_tried() -> str:
    """The differences of ELAS without warm-up, with another gradient or rule, from ELAS as it is."""
    others = {
        "no dense warm-up": "elas_no_warmup", "masked gradient": "elas_masked",
        "soft thresholding": "elas_soft", "soft, scaled": "elas_soft_scaled",
    }  # fmt: skip
    return "; ".join(
        f"{name} minus ELAS {describe_gap(gap(arm, 'elas_ste'))}" for name, arm in others.items()
    )


def perplexities() -> dict[str, np.ndarray]:
    """{arm: (seeds,) exp of the test nats per token}, of the arms in their order."""
    arms = dict.fromkeys(run.meta["arm"] for run in runs() if run.meta["stage"] == "arms")
    return {arm: np.exp(list(nats(arm).values())) for arm in arms}
