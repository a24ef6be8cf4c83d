"""What the caches of ``caches.py`` cost in right answers, and what they save.

python -m labkit.soar.cache_study [--device cuda] [--puzzles N] [--stages ...] [--tiny]

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
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.soar.cache_speed import interleaved, llada
from labkit.soar.caches import CACHES, Cached
from labkit.soar.models import load_model
from labkit.soar.puzzle_sets import load_puzzles
from labkit.soar.search import decode
from labkit.soar.study import paired
from labkit.soar.sudoku import solved
from labkit.soar.sums import QUESTION, encode, right, sums
from labkit.soar.timing import timed

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
    """What the checkpoint ``name`` is asked: prompts (N, L) with masks, and which answers are right."""

    name: str
    prompts: torch.Tensor
    right: Callable[[np.ndarray], np.ndarray]
    blocks: tuple[int | None, ...]

    def arms(self) -> list[Arm]:
        """Those without a cache first. In one block both approximate caches are the same: one is taken."""
        made = [(s, b, c) for c in KINDS for b in self.blocks for s in STRATEGIES]
        return [(s, b, c) for s, b, c in made if b is not None or c != "approximate-dual"]


def sudoku_task(name: str, count: int) -> Task:
    """The first ``count`` test puzzles for "lab/sudoku9" or "lab/sudoku9-early"."""
    boards, truths = load_puzzles("test", count)
    return Task(name, torch.from_numpy(boards), partial(solved, solutions=truths), (None, 9, 18))


def sums_task(count: int) -> Task:
    """``count`` sums that no training text asks for; the 23 characters behind the question are open."""
    texts = sums(count, seed=0, test=True)
    prompts = encode(texts)
    prompts[:, QUESTION:] = 0
    return Task("lab/sums", prompts, partial(right, texts=texts), (None, 8))


def quality(
    task: Task,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    until: float = float("inf"),
    progress: bool = True,
) -> dict:
    """Right answers of every arm and the token positions it computed.

    until  ``time.perf_counter()`` after which no further arm is started

    Returns ``prompts``, ``length`` and ``arms``: dicts with ``strategy``, ``block_length``, ``cache``;
    ``accuracy`` to ``z`` as in ``study.paired``, against the arm without a cache, and of that one
    against the one in a single block; ``positions`` computed a prompt and ``fewer``, how many times
    fewer than without a cache; ``calls`` and ``rows`` a prompt; ``seconds`` of the run and of what it
    had to compile.
    """
    models = {cache: _load(task.name, device, dtype, cache) for cache in KINDS}
    count, length = task.prompts.shape
    rng, arms, answers, positions = np.random.default_rng(0), [], {}, {}
    for arm in tqdm(task.arms(), desc=f"{task.name}, caches", disable=not progress):
        if time.perf_counter() > until:
            break
        strategy, block, cache = arm
        trace, seconds = timed(partial(_decode, models[cache], task.prompts, arm))
        answers[arm] = task.right(trace.sequences)
        positions[arm] = _positions(models[cache], trace.meta["forward_rows"] * length) / count
        base = (strategy, block if cache else None, None)
        arms.append({
            "strategy": strategy, "block_length": block, "cache": cache,
            **paired(answers[arm], answers[base], rng),
            "positions": positions[arm], "fewer": positions[strategy, block, None] / positions[arm],
            "calls": trace.calls.mean(), "rows": trace.rows.mean(), "seconds": seconds,
        })  # fmt: skip
    return {"prompts": count, "length": length, "dtype": str(dtype).split(".")[1], "arms": arms}


def seconds(task: Task, device: str, dtype: torch.dtype, rounds: int, until: float) -> dict:
    """Wall seconds of every arm in blocks, the arms taken in turn ``rounds`` times after a warm-up."""
    models = {cache: _load(task.name, device, dtype, cache) for cache in KINDS}
    arms = [arm for arm in task.arms() if arm[1] is not None]
    calls = {arm: partial(_decode, models[arm[2]], task.prompts, arm) for arm in arms}
    interleaved(calls, 1)  # compiles what there is to compile
    spent = interleaved(calls, rounds, until)
    found = [
        {"strategy": s, "block_length": b, "cache": c, "seconds": spent[s, b, c],
         "faster": statistics.median(spent[s, b, None]) / statistics.median(spent[s, b, c])}
        for s, b, c in arms
    ]  # fmt: skip
    return {"prompts": len(task.prompts), "dtype": str(dtype).split(".")[1], "arms": found}


def _load(name: str, device: str, dtype: torch.dtype, cache: str | None) -> torch.nn.Module:
    return load_model(name, device=device, dtype=dtype, cache=cache, cache_bytes=CACHE_BYTES)


def _decode(model: torch.nn.Module, prompts: torch.Tensor, arm: Arm) -> object:
    return decode(model, prompts, block_length=arm[1], record=False, **STRATEGIES[arm[0]])


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
        line = " ".join(f"{key} {arm[key]}" for key in ("prompts", "block_causal") if key in arm)
        line += f" {arm.get('strategy', 'greedy'):6s} {arm.get('block_length')!s:4s}"
        line += f" {arm['cache'] or 'none':18s}"
        if "accuracy" in arm:
            low, middle, high = (100 * arm[f"difference{end}"] for end in ("_low", "", "_high"))
            line += f" {100 * arm['accuracy']:6.2f} % {middle:+.2f} [{low:+.2f}, {high:+.2f}]"
            line += f" {arm['fewer']:.2f} times fewer positions"
        else:
            line += f" {statistics.median(arm['seconds']):.3f} s, {arm['faster']:.2f} times faster"
        lines.append(line)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the stages; one that fails is told and the others still run."""
    parser = argparse.ArgumentParser(prog="labkit.soar.cache_study", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--puzzles", type=int, default=4096, help="test puzzles (default: 4096)")
    parser.add_argument("--sums", type=int, default=2000, help="held-out sums (default: 2000)")
    parser.add_argument("--timed", type=int, default=256, help="puzzles of the timing (default: 256)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="default: no limit")
    parser.add_argument("--tiny", action="store_true", help="a tiny model in place of LLaDA's shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    until, device, half = time.perf_counter() + given.seconds, given.device, torch.bfloat16
    stages = {
        "lab/sudoku9": lambda: quality(
            sudoku_task("lab/sudoku9", given.puzzles), device, half, until=until
        ),
        "lab/sums": lambda: quality(sums_task(given.sums), device, half, until=until),
        "llada": lambda: llada(device, given.rounds, given.tiny, until),
        "lab/sudoku9-early": lambda: quality(
            sudoku_task("lab/sudoku9-early", given.puzzles), device, half, until=until
        ),
        "seconds": lambda: seconds(
            sudoku_task("lab/sudoku9", given.timed), device, half, given.rounds, until
        ),
    }
    found, failed = load_caches(given.out) if given.out.exists() else {}, 0
    for name in given.stages:
        if time.perf_counter() > until:
            print(f"{name}: no time left", flush=True)
            continue
        try:
            made, spent = timed(stages[name])
        except (ValueError, RuntimeError):
            traceback.print_exc()
            failed += 1
            continue
        command = f"python -m labkit.soar.cache_study --device {device} --stages {name}"
        command += f" --puzzles {given.puzzles}" * ("sudoku" in name)
        found[name] = made | {"provenance": provenance(command=command, seed=0, stage_seconds=spent)}
        text = json.dumps(found, indent=1) + "\n"
        write_atomic(given.out, lambda path, text=text: path.write_text(text))
        print(f"{name} ({spent:.1f} s)\n{table(made)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
