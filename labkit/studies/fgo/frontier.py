"""Accuracy against length: where every arm of FGO's study ends, and which arm beats which.

frontier         accuracy and length of every arm with their intervals, sampled and greedy, as JSON has them
of_seeds         one number of an arm's last exam, by seed
strongest_rival  the most accurate arm of another method that writes no more tokens
without_entropy  the same arm without FGO's entropy term
at_equal_length  an arm against the line that the strengths of a family draw
"""

from typing import Any

import numpy as np

from labkit import checks
from labkit.studies import stats
from labkit.studies.fgo.arms import ARMS
from labkit.studies.fgo.records import Arms

OWN = ("FGO", "FGO, std", "w/o entropy", "w/o length", "mean entropy")  # families; the others are rivals
LINES = ("linear penalty", "ShorterBetter", "DAPO", "w/o entropy")  # their strength sets the length
EXAMS = {"sampled": "after", "greedy": "after_greedy"}  # of the trained model, in a run's meta


def family(arm: str) -> str:
    """Arms of one family differ in strength alone; an arm that the study does not know is its own."""
    return ARMS[arm].family if arm in ARMS else arm


def of_seeds(arms: Arms, arm: str, number: str, exam: str = "sampled") -> dict[int, float]:
    """{seed: ``number`` of the arm's last exam}."""
    when = EXAMS[checks.choice("exam", exam, tuple(EXAMS))]
    return {
        run.meta["seed"]: run.meta[when][number] for run in arms[checks.choice("arm", arm, tuple(arms))]
    }


def means(arms: Arms, number: str, exam: str = "sampled") -> dict[str, float]:
    """{arm: mean over its seeds}."""
    return {arm: float(np.mean(list(of_seeds(arms, arm, number, exam).values()))) for arm in arms}


def frontier(arms: Arms) -> dict[str, Any]:
    """{"sampled" or "greedy": {arm: its point}}, and ``before``, the model that all began from.

    A point has ``family``, ``rival`` (of another method than FGO), ``seeds``, ``learning_rate``, and of
    ``length`` (tokens) and ``accuracy`` (%) the mean with its interval (None for one or two seeds);
    ``best``: no arm is by the means as accurate and as short, and better in one of the two.
    """
    some, found = next(iter(arms.values())), {}
    for exam in EXAMS:
        length, right = means(arms, "length", exam), means(arms, "accuracy", exam)
        found[exam] = {
            arm: {
                "family": family(arm), "rival": family(arm) not in OWN, "seeds": len(runs),
                "learning_rate": runs[0].meta["learning_rate"],
                "length": _three(arms, arm, "length", exam),
                "accuracy": _three(arms, arm, "accuracy", exam, 100),
                "best": not any(
                    length[o] <= length[arm] and right[o] >= right[arm]
                    and (length[o], right[o]) != (length[arm], right[arm]) for o in arms
                ),
            }
            for arm, runs in arms.items()
        }  # fmt: skip
    before = {
        exam: [float(np.mean([scale * run.meta[when][number] for run in some]))
               for number, scale in (("length", 1), ("accuracy", 100))]
        for exam, when in (("sampled", "before"), ("greedy", "before_greedy"))
    }  # fmt: skip
    return {"before": before, **found}


def _three(arms: Arms, arm: str, number: str, exam: str, scale: float = 1) -> list[float | None]:
    values = of_seeds(arms, arm, number, exam).values()
    seen = stats.t_interval([scale * value for value in values])
    return [None if value is None else round(value, 4) for value in (seen.estimate, seen.low, seen.high)]


def strongest_rival(arms: Arms, arm: str = "FGO", exam: str = "sampled") -> str:
    """The most accurate rival that writes no more tokens than ``arm``; if none does, the shortest.

    By the means of the same exam: such a choice favours the rival.
    """
    length, right = means(arms, "length", exam), means(arms, "accuracy", exam)
    rivals = [name for name in arms if family(name) not in OWN]
    short = [name for name in rivals if length[name] <= length[checks.choice("arm", arm, tuple(arms))]]
    return max(short, key=right.__getitem__) if short else min(rivals, key=length.__getitem__)


def without_entropy(arms: Arms, arm: str) -> str | None:
    """The arm with all settings of ``arm`` but beta 0; None if there is none."""
    if arm not in ARMS or ARMS[arm].family != "FGO":
        return None
    same = {**ARMS[arm].settings, "beta": 0.0}
    return next((name for name in arms if name in ARMS and ARMS[name].settings == same), None)


def at_equal_length(arms: Arms, arm: str, line: str, exam: str = "sampled") -> stats.Estimate | None:
    """Accuracy (of 1) of ``arm`` minus that of the family ``line`` at the same length, seed by seed.

    Between neighbouring strengths the line is straight. A seed in which ``arm`` is shorter or longer than
    the whole line is left out; None if all are, or if the family has one strength.
    """
    members = [name for name in arms if family(name) == line]
    right, length = (
        {name: of_seeds(arms, name, number, exam) for name in (*members, arm)}
        for number in ("accuracy", "length")
    )
    gaps = []
    for seed, mine in length[arm].items():
        points = sorted((length[name][seed], right[name][seed]) for name in members if seed in length[name])
        if len(points) > 1 and points[0][0] <= mine <= points[-1][0]:
            across, up = np.array(points).T
            gaps.append(right[arm][seed] - float(np.interp(mine, across, up)))
    return stats.t_interval(gaps) if gaps else None
