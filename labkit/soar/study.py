"""Accuracy against forward calls, paired puzzle by puzzle: the study behind notebook 04."""

import time
from collections.abc import Callable, Sequence
from math import comb
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit import checks
from labkit.soar.search import decode
from labkit.soar.sudoku import solved

Setting = dict[str, Any]  # {"strategy": ..., other keywords of decode}


def grid(
    beams: Sequence[int], thresholds: Sequence[float], counts: Sequence[int],
    scores: Sequence[str] = ("mean",), collapses: Sequence[int] = (2,),
) -> list[Setting]:  # fmt: skip
    """The settings to compare: greedy first, fixed ``counts`` a step, thresholds, beams, both.

    scores, collapses  of SOAR; with one beam neither makes a difference, so each is taken once
    """
    variants = [{"score": s, "min_collapse": c} for s in scores for c in collapses]
    return [
        {"strategy": "greedy"},
        *({"strategy": "parallel", "max_parallel": n} for n in counts),
        *({"strategy": "adaptive", "threshold": t} for t in thresholds),
        *({"strategy": "pbs", "beam": k} for k in beams if k > 1),  # with one beam it is greedy
        *(
            {"strategy": "soar", "beam": k, "threshold": t, **variant}
            for t in thresholds
            for k in beams
            for variant in variants[: 1 if k == 1 else None]
        ),
    ]


def compare(
    model: Callable, boards: np.ndarray, truths: np.ndarray, settings: Sequence[Setting],
    *, seed: int = 0, resamples: int = 2000, progress: bool = True, seconds: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Decode the same N puzzles with every setting and pair each with the first one.

    boards, truths   int (N, L) puzzles and their solutions
    resamples        bootstrap resamples of the puzzles
    seconds          start no further setting after so many; None: run all

    Returns one dict per setting: ``setting``, ``label``, ``accuracy`` with its 95 % bootstrap interval
    ``low``, ``high``; ``difference`` to the first setting with ``difference_low``, ``difference_high``;
    ``gained`` and ``lost`` puzzles, ``p`` of the two-sided exact sign test and its ``z``; means per
    puzzle ``calls`` (forward calls) and ``rows``; ``speed`` = the first setting's calls / calls;
    ``seconds`` for all; ``right``: which puzzles, as bits in hexadecimal (numpy.packbits).
    """
    checks.integer("resamples", resamples, 1)
    if not settings or len(boards) != len(truths) or not len(boards):
        raise ValueError("settings, boards and truths must be non-empty, boards and truths equally many")
    prompts = torch.as_tensor(boards)
    rng = np.random.default_rng(seed)
    found, baseline, start = [], None, time.perf_counter()
    for setting in tqdm(settings, desc="settings", disable=not progress):
        began = time.perf_counter()
        if found and seconds is not None and began - start > seconds:
            break
        trace = decode(model, prompts, record=False, **setting)
        spent = time.perf_counter() - began
        right = solved(trace.sequences, truths)
        baseline = right if baseline is None else baseline
        calls = trace.calls.mean()
        found.append({
            "setting": dict(setting), "label": label(setting), **paired(right, baseline, rng, resamples),
            "calls": calls, "rows": trace.rows.mean(), "speed": found[0]["calls"] / calls if found else 1.0,
            "seconds": spent, "right": np.packbits(right).tobytes().hex(),
        })  # fmt: skip
    return found


def paired(
    right: np.ndarray, baseline: np.ndarray, rng: np.random.Generator, resamples: int = 2000
) -> dict[str, Any]:
    """How often bool (N,) ``right`` is true, and how much more often than ``baseline`` on the same N.

    Returns the keys from ``accuracy`` to ``z`` that ``compare`` describes.
    """
    count, change = len(right), right.astype(float) - baseline
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    # Resampling puzzles moves only how many of each kind there are.
    again = rng.binomial(count, right.mean(), resamples) / count
    low, high = np.quantile(again, (0.025, 0.975))
    kinds = np.array([gained, lost, count - gained - lost]) / count
    again = rng.multinomial(count, kinds, resamples) @ [1, -1, 0] / count
    worse, better = np.quantile(again, (0.025, 0.975))
    return {
        "accuracy": right.mean(), "low": low, "high": high, "difference": change.mean(),
        "difference_low": worse, "difference_high": better, "gained": gained, "lost": lost,
        "p": sign_test(gained, lost), "z": (gained - lost) / max(1, gained + lost) ** 0.5,
    }  # fmt: skip


def sign_test(gained: int, lost: int) -> float:
    """Two-sided exact p of ``gained`` against ``lost`` if both were equally likely."""
    total = checks.integer("gained", gained, 0) + checks.integer("lost", lost, 0)
    tail = sum(comb(total, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**total)


def choose(
    outcomes: Sequence[dict[str, Any]], strategy: str = "soar", want: str = "fast", speed: float = 0.0
) -> dict[str, Any]:
    """One outcome of ``strategy``: to be chosen on validation puzzles, then tested on others.

    want  "fast": the fewest calls among those that solve at least as many as the first outcome does
          (greedy), or the most accurate if none does; "accurate": the most accurate, then the fastest
    speed  least ``speed`` against greedy that may be chosen
    """
    checks.choice("want", want, ("fast", "accurate"))
    own = [o for o in outcomes if o["setting"]["strategy"] == strategy and o["speed"] >= speed]
    if not own:
        checks.fail("strategy", strategy, f"a strategy of one of the outcomes of speed >= {speed:g}")
    enough = [outcome for outcome in own if outcome["accuracy"] >= outcomes[0]["accuracy"]]
    if want == "fast" and enough:
        return min(enough, key=lambda outcome: outcome["calls"])
    return max(own, key=lambda outcome: (outcome["accuracy"], -outcome["calls"]))


def describe(outcome: dict[str, Any], baseline: dict[str, Any]) -> str:
    """One paired comparison in words: difference, whether it is noise, calls and rows."""
    noise = outcome["difference_low"] <= 0 <= outcome["difference_high"]
    return (
        f"{outcome['label']} solves {outcome['accuracy']:.1%}, {baseline['label']} "
        f"{baseline['accuracy']:.1%}: {100 * outcome['difference']:+.1f} points, p = {outcome['p']:.2g}, "
        f"{'within noise' if noise else 'more than noise'}; {outcome['calls']:.1f} forward calls "
        f"against {baseline['calls']:.1f}, {outcome['rows']:.1f} rows"
    )


def label(setting: Setting) -> str:
    """A setting in a few characters: ``soar 4, .999``."""
    parts = {"parallel": ("max_parallel",), "adaptive": ("threshold",), "pbs": ("beam",),
             "soar": ("beam", "threshold")}.get(setting["strategy"], ())  # fmt: skip
    told = [f"{setting[part]:g}".lstrip("0") for part in parts if part in setting]
    told += ["sum"] * (setting.get("score") == "sum") + ["collapse 1"] * (setting.get("min_collapse") == 1)
    return f"{setting['strategy']} {', '.join(told)}".strip()
