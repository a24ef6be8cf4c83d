"""Accuracy against forward calls, paired puzzle by puzzle: the studies behind notebook 04.

grid        the settings to compare, greedy first
measure     what any decodes of the same questions give, setting by setting
compare     what one model solves of the same puzzles with every setting
choose      one setting of a family, by its outcomes on validation puzzles
against     every setting beside the first (greedy): differences with intervals and exact tests, one model
over_seeds  the same for one arm of several trainings
describe    such a row in words; gain_words: its difference only
metrics     what notebook 04 records of rows that were computed live
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from labkit import checks
from labkit.progress import bar
from labkit.soar.search import decode
from labkit.soar.tasks.sudoku import solved
from labkit.studies import stats
from labkit.traces import BeamTrace

Setting = dict[str, Any]  # {"strategy": ..., other keywords of decode}
Outcome = dict[str, Any]  # what ``compare`` returns of one setting
FAMILIES = (
    "greedy", "parallel", "adaptive", "adaptive uncapped", "factor", "eb", "klass", "pbs", "order_token",
    "soar",
)  # fmt: skip
PARTS = {  # of a label
    "parallel": ("max_parallel",), "adaptive": ("threshold",), "factor": ("factor",), "eb": ("gamma",),
    "klass": ("threshold", "kl_threshold"), "pbs": ("beam",), "order_token": ("beam",),
    "soar": ("beam", "threshold"),
}  # fmt: skip
MARGIN = 0.1  # points: smallest difference of the share solved that would matter, a puzzle in a thousand
UNCAPPED = 10_000  # max_parallel of adaptive decoding that may fill a whole block in one step


def grid(
    beams: Sequence[int], thresholds: Sequence[float], counts: Sequence[int],
    scores: Sequence[str] = ("mean",), collapses: Sequence[int] = (2,),
) -> list[Setting]:  # fmt: skip
    """The settings to compare: greedy first, fixed ``counts`` a step, thresholds, beams, both.

    Adaptive decoding is taken twice: capped as SOAR is (``decode``'s max_parallel) and without a cap.
    scores, collapses  of SOAR; with one beam neither makes a difference, so each is taken once
    """
    variants = [{"score": s, "min_collapse": c} for s in scores for c in collapses]
    return [
        {"strategy": "greedy"},
        *({"strategy": "parallel", "max_parallel": n} for n in counts),
        *({"strategy": "adaptive", "threshold": t} for t in thresholds),
        *({"strategy": "adaptive", "threshold": t, "max_parallel": UNCAPPED} for t in thresholds),
        *({"strategy": "pbs", "beam": k} for k in beams if k > 1),  # with one beam it is greedy
        *(
            {"strategy": "soar", "beam": k, "threshold": t, **variant}
            for t in thresholds
            for k in beams
            for variant in variants[: 1 if k == 1 else None]
        ),
    ]


def family(setting: Setting) -> str:
    """Which of FAMILIES a setting belongs to."""
    free = setting["strategy"] == "adaptive" and setting.get("max_parallel") == UNCAPPED
    return "adaptive uncapped" if free else setting["strategy"]


def label(setting: Setting) -> str:
    """A setting in a few characters: ``soar 4, .999``; ``greedy blocks of 32``."""
    parts = PARTS.get(setting["strategy"], ())
    told = [f"{setting[part]:g}".lstrip("0") for part in parts if part in setting]
    told += ["uncapped"] * (setting["strategy"] == "adaptive" and setting.get("max_parallel") == UNCAPPED)
    told += ["sum"] * (setting.get("score") == "sum") + ["collapse 1"] * (setting.get("min_collapse") == 1)
    if "block_length" in setting:
        told.append(f"blocks of {setting['block_length']}")
    return f"{setting['strategy']} {', '.join(told)}".strip()


def measure(
    run: Callable[[Setting], BeamTrace], judge: Callable[[BeamTrace], np.ndarray],
    settings: Sequence[Setting], *, progress: bool = True, deadline: float = float("inf"),
) -> list[Outcome]:  # fmt: skip
    """Decode the same N questions by ``run`` with every setting, and have them judged: bool (N,).

    deadline  a ``time.time()`` after which no further setting is started

    Returns one dict per setting: ``setting``, ``family``, ``label``, ``right`` bool (N,), ``accuracy`` its
    mean; means per question ``calls`` (forward calls) and ``rows``; ``speed`` = the first setting's calls
    / calls; ``seconds`` for all; ``beams_moved_by``, as decode's meta has it.
    """
    if not settings:
        checks.fail("settings", settings, "at least one")
    found: list[Outcome] = []
    for setting in bar(progress, settings, desc="settings"):
        if found and time.time() > deadline:
            break
        began = time.perf_counter()
        trace = run(setting)
        spent = time.perf_counter() - began
        right = judge(trace)
        calls, rows = float(trace.calls.mean()), float(trace.rows.mean())
        found.append({
            "setting": dict(setting), "family": family(setting), "label": label(setting), "right": right,
            "accuracy": float(right.mean()), "calls": calls, "rows": rows,
            "speed": found[0]["calls"] / calls if found else 1.0, "seconds": spent,
            "beams_moved_by": trace.meta["beams_moved_by"],
        })  # fmt: skip
    return found


def compare(
    model: Callable, boards: np.ndarray, truths: np.ndarray, settings: Sequence[Setting], **how: Any
) -> list[Outcome]:
    """``measure`` of the same N puzzles: boards and their solutions, int (N, L); ``how`` is measure's."""
    if len(boards) != len(truths) or not len(boards):
        checks.fail("truths", len(truths), f"as many as the boards, {len(boards)}, at least one")
    prompts = torch.as_tensor(boards)
    return measure(
        lambda setting: decode(model, prompts, record=False, **setting),
        lambda trace: solved(trace.sequences, truths), settings, **how,
    )  # fmt: skip


def choose(
    outcomes: Sequence[Outcome], of: str = "soar", want: str = "fast", speed: float = 0.0
) -> Outcome:
    """One outcome of the family ``of``: to be chosen on validation puzzles, then tested on others.

    want  "fast": the fewest calls among those that solve at least as many as the first outcome does
          (greedy), or the most accurate if none does; "accurate": the most accurate, then the fastest
    speed  least ``speed`` against greedy that may be chosen
    """
    checks.choice("want", want, ("fast", "accurate"))
    own = [o for o in outcomes if o["family"] == of and o["speed"] >= speed]
    if not own:
        checks.fail("of", of, f"the family of one of the outcomes of speed >= {speed:g}")
    enough = [outcome for outcome in own if outcome["accuracy"] >= outcomes[0]["accuracy"]]
    if want == "fast" and enough:
        return min(enough, key=lambda outcome: outcome["calls"])
    return max(own, key=lambda outcome: (outcome["accuracy"], -outcome["calls"]))


@dataclass(frozen=True)
class Row:
    """One arm beside a baseline on the same puzzles; shares are of 1."""

    label: str
    family: str
    share: stats.Estimate  # solved
    gain: stats.Estimate  # solved, minus the baseline's share
    tests: tuple[stats.Paired, ...]  # McNemar's test against the baseline, one per model
    calls: float  # forward calls a puzzle; rows, speed, seconds as in Outcome: means over the models
    rows: float
    speed: float
    seconds: float


def against(outcomes: Sequence[Outcome], unit: str = "puzzles") -> list[Row]:
    """Every outcome of one model beside the first; intervals are over questions and hold for this model."""
    return [
        _row(o["label"], [o], [outcomes[0]], stats.proportion(o["right"], unit),
             stats.bootstrap_questions(o["right"], outcomes[0]["right"], unit))
        for o in outcomes
    ]  # fmt: skip


def over_seeds(
    name: str, own: Sequence[Outcome], base: Sequence[Outcome], questions: str | None = None
) -> Row:
    """One arm beside a baseline, an outcome of each per training seed, which is the unit.

    questions  of a study of one training: what the questions are called. The interval is over them then,
               as in ``against``, and holds for this model alone
    """
    right, other = (np.stack([o["right"] for o in outcomes]) for outcomes in (own, base))
    if questions:
        (share,) = (stats.proportion(one, questions) for one in right)
        gain = stats.bootstrap_questions(right[0], other[0], questions)
    else:
        share = stats.t_interval([o["accuracy"] for o in own])
        gain = stats.bootstrap_questions(right, other, "puzzles")
    return _row(name, own, base, share, gain)


def _row(
    name: str, own: Sequence[Outcome], base: Sequence[Outcome], share: stats.Estimate, gain: stats.Estimate
) -> Row:
    tests = tuple(stats.mcnemar(a["right"], b["right"]) for a, b in zip(own, base, strict=True))
    means = {key: float(np.mean([o[key] for o in own])) for key in ("calls", "rows", "seconds")}
    speed = float(np.mean([o["speed"] for o in own]))
    return Row(name, own[0]["family"], share, gain, tests, speed=speed, **means)


def describe(row: Row, base: str = "greedy") -> str:
    """A row in words: the difference, what its interval allows to say, the exact test, the cost."""
    p = ", ".join(f"{test.p:.2g}" for test in row.tests)
    return (
        f"{row.label} {gain_words(row, base)}, exact p {p}; {row.calls:.1f} forward calls a puzzle "
        f"({row.speed:.2f}x fewer than greedy), {row.rows:.1f} rows"
    )


def gain_words(row: Row, base: str = "greedy") -> str:
    """``+0.98 points (95 % ...) against greedy``, and where there is an interval, what it allows to say."""
    text = f"{row.gain.text('+.2f', ' points', 100)} against {base}"
    if row.gain.low is None:
        return text
    return f"{text}, {row.gain.verdict('more solved', 'fewer solved', MARGIN, 100)}"


def metrics(chosen: dict[str, Row], pbs: Row) -> list[tuple[str, float]]:
    """(name, value) of the row that each rule chose, and of the widest PBS, all of one model."""
    found = [
        (f"SOAR, {rule}: {name}", value)
        for rule, row in chosen.items()
        for name, value in (
            ("accuracy", row.share.estimate), ("difference", row.gain.estimate), ("p", row.tests[0].p),
            ("speed", row.speed), ("rows", row.rows),
        )
    ]  # fmt: skip
    return [*found, ("PBS solved", pbs.share.estimate), ("PBS sign test p", pbs.tests[0].p)]
