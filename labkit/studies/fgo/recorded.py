"""What the lab keeps of its FGO study on a GPU, and what can be read off it.

recorded         {arm: [TrainTrace per seed]}
bench            tokens per second of the sampler, transformers and TRL, as a dict
summary          one row per arm for a table: every seed's numbers, the paper's beside
difference       length and accuracy of one arm against another, paired by seed; in_words: as text
entropy_lost     from which step on an arm's per-token entropy stays below another's, and where it went
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from labkit import checks
from labkit.paths import write_atomic
from labkit.studies import stats
from labkit.studies.fgo import published
from labkit.traces import TrainTrace

RESULTS = Path(__file__).resolve().parent / "results"
PILOTS = ("pilot_1e-4", "pilot_3e-4")
Arms = Mapping[str, Sequence[TrainTrace]]


@cache
def recorded(name: str = "study") -> dict[str, list[TrainTrace]]:
    """The traces of ``labkit.studies.fgo.study`` as it ran on a GPU, arms in the study's order.

    name  "study", or "pilot_1e-4", "pilot_3e-4": GRPO and FGO, one seed, at these learning rates, from a
          first reasoner that sampled a quarter of its answers right
    """
    from labkit.studies.fgo.lockstep import ARMS

    folder = RESULTS / ("" if checks.choice("name", name, ("study", *PILOTS)) == "study" else name)
    traces = [TrainTrace.load(path) for path in sorted(folder.glob("*.npz"))]
    found = {arm: [t for t in traces if t.meta["arm"] == arm] for arm in ARMS}
    return {arm: sorted(runs, key=lambda t: t.meta["seed"]) for arm, runs in found.items() if runs}


def bench() -> dict:
    """``labkit.studies.fgo.bench``'s record: ways and provenance."""
    return json.loads((RESULTS / "bench.json").read_text())


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
        paper = published.MATH500.get(arm)
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


def in_words(arms: Arms, arm: str = "FGO", against: str = "GRPO", when: str | int = "after") -> str:
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


def report() -> str:
    """results/README.md: the study's and the bench's numbers as Markdown, from the files beside it."""
    arms, speed = recorded(), bench()
    about = arms["FGO"][0].meta
    lost, step = entropy_lost(arms), paper_step(arms)
    columns = ("accuracy", "length", "act", "entropy", "entropy_per_token", "checks", "invalid", "constant")
    digits = dict(zip(columns, (1, 1, 0, 2, 3, 2, 0, 0), strict=True))
    lines = [
        "# FGO, recorded",
        "",
        "Written by `python -m labkit.studies.fgo.recorded` from the files in this folder.",
        "",
        f"{about['runs']} runs in lockstep on one {about['device']}, {about['time'][:10]}, torch "
        f"{about['versions']['torch']}:",
        f"`{about['command']}`,",
        f"{about['steps']} steps of {about['questions']} questions x {about['group']} responses, learning "
        f"rate {about['learning_rate']:g}, {about['seconds']:.0f} s.",
        f"Exam: {about['final_questions']:,} held-out questions, one sample each. One value a seed.",
        "",
        "| arm | accuracy % | tokens | ACT | entropy, sum | entropy / token | checks | invalid of 3,200 | constant of 3,200 |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summary(arms):
        cells = [stats.spread(row[name], f",.{digits[name]}f") if name in row else "" for name in columns]
        lines.append(f"| {row['arm']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"FGO against GRPO after {published.QUESTIONS:,} questions (step {step}, exams of "
        f"{about['exam_questions']} questions): {in_words(arms, when=step)};",
        f"after all {about['steps'] * about['questions']:,}: {in_words(arms)}.",
        f"FGO's entropy per token stays below GRPO's of the same seed from step "
        f"{' and '.join(map(str, lost['step']))} on; at the end it is {_percent(lost['ratio'])} of it "
        f"(where the model chooses {_percent(lost['choice_ratio'])}, inside results "
        f"{_percent(lost['result_ratio'])}).",
        "",
        *map(_pilot, PILOTS),
        "",
        f"Sampling, {speed['provenance']['rows']} rows, one model, {speed['provenance']['device']}:",
        "",
        "| way | tokens per second (median; range) |",
        "|---|---|",
    ]
    for way, row in speed["ways"].items():
        span = f"{row['lowest']:,.0f} to {row['highest']:,.0f}"
        lines.append(f"| {way} | {row['tokens_per_second']:,.0f} ({span}) |")
    return "\n".join(lines) + "\n"


def _pilot(name: str) -> str:
    arms = recorded(name)
    meta = arms["FGO"][0].meta
    right = [100 * arms[arm][0].meta["after"]["accuracy"] for arm in ("GRPO", "FGO")]
    return (
        f"Pilot, one seed, {meta['steps']} steps at {meta['learning_rate']:g} from a model that sampled "
        f"{meta['before']['accuracy']:.0%} right: GRPO {right[0]:.1f} %, FGO {right[1]:.1f} %; FGO against "
        f"GRPO {in_words(arms)}.\n"
    )


def _percent(shares: Sequence[float]) -> str:
    return stats.spread([100 * share for share in shares], ".0f") + " %"


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(
        prog="labkit.studies.fgo.recorded",
        description="Write what the recorded runs say as a Markdown page.",
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "README.md", help="default: %(default)s")
    write_atomic(parser.parse_args().out, lambda part: part.write_text(report()))
