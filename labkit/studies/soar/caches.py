"""What the caches of ``caches.py`` cost in right answers, and what they save.

python -m labkit.studies soar-caches [--stages ...] [--puzzles N] [--tiny]

quality   checkpoints decode the same prompts without a cache and with the approximate ones, greedy and by
          SOAR, for several block lengths; every arm is paired with the one without a cache
seconds   the same arms on fewer puzzles, interleaved rounds
llada     (cache_speed) prompts of 768 tokens, 64 generated in blocks of 32, greedy; with attention that is
          causal over blocks the exact cache too

Each stage is put into caches.json; seconds are wall time around synchronised work.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from labkit.progress import bar
from labkit.soar.load import load_model
from labkit.soar.models.caches import CACHES, Cached
from labkit.soar.search import decode
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.soar.tasks.sudoku import solved
from labkit.soar.tasks.sums import QUESTION, encode, right, sums
from labkit.studies import stats
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.soar.cache_speed import llada
from labkit.studies.soar.records import kernel_digest
from labkit.studies.timing import seconds as seconds_of
from labkit.studies.timing import take_turns, timed
from labkit.traces import BeamTrace

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"strategy": "greedy"},
    "soar": {"strategy": "soar", "beam": 4, "threshold": 0.999, "min_collapse": 2},
}
KINDS = (None, *CACHES[:2])
CACHE_BYTES = 32 * 2**30  # thousands of beams at a time
Arm = tuple[str, int | None, str | None]  # strategy, block length, cache


@dataclass(frozen=True)
class Task:
    """What a model is asked: prompts (N, L) with masks, which answers are right, and block lengths."""

    prompts: torch.Tensor
    right: Callable[[np.ndarray], np.ndarray]
    blocks: tuple[int | None, ...]

    def arms(self) -> list[Arm]:
        """Those without a cache first. In one block both approximate caches are the same: one is taken."""
        made = [(s, b, c) for c in KINDS for b in self.blocks for s in STRATEGIES]
        return [(s, b, c) for s, b, c in made if b is not None or c != "approximate-dual"]


def boards_task(boards: np.ndarray, truths: np.ndarray, blocks: tuple[int | None, ...]) -> Task:
    """Puzzles and their solutions, int (N, cells)."""
    return Task(torch.from_numpy(boards), partial(solved, solutions=truths), blocks)


def sudoku_task(count: int) -> Task:
    """The first ``count`` test puzzles."""
    return boards_task(*load_puzzles("test", count), (None, 9, 18))


def sums_task(count: int) -> Task:
    """``count`` sums that no training text asks for; the 23 characters behind the question are open."""
    texts = sums(count, seed=0, test=True)
    prompts = encode(texts)
    prompts[:, QUESTION:] = 0
    return Task(prompts, partial(right, texts=texts), (None, 8))


def quality(
    task: Task,
    model: torch.nn.Module,
    *,
    batch_size: int | None = None,
    deadline: float = float("inf"),
    progress: bool = True,
) -> dict:
    """Right answers of every arm and the token positions it computed.

    batch_size  as ``decode`` takes it
    deadline    ``time.time()`` after which no further arm is started

    Returns ``prompts``, ``length`` and ``arms``: dicts with ``strategy``, ``block_length``, ``cache``;
    ``accuracy``, ``difference`` (against the arm without a cache, and of that one against the one in a
    single block, which has none) with 95 % intervals over prompts ``low``, ``high``, ``difference_low``,
    ``difference_high``; ``gained``, ``lost`` and ``p`` of McNemar's test; ``positions`` computed a prompt
    and ``fewer``, how many times fewer than without a cache; ``calls`` and ``rows`` a prompt; ``seconds``
    of the run and of what it had to compile.
    """
    models, (count, length) = _with_caches(model), task.prompts.shape
    arms, answers, positions = [], {}, {}
    for arm in bar(progress, task.arms(), desc="caches"):
        if time.time() > deadline:
            break
        strategy, block, cache = arm
        trace, spent = timed(partial(_decode, models[cache], task.prompts, arm, batch_size))
        answers[arm] = task.right(trace.sequences)
        positions[arm] = _positions(models[cache], trace.meta["forward_rows"] * length) / count
        base = (strategy, block if cache else None, None)
        arms.append({
            "strategy": strategy, "block_length": block, "cache": cache,
            **_paired(answers[arm], answers[base]),
            "positions": positions[arm], "fewer": positions[strategy, block, None] / positions[arm],
            "calls": trace.calls.mean(), "rows": trace.rows.mean(), "seconds": spent,
        })  # fmt: skip
    return {"prompts": count, "length": length, "dtype": _dtype(model), "arms": arms}


def _paired(right: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    share, gain = stats.proportion(right), stats.bootstrap_questions(right, baseline)
    low, high = (0.0, 0.0) if right is baseline else (gain.low, gain.high)
    found = {"accuracy": share.estimate, "low": share.low, "high": share.high}
    found |= {"difference": gain.estimate, "difference_low": low, "difference_high": high}
    return found | stats.mcnemar(right, baseline)._asdict()


def seconds(task: Task, model: torch.nn.Module, rounds: int, deadline: float) -> dict:
    """Wall seconds of every arm in blocks, the arms taken in turn ``rounds`` times after a warm-up."""
    models = _with_caches(model)
    arms = [arm for arm in task.arms() if arm[1] is not None]
    calls = {arm: partial(_decode, models[arm[2]], task.prompts, arm) for arm in arms}
    take_turns(calls, 1)  # compiles what there is to compile
    spent = seconds_of(take_turns(calls, rounds, deadline))
    found = [
        {"strategy": s, "block_length": b, "cache": c, "seconds": spent[s, b, c],
         "faster": statistics.median(spent[s, b, None]) / statistics.median(spent[s, b, c])}
        for s, b, c in arms
    ]  # fmt: skip
    return {"prompts": len(task.prompts), "dtype": _dtype(model), "arms": found}


def _with_caches(model: Any) -> dict[str | None, torch.nn.Module]:
    return {kind: Cached(model, kind, CACHE_BYTES) if kind else model for kind in KINDS}


def _dtype(model: torch.nn.Module) -> str:
    return str(next(model.parameters()).dtype).split(".")[1]


def _decode(
    model: torch.nn.Module, prompts: torch.Tensor, arm: Arm, batch_size: int | None = None
) -> BeamTrace:
    setting = STRATEGIES[arm[0]] | {"block_length": arm[1], "batch_size": batch_size}
    return decode(model, prompts, record=False, **setting)


def _positions(model: torch.nn.Module, otherwise: int) -> int:
    if not isinstance(model, Cached):
        return otherwise
    computed, model.computed = model.computed, 0
    return computed


def table(found: dict) -> str:
    """The arms of one stage as text."""
    lines = []
    for arm in found["arms"]:
        line = ""
        if "block_causal" in arm:
            way = "causal over blocks" if arm["block_causal"] else "both ways"
            line = f"prompts at a time: {arm['prompts']}, attention {way:18s}"
        if "strategy" in arm:
            blocks = f"blocks of {arm['block_length']}" if arm["block_length"] else "one block"
            line += f"{arm['strategy']:6s} {blocks:12s}"
        line += f" {arm['cache'] or 'no cache':18s}"
        if "accuracy" in arm:
            low, middle, high = (100 * arm[f"difference{end}"] for end in ("_low", "", "_high"))
            line += f" {100 * arm['accuracy']:6.2f} % {middle:+.2f} [{low:+.2f}, {high:+.2f}]"
            line += f" {arm['fewer']:.2f} times fewer positions"
        else:
            line += f" {statistics.median(arm['seconds']):.3f} s (median of {len(arm['seconds'])}),"
            line += f" {arm['faster']:.2f} times faster"
        lines.append(line)
    return "\n".join(lines)


ARM = {"accuracy": float, "difference": float, "difference_low": float, "difference_high": float,
       "strategy": str, "block_length": int | None, "cache": str | None, "positions": float, "fewer": float,
       "calls": float, "gained": int, "lost": int, "p": float}  # fmt: skip
TIMES = {"cache": str | None, "seconds": [float], "faster": float}


def _quality(about: str, task: Callable[[int], Task], checkpoint: str, count: str) -> Stage:
    def judge(context: Context) -> dict:
        model = load_model(checkpoint, device=context.device, dtype=torch.bfloat16)
        asked, size = task(getattr(context.options, count)), context.options.batch_size
        return quality(asked, model, batch_size=size, deadline=context.deadline)

    return _stage(
        judge, about, checkpoint, {"prompts": int, "length": int, "arms": [ARM]}, count, "batch_size"
    )


def _seconds(context: Context) -> dict:
    model = load_model("lab/sudoku9", device=context.device, dtype=torch.bfloat16)
    return seconds(sudoku_task(context.options.timed), model, context.options.rounds, context.deadline)


def _llada(context: Context) -> dict:
    return llada(context.device, context.options.rounds, context.options.shape, context.deadline)


def _stage(run: Callable[[Context], dict], about: str, key: str, shape: dict, *reads: str) -> Stage:
    return Stage(
        run, about, "caches.json", key, shape, show=table,
        inputs=lambda c: c.pick(*reads) | {"seed": 0, "kernel": kernel_digest()},
    )  # fmt: skip


STUDY = Study(
    "soar-caches",
    "What the caches of decoding cost in right answers, and what they save.",
    {
        "lab/sudoku9": _quality("right answers, 9x9 Sudoku", sudoku_task, "lab/sudoku9", "puzzles"),
        "lab/sums": _quality("right answers, chain sums", sums_task, "lab/sums", "sums"),
        "llada": _stage(_llada, "seconds at LLaDA-8B's shape, random bf16 weights", "llada",
                        {"shape": str, "arms": [TIMES | {"prompts": int, "kept_bytes": int}],
                         "exact-block": {"largest difference": float, "deviation": float}},
                        "rounds", "shape"),
        "lab/sudoku9-early": _quality("right answers, the half-taught model", sudoku_task,
                                      "lab/sudoku9-early", "puzzles"),
        "seconds": _stage(_seconds, "seconds of 9x9 Sudoku", "seconds",
                          {"prompts": int, "arms": [TIMES | {"strategy": str}]}, "timed", "rounds"),
    },
    {
        "puzzles": Option(4096, "test puzzles", tiny=2),
        "sums": Option(2000, "held-out sums", tiny=3),
        "timed": Option(256, "puzzles of the timing", tiny=2),
        "batch_size": Option(None, "prompts at a time (default: all)", kind=int),
        "rounds": Option(3, "of the timing", tiny=1),
        "shape": Option("LLaDA-8B", "of llada's model", tiny="tiny", choices=("LLaDA-8B", "tiny")),
    },
)  # fmt: skip
