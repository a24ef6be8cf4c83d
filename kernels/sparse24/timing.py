"""Honest timing on a CUDA device: rivals take turns, medians with spread, ceilings of this very card."""

import datetime
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton

from sparse24 import compare

# A spin before each sample lets the host run ahead: what is timed is the GPU, not Python.
SPIN_CYCLES = 3_000_000


def interleave(rivals: dict[str, Callable], rounds: int = 30) -> dict[str, dict]:
    """{name: {"p20", "p50", "p80"}} in milliseconds a call; every round times each rival once, in turn.

    A sample is 1 to 5 calls in a row, the same number for all: more when the fastest is short, so that
    the events' own microseconds do not count.
    """
    for run in rivals.values():
        for _ in range(3):
            run()
    calls = max(1, min(5, round(0.5 / min(_sample(run, 1) for run in rivals.values()))))
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            samples[name].append(_sample(run, calls))
    return {name: quantiles(values) for name, values in samples.items()}


def _sample(run: Callable, calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(SPIN_CYCLES)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def quantiles(values: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(values, n=10)
    return {"p20": round(tenths[1], 5), "p50": round(tenths[4], 5), "p80": round(tenths[7], 5)}


def host_time(run: Callable, calls: int = 200) -> float:
    """Microseconds of host time per call, the GPU's queue never full."""
    for _ in range(10):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    elapsed = time.perf_counter() - start
    torch.cuda.synchronize()
    return round(elapsed / calls * 1e6, 1)


def memory(run: Callable) -> tuple[int, int, Any]:
    """(bytes more than before that ``run()``'s result keeps alive, peak bytes more, the result)."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = run()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before, result


def ceilings() -> dict[str, float]:
    """Copy bandwidth (GB/s, read + write) and a large bfloat16 product (TFLOP/s), random data."""
    source = torch.randn(2**28, device="cuda").bfloat16()
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = interleave({"copy": lambda: target.copy_(source), "product": lambda: a @ b})
    return {
        "copy_gbps": round(2 * source.nbytes / times["copy"]["p50"] / 1e6, 1),
        "product_tflops": round(2 * 8192**3 / times["product"]["p50"] / 1e9, 1),
    }


def report(name: str, command: str, body: dict, folder: Path) -> Path:
    """Write ``<folder>/<name>_<card>.json``: card, versions, UTC date and command around ``body``.

    Prints what moved since the file that it replaces.
    """
    card = torch.cuda.get_device_name()
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    ).stdout.split("\n")[0]
    head = {
        "schema": 1,
        "bench": name,
        "card": card,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": {
            "torch": torch.__version__,
            "triton": triton.__version__,
            "cuda": torch.version.cuda,
            "driver": driver,
            "cusparselt": torch.backends.cusparselt.version(),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{'_'.join(card.lower().split())}.json"
    before = path.read_bytes() if path.exists() else None
    path.write_text(json.dumps(head | body, indent=1) + "\n")
    if before:
        print(*compare.lines(json.loads(before), head | body), sep="\n")
    return path


def goal(name: str, value: float, floor: float, aim: float, unit: str, lower: bool = False) -> dict:
    """One bar: the value against its floor and its goal (``lower``: smaller is better)."""
    beats = (lambda bar: value <= bar) if lower else (lambda bar: value >= bar)
    row = {"name": name, "value": round(value, 4), "floor": floor, "goal": aim, "unit": unit}
    return row | {"floor_reached": beats(floor), "goal_reached": beats(aim)}


def show_goals(goals: list[dict]) -> None:
    for row in goals:
        mark = "GOAL " if row["goal_reached"] else "floor" if row["floor_reached"] else "MISS "
        bars = f"floor {row['floor']} goal {row['goal']}"
        print(f"{mark} {row['name']:58} {row['value']:9.4g} {row['unit']:4} {bars}")
