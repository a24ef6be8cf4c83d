"""What FGO's records say, in rows and in sentences.

claims               the headline: how length and accuracy differ from GRPO's
summary              one row per arm for a table: every seed's numbers, the paper's beside
difference           length and accuracy of one arm against another, paired by seed
describe_difference  the same in words
entropy_lost         from which step on an arm's per-token entropy stays below another's, and where it went
"""

from collections.abc import Sequence

import numpy as np

from labkit import checks
from labkit.studies import published, stats
from labkit.studies.claims import Claim, where
from labkit.studies.fgo import records
from labkit.studies.fgo.records import Arms
from labkit.traces import TrainTrace


def claims() -> list[Claim]:
    """One row. FileNotFoundError without a recorded study of FGO and GRPO."""
    arms = records.runs()
    if not {"FGO", "GRPO"} <= set(arms):
        raise FileNotFoundError("no recorded FGO study")
    about, step = arms["FGO"][0].meta, paper_step(arms)
    early, late = (f"{about['questions'] * steps:,} questions" for steps in (step, about["steps"]))
    words = (
        f"after {early}: {describe_difference(arms, when=step)}; after {late}: {describe_difference(arms)}"
    )
    ask = "How do length and accuracy differ from GRPO's?"
    return [Claim("FGO", ask, words, where(about), notebook="06_fgo_entropy")]


def groups_of(run: TrainTrace, name: str, questions: int = published.QUESTIONS) -> float:
    """How many of a run's first ``questions`` groups were ``name``: "invalid" or "constant"."""
    checks.choice("name", name, ("invalid", "constant"))
    steps, counts = run.curve(f"fgo/{name}_groups")
    return float(counts[steps <= questions / run.meta["questions"]].sum())


def summary(arms: Arms) -> list[dict]:
    """One row per arm, the untrained model first: {name: one value per seed}.

    accuracy (%), length, act, entropy, entropy_per_token, checks of the last exam; invalid and constant
    groups of the first 3,200; ``paper``: its numbers where it has the arm (another model, other questions).
    """
    some = next(iter(arms.values()))
    rows = [
        {"arm": "before", "seeds": len(some), "paper": published.MATH500["before"], **_exam(some, "before")}
    ]
    for arm, runs in arms.items():
        counts = {name: [groups_of(run, name) for run in runs] for name in ("invalid", "constant")}
        paper: dict | None = published.MATH500.get(arm)
        if paper:
            paper = {**paper, "invalid": published.INVALID[arm]}
        rows.append({"arm": arm, "seeds": len(runs), "paper": paper, **_exam(runs, "after"), **counts})
    return rows


def _exam(runs: Sequence[TrainTrace], when: str) -> dict[str, list[float]]:
    names = ("accuracy", "length", "act", "entropy", "entropy_per_token", "checks")
    return {
        name: [(100 if name == "accuracy" else 1) * run.meta[when][name] for run in runs] for name in names
    }


def difference(
    arms: Arms, arm: str = "FGO", against: str = "GRPO", when: str | int = "after"
) -> dict[str, stats.Estimate]:
    """How ``arm`` differs from ``against``, seed by seed.

    when      "after": the last, larger exam; or the step of one of the exams on the way

    Returns ``length``, relative (-0.3: 30 % shorter), and ``accuracy``, of 1.
    """
    checks.choice("arm", arm, tuple(arms))
    checks.choice("against", against, tuple(arms))

    def of_seed(name: str, number: str) -> dict[int, float]:
        return {run.meta["seed"]: _read(run, number, when) for run in arms[name]}

    base, long = (of_seed(name, "length") for name in (against, arm))
    change = {seed: long[seed] / base[seed] - 1 for seed in long if seed in base}
    return {
        "length": stats.t_interval(list(change.values())),
        "accuracy": stats.paired_t(of_seed(arm, "accuracy"), of_seed(against, "accuracy")),
    }


def describe_difference(
    arms: Arms, arm: str = "FGO", against: str = "GRPO", when: str | int = "after"
) -> str:
    """``difference`` as words: "length -59 and -54 % (2 seeds, no interval), accuracy ..."."""
    gap = difference(arms, arm, against, when)
    length, accuracy = gap["length"], gap["accuracy"]
    return f"length {length.text('+.0f', ' %', 100)}, accuracy {accuracy.text('+.1f', ' points', 100)}"


def paper_step(arms: Arms) -> int:
    """The step after which an arm has seen as many questions as the paper's runs: an exam is at it."""
    return published.QUESTIONS // next(iter(arms.values()))[0].meta["questions"]


def _read(run: TrainTrace, name: str, when: str | int) -> float:
    if when == "after":
        return run.meta["after"][name]
    steps, values = run.curve(f"exam/{name}")
    return float(values[steps == checks.choice("when", when, ["after", *steps.tolist()])][0])


def entropy_lost(arms: Arms, arm: str = "FGO", against: str = "GRPO") -> dict[str, list]:
    """From which exam on ``arm``'s entropy per token stays below ``against``'s: a value per common seed.

    step        that step, None where it does not; the rest is of the last exam
    ratio       entropy per token, ``arm`` over ``against``
    sum_ratio   entropy per response (sum), likewise
    choice_ratio, result_ratio   nats per token where the model chooses (check, go on, answer) and where
                it computes
    """
    checks.choice("arm", arm, tuple(arms))
    checks.choice("against", against, tuple(arms))
    base = {run.meta["seed"]: run for run in arms[against]}
    pairs = [(run, base[run.meta["seed"]]) for run in arms[arm] if run.meta["seed"] in base]
    found: dict[str, list] = {"step": [_stays_below(run, other) for run, other in pairs]}
    for name, key in (("ratio", "entropy_per_token"), ("sum_ratio", "entropy"),
                      ("choice_ratio", "entropy_choice"), ("result_ratio", "entropy_result")):  # fmt: skip
        found[name] = [run.meta["after"][key] / other.meta["after"][key] for run, other in pairs]
    return found


def _stays_below(run: TrainTrace, other: TrainTrace) -> int | None:
    steps, mine = run.curve("exam/entropy_per_token")
    below = mine < other.curve("exam/entropy_per_token")[1]
    if not below[-1]:
        return None
    return int(steps[0 if below.all() else np.flatnonzero(~below)[-1] + 1])
