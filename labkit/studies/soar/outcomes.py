"""Accuracy against forward calls, paired puzzle by puzzle: the study behind notebook 04.

grid        the settings to compare, greedy first
compare     what one model solves with every setting, on the same puzzles
choose      one setting of a family, by its outcomes on validation puzzles
against     every setting beside the first (greedy): differences with intervals and exact tests, one model
over_seeds  the same for one arm of several trainings
describe    such a row in words; gain_words: its difference only
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

Setting = dict[str, Any]  # {"strategy": ..., other keywords of decode}
Outcome = dict[str, Any]  # what ``compare`` returns of one setting
FAMILIES = ("greedy", "parallel", "adaptive", "adaptive uncapped", "pbs", "soar")
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
    """A setting in a few characters: ``soar 4, .999``."""
    parts = {"parallel": ("max_parallel",), "adaptive": ("threshold",), "pbs": ("beam",),
             "soar": ("beam", "threshold")}.get(setting["strategy"], ())  # fmt: skip
    told = [f"{setting[part]:g}".lstrip("0") for part in parts if part in setting]
    told += ["uncapped"] * (setting["strategy"] == "adaptive" and setting.get("max_parallel") == UNCAPPED)
    told += ["sum"] * (setting.get("score") == "sum") + ["collapse 1"] * (setting.get("min_collapse") == 1)
    return f"{setting['strategy']} {', '.join(told)}".strip()


def compare(
    model: Callable, boards: np.ndarray, truths: np.ndarray, settings: Sequence[Setting],
    *, progress: bool = True, deadline: float = float("inf"),
) -> list[Outcome]:  # fmt: skip
    """Decode the same N puzzles with every setting.

    boards, truths   int (N, L) puzzles and their solutions
    deadline         a ``time.time()`` after which no further setting is started

    Returns one dict per setting: ``setting``, ``family``, ``label``, ``right`` bool (N,), ``accuracy`` its
    mean; means per puzzle ``calls`` (forward calls) and ``rows``; ``speed`` = the first setting's calls /
    calls; ``seconds`` for all; ``beams_moved_by``, as decode's meta has it.
    """
    if not settings or len(boards) != len(truths) or not len(boards):
        raise ValueError("settings, boards and truths must be non-empty, boards and truths equally many")
    prompts = torch.as_tensor(boards)
    found: list[Outcome] = []
    for setting in bar(progress, settings, desc="settings"):
        if found and time.time() > deadline:
            break
        began = time.perf_counter()
        trace = decode(model, prompts, record=False, **setting)
        spent = time.perf_counter() - began
        right = solved(trace.sequences, truths)
        calls, rows = float(trace.calls.mean()), float(trace.rows.mean())
        found.append({
            "setting": dict(setting), "family": family(setting), "label": label(setting), "right": right,
            "accuracy": float(right.mean()), "calls": calls, "rows": rows,
            "speed": found[0]["calls"] / calls if found else 1.0, "seconds": spent,
            "beams_moved_by": trace.meta["beams_moved_by"],
        })  # fmt: skip
    return found


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


def against(outcomes: Sequence[Outcome]) -> list[Row]:
    """Every outcome of one model beside the first; intervals are over puzzles and hold for this model."""
    return [
        _row(o["label"], [o], [outcomes[0]], stats.proportion(o["right"], "puzzles"),
             stats.bootstrap_questions(o["right"], outcomes[0]["right"], "puzzles"))
        for o in outcomes
    ]  # fmt: skip


def over_seeds(name: str, own: Sequence[Outcome], base: Sequence[Outcome]) -> Row:
    """One arm beside a baseline, an outcome of each per training seed: the seed is the unit."""
    right, other = (np.stack([o["right"] for o in outcomes]) for outcomes in (own, base))
    share = stats.t_interval([o["accuracy"] for o in own])
    return _row(name, own, base, share, stats.bootstrap_questions(right, other, "puzzles"))


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
    return f"{text}, {row.gain.verdict('more solved', 'fewer solved')}"
