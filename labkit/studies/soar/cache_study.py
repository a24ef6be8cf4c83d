"""What the caches of ``caches.py`` cost in right answers, and what they save.

python -m labkit.studies.soar.cache_study [--device cuda] [--puzzles N] [--stages ...] [--tiny]

quality  the lab's checkpoints decode the same prompts without a cache and with the approximate ones, greedy
         and by SOAR, for several block lengths; every arm is paired with the one without a cache
seconds  the same arms on fewer puzzles, interleaved rounds
llada    seconds at LLaDA-8B's shape with random bf16 weights: prompts of 768 tokens, 64 generated in
         blocks of 32, greedy; with attention that is causal over blocks the exact cache too

Each stage is put into results/caches.json as soon as it is there; seconds are wall time around
synchronised work. ``--seconds`` starts no further stage, round or arm after so many.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.soar.load import load_model
from labkit.soar.models.caches import CACHES, Cached
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.search import decode
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.soar.tasks.sudoku import solved
from labkit.soar.tasks.sums import QUESTION, encode, right, sums
from labkit.studies import stats
from labkit.studies.soar.cache_speed import interleaved, llada
from labkit.studies.soar.timing import run_stages, timed
from labkit.traces import BeamTrace

RESULTS = Path(__file__).parent / "results" / "caches.json"
STRATEGIES = {
    "greedy": {"strategy": "greedy"},
    "soar": {"strategy": "soar", "beam": 4, "threshold": 0.999, "min_collapse": 2},
}
KINDS = (None, *CACHES[:2])
CACHE_BYTES = 32 * 2**30  # thousands of beams at a time
STAGES = ("lab/sudoku9", "lab/sums", "llada", "lab/sudoku9-early", "seconds")
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
    model: MaskedLM,
    *,
    batch_size: int | None = None,
    until: float = float("inf"),
    progress: bool = True,
) -> dict:
    """Right answers of every arm and the token positions it computed.

    batch_size  as ``decode`` takes it
    until       ``time.perf_counter()`` after which no further arm is started

    Returns ``prompts``, ``length`` and ``arms``: dicts with ``strategy``, ``block_length``, ``cache``;
    ``accuracy``, ``difference`` (against the arm without a cache, and of that one against the one in a
    single block, which has none) with 95 % intervals over prompts ``low``, ``high``, ``difference_low``,
    ``difference_high``; ``gained``, ``lost`` and ``p`` of McNemar's test; ``positions`` computed a prompt
    and ``fewer``, how many times fewer than without a cache; ``calls`` and ``rows`` a prompt; ``seconds``
    of the run and of what it had to compile.
    """
    models, (count, length) = _with_caches(model), task.prompts.shape
    arms, answers, positions = [], {}, {}
    for arm in tqdm(task.arms(), desc="caches", disable=not progress):
        if time.perf_counter() > until:
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


def _paired(right: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    share, gain = stats.proportion(right), stats.bootstrap_questions(right, baseline)
    low, high = (0.0, 0.0) if right is baseline else (gain.low, gain.high)
    found = {"accuracy": share.estimate, "low": share.low, "high": share.high}
    found |= {"difference": gain.estimate, "difference_low": low, "difference_high": high}
    return found | stats.mcnemar(right, baseline)._asdict()


def seconds(task: Task, model: MaskedLM, rounds: int, until: float) -> dict:
    """Wall seconds of every arm in blocks, the arms taken in turn ``rounds`` times after a warm-up."""
    models = _with_caches(model)
    arms = [arm for arm in task.arms() if arm[1] is not None]
    calls = {arm: partial(_decode, models[arm[2]], task.prompts, arm) for arm in arms}
    interleaved(calls, 1)  # compiles what there is to compile
    spent = interleaved(calls, rounds, until)
    found = [
        {"strategy": s, "block_length": b, "cache": c, "seconds": spent[s, b, c],
         "faster": statistics.median(spent[s, b, None]) / statistics.median(spent[s, b, c])}
        for s, b, c in arms
    ]  # fmt: skip
    return {"prompts": len(task.prompts), "dtype": _dtype(model), "arms": found}


def _with_caches(model: MaskedLM) -> dict[str | None, torch.nn.Module]:
    return {kind: Cached(model, kind, CACHE_BYTES) if kind else model for kind in KINDS}


def _dtype(model: MaskedLM) -> str:
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


def load_caches(path: Path = RESULTS) -> dict:
    """The recorded study: {stage: what it returned, with its ``provenance``}."""
    return json.loads(path.read_text())


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


def main(argv: list[str] | None = None) -> int:
    """Run the stages; one that fails is told and the others still run."""
    parser = argparse.ArgumentParser(
        prog="labkit.studies.soar.cache_study", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--puzzles", type=int, default=4096, help="test puzzles (default: 4096)")
    parser.add_argument("--sums", type=int, default=2000, help="held-out sums (default: 2000)")
    parser.add_argument("--timed", type=int, default=256, help="puzzles of the timing (default: 256)")
    parser.add_argument("--batch-size", type=int, help="prompts at a time (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="default: no limit")
    parser.add_argument("--tiny", action="store_true", help="a tiny model in place of LLaDA's shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    until, device = time.perf_counter() + given.seconds, given.device
    load = partial(load_model, device=device, dtype=torch.bfloat16)
    judge = partial(quality, batch_size=given.batch_size, until=until)
    stages = {
        "lab/sudoku9": lambda: judge(sudoku_task(given.puzzles), load("lab/sudoku9")),
        "lab/sums": lambda: judge(sums_task(given.sums), load("lab/sums")),
        "llada": lambda: llada(device, given.rounds, given.tiny, until),
        "lab/sudoku9-early": lambda: judge(sudoku_task(given.puzzles), load("lab/sudoku9-early")),
        "seconds": lambda: seconds(sudoku_task(given.timed), load("lab/sudoku9"), given.rounds, until),
    }
    options = "".join(
        f" --{key.replace('_', '-')}" + ("" if value is True else f" {value}")
        for key, value in vars(given).items()
        if key not in ("device", "stages", "out") and value != parser.get_default(key)
    )
    found = load_caches(given.out) if given.out.exists() else {}

    def record(name: str, made: dict, spent: float) -> None:
        command = f"python -m labkit.studies.soar.cache_study --device {device} --stages {name}{options}"
        found[name] = made | {"provenance": provenance(command=command, seed=0, stage_seconds=spent)}
        text = json.dumps(found, indent=1) + "\n"
        write_atomic(given.out, lambda path: path.write_text(text))
        print(f"{name} ({spent:.1f} s)\n{table(made)}", flush=True)

    return 1 if run_stages(stages, given.stages, record, until) else 0


if __name__ == "__main__":
    sys.exit(main())
