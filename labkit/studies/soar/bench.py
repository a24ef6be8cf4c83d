"""How fast the batched search is, against one prompt at a time, and whether a batch changes an answer.

python -m labkit.studies.soar.bench [--stages lab share llada identity] [--device cuda]

lab       tokens/s of SOAR on 256 puzzles, lab/sudoku9, against one_at_a_time.py, interleaved
share     share of the wall time that the model's forward takes, at 256 puzzles
llada     single-prompt PBS and the share of the forward at LLaDA-8B's shape with random bf16 weights
identity  1,000 puzzles decoded alone and in one batch: the share of equal answers

Each stage writes results/bench_<stage>.json. Seconds are wall time around synchronised work.
"""

import argparse
import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn

from labkit import checks
from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.soar.load import load_model
from labkit.soar.search import decode
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.studies.soar.llada_shape import random_llada
from labkit.studies.soar.one_at_a_time import decode_one
from labkit.studies.soar.recorded import kernel_digest
from labkit.studies.soar.timing import Timed, run_stages, timed

RESULTS = Path(__file__).parent / "results"
SOAR = {"strategy": "soar", "beam": 4, "threshold": 0.999, "min_collapse": 2}
ROUNDS = 3
STAGES = ("lab", "share", "llada", "identity")


def recorded(stage: str) -> dict:
    """What the H100 run of a stage gave (results/bench_<stage>.json)."""
    checks.choice("stage", stage, STAGES)
    return json.loads((RESULTS / f"bench_{stage}.json").read_text())


def bench_lab(device: str, prompts: int, rounds: int) -> dict:
    """Ours (fixed rows, one graph) against one at a time, with the eager model and with ours."""
    boards, truths = load_puzzles("test", prompts)
    boards = torch.from_numpy(boards)
    fixed = load_model("lab/sudoku9", device=device, dtype=torch.bfloat16, fixed_rows=min(256, prompts))
    plain = fixed.model
    filled, reference = int((boards == 0).sum()), decode_one
    options = {key: value for key, value in SOAR.items() if key != "strategy"} | {"mask_id": 0}

    def ours() -> np.ndarray:
        return decode(fixed, boards, record=False, **SOAR).sequences

    def theirs(model: nn.Module) -> np.ndarray:
        rows = [reference(model, row, "soar", device=device, **options)[0] for row in boards.tolist()]
        return np.array(rows)

    ours(), reference(plain, boards[0].tolist(), "soar", device=device, **options)  # warm
    arms = {"batched": ours, "one at a time": lambda: theirs(plain),
            "one at a time, same graph": lambda: theirs(fixed)}  # fmt: skip
    seconds, answers = {name: [] for name in arms}, {}
    times = {"batched": rounds, "one at a time": max(1, rounds - 1), "one at a time, same graph": 1}
    for number in range(rounds):
        for name, arm in arms.items():
            if number < times[name]:  # the slow ones less often
                answers[name], spent = timed(arm)
                seconds[name].append(spent)
    middle = {name: statistics.median(spent) for name, spent in seconds.items()}
    same = {name: float((rows == answers["batched"]).all(1).mean()) for name, rows in answers.items()}
    return {
        "prompts": prompts, "tokens": filled, "setting": SOAR, "seconds": seconds, "same answer": same,
        "tokens per second": {name: filled / spent for name, spent in middle.items()},
        "times faster": {name: spent / middle["batched"] for name, spent in middle.items()},
        "solved": float((answers["batched"] == truths).all(1).mean()),
    }  # fmt: skip


def bench_share(device: str, prompts: int, rounds: int) -> dict:
    """Share of wall time in the forward for several searches at ``prompts`` puzzles."""
    boards = torch.from_numpy(load_puzzles("test", prompts)[0])
    rows = {"graph of 256 rows": min(256, prompts), "eager": None}
    found = {}
    for name, fixed_rows in rows.items():
        model = Timed(load_model("lab/sudoku9", device=device, dtype=torch.bfloat16, fixed_rows=fixed_rows))
        for setting in (SOAR, SOAR | {"beam": 8}, {"strategy": "pbs", "beam": 4}, {"strategy": "greedy"}):
            label = " ".join(map(str, (setting["strategy"], setting.get("beam", 1), name)))
            found[label] = _share(model, boards, setting, rounds)
    return {"prompts": prompts, "searches": found}


def _share(model: Timed, boards: torch.Tensor, setting: dict, rounds: int) -> dict:
    """Wall and forward seconds of ``rounds`` decodes, after one that compiles what there is to compile."""
    found = {"wall": [], "forward": [], "share": []}
    for number in range(rounds + 1):
        model.seconds()
        trace, wall = timed(lambda: decode(model, boards, record=False, **setting))
        inside = model.seconds()
        if number:
            for values, new in zip(found.values(), (wall, inside, inside / wall), strict=True):
                values.append(new)
    calls = {"forward calls": trace.meta["forward_calls"], "rows": trace.meta["forward_rows"]}
    return found | calls


def bench_llada(device: str, rounds: int, tiny: bool) -> dict:
    """LLaDA-8B's shape, random weights: single-prompt PBS against one beam at a time, and the share."""
    model = Timed(random_llada(device, tiny=tiny))
    source = torch.Generator().manual_seed(0)
    length, gen = (12, 4) if tiny else (224, 32)
    prompts = torch.randint(0, model.mask_id - 1, (8, length), generator=source)
    pbs = {"strategy": "pbs", "beam": 2, "gen_length": gen, "eos_early_stop": False}
    reference, options = decode_one, {"mask_id": model.mask_id, "gen_length": gen, "beam": 2}
    row = prompts[0].tolist()

    def ours() -> list[int]:
        return decode(model, prompts[:1], record=False, **pbs).sequences[0].tolist()

    def theirs() -> list[int]:
        return reference(model.model, row, "pbs", device=device, **options)[0]

    ours(), timed(lambda: model.model(torch.tensor([row], device=device)))  # warm
    seconds = {"batched beams": [], "one beam at a time": []}
    for _ in range(rounds):
        mine, spent = timed(ours)
        seconds["batched beams"].append(spent)
        other, spent = timed(theirs)
        seconds["one beam at a time"].append(spent)
    middle = {name: statistics.median(spent) for name, spent in seconds.items()}
    share = {}
    for name, count, setting in (
        ("single-prompt PBS", 1, pbs),
        ("8 prompts, PBS", 8, pbs),
        ("8 prompts, SOAR", 8, pbs | {"strategy": "soar", "threshold": 0.5}),
    ):
        share[name] = _share(model, prompts[:count], setting, rounds)
    return {
        "shape": "LLaDA-8B" if not tiny else "tiny", "length": length + gen, "generated": gen,
        "seconds": seconds, "same tokens": float(np.mean(np.array(mine) == other)), "share": share,
        "times faster": middle["one beam at a time"] / middle["batched beams"],
    }  # fmt: skip


def bench_identity(device: str, prompts: int) -> dict:
    """Share of puzzles that get the same answer alone as in one batch, with and without fixed rows."""
    rows, some = (32 if device == "cuda" else 4), -(-prompts // 10)
    arms = [(prompts, "float32", rows), (prompts, "bfloat16", rows),
            (some, "float32", None), (some, "bfloat16", None)]  # fmt: skip
    with ProcessPoolExecutor(len(arms) if device == "cuda" else 1, get_context("spawn")) as pool:
        asked = [pool.submit(_identity, device, *arm) for arm in arms]
        return {"arms": [future.result() for future in asked]}


def _identity(device: str, prompts: int, dtype: str, rows: int | None) -> dict:
    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    model = load_model("lab/sudoku9", device=device, dtype=kind, fixed_rows=rows)
    boards = torch.from_numpy(load_puzzles("test", prompts)[0])
    many = decode(model, boards, record=False, **SOAR)
    alone = [decode(model, board[None], record=False, **SOAR) for board in boards]
    same = [np.array_equal(one.sequences[0], row) for one, row in zip(alone, many.sequences, strict=True)]
    scores = [one.scores[0] == score for one, score in zip(alone, many.scores, strict=True)]
    return {"prompts": prompts, "dtype": dtype, "fixed_rows": rows, "same answer": float(np.mean(same)),
            "same score to the last bit": float(np.mean(scores))}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the stages in the order given; one that fails is told and the others still run."""
    parser = argparse.ArgumentParser(prog="labkit.studies.soar.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=256, help="puzzles of lab and share")
    parser.add_argument("--alone", type=int, default=1000, help="puzzles of identity")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tiny", action="store_true", help="a tiny model in place of LLaDA's shape")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    stages = {
        "lab": lambda: bench_lab(given.device, given.prompts, given.rounds),
        "share": lambda: bench_share(given.device, given.prompts, given.rounds),
        "llada": lambda: bench_llada(given.device, given.rounds, given.tiny),
        "identity": lambda: bench_identity(given.device, given.alone),
    }

    def record(name: str, found: dict, spent: float) -> None:
        command = f"python -m labkit.studies.soar.bench --stages {name} --device {given.device}"
        about = {"provenance": provenance(command=command, stage_seconds=spent, kernel=kernel_digest())}
        text = json.dumps(about | found, indent=1) + "\n"
        write_atomic(given.out / f"bench_{name}.json", lambda path: path.write_text(text))
        print(f"{name} ({spent:.1f} s): {json.dumps(found)}", flush=True)

    return 1 if run_stages(stages, given.stages, record) else 0


if __name__ == "__main__":
    sys.exit(main())
