"""A JSON record of runs, one arm with one seed each, that calls side by side write and that claims read.

once            a run's result, unless it stands there of the same inputs
of_test_seeds   {arm: {seed: run}} without the seeds that chose settings
settings_tried  how many of those, in words
right_of        which questions of an exam were answered right
share_right     what share of them, over questions or seeds
"""

import json
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from labkit.studies import stats
from labkit.studies.files import digest
from labkit.studies.harness import Context

VALIDATION = 1000  # seeds from here on chose settings
Runs = dict[str, dict[int, dict[str, Any]]]


def once(
    context: Context,
    file: str,
    keys: Sequence[str],
    inputs: dict[str, Any],
    make: Callable[[], dict[str, Any] | None],
) -> None:
    """Write what ``make`` finds, unless None, under ``keys`` of ``file``: not if it stands of these inputs.

    keys  "runs", the run's name, and where its stages stand one by one the stage's
    """
    path, names = context.out / file, keys[:0:-1]
    mark = digest([*names, context.device, context.tiny, inputs])
    whole = json.loads(path.read_text()) if path.is_file() else {}
    stands: dict[str, Any] = reduce(lambda place, key: place.get(key, {}), keys, whole)
    if stands.get("fingerprint") == mark:
        print(f"{', '.join(names)}: stands in {path.name}")
    elif (found := make()) is not None:
        context.write(found | {"fingerprint": mark}, file, *keys)


def of_test_seeds(found: dict[str, Any], file: str, *stages: str) -> Runs:
    """{arm: {seed: run}} of the runs that have all ``stages``, without those that chose settings.

    ValueError if an arm has a seed twice, at two learning rates.
    """
    by_arm: Runs = {}
    for run in found["runs"].values():
        if not run.keys() >= set(stages):
            continue
        arm, seed = run["training"]["arm"], run["training"]["seed"]
        if seed < VALIDATION:
            if seed in by_arm.setdefault(arm, {}):
                raise ValueError(f"{file} has {arm}, seed {seed}, at two learning rates")
            by_arm[arm][seed] = run
    return by_arm


def settings_tried(found: dict[str, Any]) -> str:
    """``6 settings on validation seeds``: arms times learning rates."""
    seen = [run["training"] for run in found["runs"].values() if "training" in run]
    chosen = {(one["arm"], one["rate"]) for one in seen if one["seed"] >= VALIDATION}
    return (
        f"{len(chosen)} settings on validation seeds" if chosen else "no setting was chosen on validation"
    )


def right_of(exam: dict[str, Any]) -> np.ndarray:
    """Bool (Q,) of an exam's string of 0 and 1."""
    return np.array([digit == "1" for digit in exam["right"]])


def share_right(exams: Sequence[dict[str, Any]]) -> stats.Estimate:
    """Share of right answers with 95 %: over the questions of one exam, else over the exams, one a seed."""
    right = [right_of(exam) for exam in exams]
    return stats.proportion(right[0]) if len(right) == 1 else stats.t_interval([r.mean() for r in right])
