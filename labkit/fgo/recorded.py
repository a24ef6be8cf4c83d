"""What the lab keeps of its FGO study on a GPU, and what can be read off it.

recorded         {arm: [TrainTrace per seed]}
bench            tokens per second of the sampler, transformers and TRL, as a dict
summary          one row per arm for a table: means over seeds with their range, the paper's beside
shorter          how much shorter one arm writes than another, at which accuracy, with intervals;
verdict          the same as words
entropy_lost     from which step on an arm's per-token entropy stays below another's, and where it went
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from labkit import checks
from labkit.fgo import published
from labkit.paths import write_atomic
from labkit.traces import TrainTrace

RESULTS = Path(__file__).resolve().parent / "results"
PILOTS = ("pilot_1e-4", "pilot_3e-4")
NORMAL = 1.96  # two-sided 95 %
Arms = Mapping[str, Sequence[TrainTrace]]


@cache
def recorded(name: str = "study") -> dict[str, list[TrainTrace]]:
    """The traces of ``labkit.fgo.study`` as it ran on a GPU, arms in the study's order.

    name  "study", or "pilot_1e-4", "pilot_3e-4": GRPO and FGO, one seed, at these learning rates, from a
          first reasoner that sampled a quarter of its answers right
    """
    from labkit.fgo.study import ARMS

    folder = RESULTS / ("" if checks.choice("name", name, ("study", *PILOTS)) == "study" else name)
    traces = [TrainTrace.load(path) for path in sorted(folder.glob("*.npz"))]
    found = {arm: [t for t in traces if t.meta["arm"] == arm] for arm in ARMS}
    return {arm: sorted(runs, key=lambda t: t.meta["seed"]) for arm, runs in found.items() if runs}


def bench() -> dict:
    """``labkit.fgo.bench``'s record: ways and provenance."""
    return json.loads((RESULTS / "bench.json").read_text())


def groups_of(run: TrainTrace, name: str, questions: int = published.QUESTIONS) -> float:
    """How many of a run's first ``questions`` groups were ``name``: "invalid" or "constant"."""
    checks.choice("name", name, ("invalid", "constant"))
    steps, counts = run.curve(f"fgo/{name}_groups")
    return float(counts[steps <= questions / run.meta["questions"]].sum())


def summary(arms: Arms) -> list[dict]:
    """One row per arm, the untrained model first: {name: (mean, lowest, highest)} over seeds.

    accuracy (%), length, act, entropy, entropy_per_token, checks of the last exam; invalid and constant
    groups of the first 3,200; ``paper``: its numbers where it has the arm (another model, other questions).
    """
    some = next(iter(arms.values()))
    names = ("accuracy", "length", "act", "entropy", "entropy_per_token", "checks")
    rows = [{
        "arm": "before", "seeds": len(some), "paper": published.MATH500["before"],
        **{name: _range([run.meta["before"][name] for run in some], name) for name in names},
    }]  # fmt: skip
    for arm, runs in arms.items():
        found = {name: _range([run.meta["after"][name] for run in runs], name) for name in names}
        counts = {name: _range([groups_of(run, name) for run in runs]) for name in ("invalid", "constant")}
        paper = published.MATH500.get(arm)
        if paper:
            paper = {**paper, "invalid": published.INVALID[arm]}
        rows.append({"arm": arm, "seeds": len(runs), "paper": paper, **found, **counts})
    return rows


def _range(values: Sequence[float], name: str = "") -> tuple[float, float, float]:
    scaled = np.array(values, float) * (100 if name == "accuracy" else 1)
    return float(scaled.mean()), float(scaled.min()), float(scaled.max())


def shorter(
    arms: Arms, arm: str = "FGO", against: str = "GRPO", when: str | int = "after"
) -> dict[str, float]:
    """How ``arm`` differs from ``against``, means over seeds.

    when             "after": the last, larger exam; or the step of one of the exams on the way
    length           relative difference (-0.3: 30 % shorter); length_low, length_high: 95 % interval
    accuracy         difference in points of 1; accuracy_low, accuracy_high: 95 % interval

    Standard errors join the exams' sampling error and the seeds' scatter: the larger of the two for each
    arm. Intervals are normal approximations (the ratio's by the delta method).
    """
    checks.choice("arm", arm, tuple(arms))
    checks.choice("against", against, tuple(arms))
    (long, long_error), (reference, reference_error) = (
        _mean(arms[name], "length", when) for name in (arm, against)
    )
    (right, right_error), (other, other_error) = (
        _mean(arms[name], "accuracy", when) for name in (arm, against)
    )
    ratio = long / reference
    ratio_error = ratio * np.hypot(long_error / long, reference_error / reference)
    gap, gap_error = right - other, np.hypot(right_error, other_error)
    found = {
        "length": ratio - 1,
        "length_low": ratio - 1 - NORMAL * ratio_error,
        "length_high": ratio - 1 + NORMAL * ratio_error,
        "accuracy": gap,
        "accuracy_low": gap - NORMAL * gap_error,
        "accuracy_high": gap + NORMAL * gap_error,
    }
    return {name: float(value) for name, value in found.items()}


def verdict(arms: Arms, arm: str = "FGO", against: str = "GRPO", when: str | int = "after") -> str:
    """``shorter`` as words: "length -55% (-58% to -52%), accuracy +0.4 points (-2.5 to +3.2)"."""
    gap = shorter(arms, arm, against, when)
    length = [f"{gap[key]:+.0%}" for key in ("length", "length_low", "length_high")]
    points = [f"{100 * gap[key]:+.1f}" for key in ("accuracy", "accuracy_low", "accuracy_high")]
    return (
        f"length {length[0]} ({length[1]} to {length[2]}), "
        f"accuracy {points[0]} points ({points[1]} to {points[2]})"
    )


def paper_step(arms: Arms) -> int:
    """The step after which an arm has seen as many questions as the paper's runs: an exam is at it."""
    return published.QUESTIONS // next(iter(arms.values()))[0].meta["questions"]


def _mean(runs: Sequence[TrainTrace], name: str, when: str | int) -> tuple[float, float]:
    values, errors = (np.array([_read(run, key, when) for run in runs]) for key in (name, f"{name}_error"))
    sampling = np.sqrt((errors**2).sum()) / len(runs)
    scatter = values.std(ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else 0.0
    return float(values.mean()), float(max(sampling, scatter))


def _read(run: TrainTrace, name: str, when: str | int) -> float:
    if when == "after":
        return run.meta["after"][name]
    steps, values = run.curve(f"exam/{name}")
    return float(values[steps == checks.choice("when", when, ["after", *steps.tolist()])][0])


def entropy_lost(arms: Arms, arm: str = "FGO", against: str = "GRPO") -> dict[str, float | None]:
    """From which exam on ``arm``'s entropy per token stays below ``against``'s, seeds' means; None: never.

    step        that step (or None); the rest is of the last exam
    ratio       entropy per token, ``arm`` over ``against``
    sum_ratio   entropy per response (sum), likewise
    choice_ratio, result_ratio   nats per token where the model chooses (check, go on, answer) and where
                it computes
    share, share_against         share of tokens that are such choices
    """
    checks.choice("arm", arm, tuple(arms))
    checks.choice("against", against, tuple(arms))
    curves = {}
    for name in (arm, against):
        steps, _ = arms[name][0].curve("exam/entropy_per_token")
        curves[name] = np.mean([run.curve("exam/entropy_per_token")[1] for run in arms[name]], 0)
    below = curves[arm] < curves[against]
    stays = np.flatnonzero(~below)[-1] + 1 if not below.all() else 0
    after = {
        name: {
            key: np.mean([run.meta["after"][key] for run in arms[name]])
            for key in ("entropy", "entropy_per_token", "entropy_choice", "entropy_result", "choice_share")
        }
        for name in (arm, against)
    }
    mine, other = after[arm], after[against]
    return {
        "step": int(steps[stays]) if stays < len(steps) else None,
        "ratio": float(mine["entropy_per_token"] / other["entropy_per_token"]),
        "sum_ratio": float(mine["entropy"] / other["entropy"]),
        "choice_ratio": float(mine["entropy_choice"] / other["entropy_choice"]),
        "result_ratio": float(mine["entropy_result"] / other["entropy_result"]),
        "share": float(mine["choice_share"]),
        "share_against": float(other["choice_share"]),
    }


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
        "Written by `python -m labkit.fgo.recorded` from the files in this folder.",
        "",
        f"{about['runs']} runs in lockstep on one {about['device']}, {about['time'][:10]}, torch "
        f"{about['versions']['torch']}:",
        f"`{about['command']}`,",
        f"{about['steps']} steps of {about['questions']} questions x {about['group']} responses, learning "
        f"rate {about['learning_rate']:g}, {about['seconds']:.0f} s.",
        f"Exam: {about['final_questions']:,} held-out questions, one sample each. Means of seeds (range).",
        "",
        "| arm | accuracy % | tokens | ACT | entropy, sum | entropy / token | checks | invalid of 3,200 | constant of 3,200 |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summary(arms):
        cells = [_cell(row.get(name), digits[name]) for name in columns]
        lines.append(f"| {row['arm']} | {' | '.join(cells)} |")
    since = f"from step {lost['step']} on" if lost["step"] is not None else "at no step for good"
    lines += [
        "",
        f"FGO against GRPO after {published.QUESTIONS:,} questions (step {step}, exams of "
        f"{about['exam_questions']} a seed): {verdict(arms, when=step)};",
        f"after all {about['steps'] * about['questions']:,}: {verdict(arms)}.",
        f"FGO's entropy per token stays below GRPO's {since}; at the end it is {lost['ratio']:.0%} of it "
        f"(where the model chooses {lost['choice_ratio']:.0%}, inside results {lost['result_ratio']:.0%}).",
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
        f"GRPO {verdict(arms)}.\n"
    )


def _cell(found: tuple[float, float, float] | None, digits: int) -> str:
    if found is None:
        return ""
    mean, low, high = (f"{value:,.{digits}f}" for value in found)
    return mean if low == high else f"{mean} ({low} to {high})"


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(
        prog="labkit.fgo.recorded", description="Write what the recorded runs say as a Markdown page."
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "README.md", help="default: %(default)s")
    write_atomic(parser.parse_args().out, lambda part: part.write_text(report()))
