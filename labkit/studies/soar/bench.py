"""How fast the batched search is, against one prompt at a time, and whether a batch changes an answer.

python -m labkit.studies soar-bench [--stages lab share llada identity] [--device cuda]

Each stage writes bench_<stage>.json. Seconds are wall time around synchronised work.
"""

import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit.soar.load import load_model
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.search import decode
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.studies.harness import Option, Stage, Study
from labkit.studies.soar.llada_shape import random_llada
from labkit.studies.soar.one_at_a_time import decode_one
from labkit.studies.soar.records import kernel_digest
from labkit.studies.timing import seconds, take_turns, timed

SOAR: dict[str, Any] = {"strategy": "soar", "beam": 4, "threshold": 0.999, "min_collapse": 2}


class Timed(nn.Module):
    """``model`` with the seconds of its forwards: by CUDA events on a GPU, by the clock on a CPU."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model
        self._spans: list[Any] = []
        self.eos_ids = eos_ids(model)
        for name in ("mask_id", "eos_id", "max_length", "vocab_size"):
            setattr(self, name, getattr(model, name))

    def logits_at(self, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        if not tokens.is_cuda:
            began = time.perf_counter()
            logits = self.model.logits_at(tokens, *rest)
            self._spans.append(time.perf_counter() - began)
            return logits
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        logits = self.model.logits_at(tokens, *rest)
        end.record()
        self._spans.append((start, end))
        return logits

    forward = logits_at

    def seconds(self) -> float:
        """Since the last call."""
        spans, self._spans = self._spans, []
        if spans and isinstance(spans[0], tuple):
            torch.cuda.synchronize()
            return sum(start.elapsed_time(end) for start, end in spans) / 1000
        return sum(spans)


def bench_lab(device: str, prompts: int, rounds: int) -> dict:
    """Ours (fixed rows, one graph) against one at a time, with the eager model and with ours."""
    puzzles, truths = load_puzzles("test", prompts)
    boards = torch.from_numpy(puzzles)
    fixed: Any = load_model(
        "lab/sudoku9", device=device, dtype=torch.bfloat16, fixed_rows=min(256, prompts)
    )
    plain: Any = fixed.model
    filled = int((boards == 0).sum())
    options = {key: value for key, value in SOAR.items() if key != "strategy"} | {"mask_id": 0}

    def ours() -> np.ndarray:
        return decode(fixed, boards, record=False, **SOAR).sequences

    def theirs(model: nn.Module, rows: torch.Tensor = boards) -> np.ndarray:
        return np.array(
            [decode_one(model, row, "soar", device=device, **options)[0] for row in rows.tolist()]
        )

    ours(), theirs(plain, boards[:1])  # warm
    arms: dict[str, Callable] = {"batched": ours, "one at a time": partial(theirs, plain),
            "one at a time, same graph": partial(theirs, fixed)}  # fmt: skip
    often = dict(zip(arms, (rounds, max(1, rounds - 1), 1), strict=True))  # the slow ones less often
    turns = take_turns(arms, often)
    middle = {name: statistics.median(spent) for name, spent in seconds(turns).items()}
    answers = {name: own[-1][0] for name, own in turns.items()}
    same = {name: float((rows == answers["batched"]).all(1).mean()) for name, rows in answers.items()}
    return {
        "prompts": prompts, "tokens": filled, "setting": SOAR,
        "seconds": seconds(turns), "same answer": same,
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
    found: dict[str, Any] = {"wall": [], "forward": [], "share": []}
    for number in range(rounds + 1):
        model.seconds()
        trace, wall = timed(lambda: decode(model, boards, record=False, **setting))
        inside = model.seconds()
        if number:
            for values, new in zip(found.values(), (wall, inside, inside / wall), strict=True):
                values.append(new)
    calls = {"forward calls": trace.meta["forward_calls"], "rows": trace.meta["forward_rows"]}
    return found | calls


def bench_llada(device: str, rounds: int, shape: str = "LLaDA-8B") -> dict:
    """LLaDA-8B's shape, random weights: single-prompt PBS against one beam at a time, and the share."""
    tiny = shape == "tiny"
    model: Any = Timed(random_llada(device, tiny=tiny))
    source = torch.Generator().manual_seed(0)
    length, gen = (12, 4) if tiny else (224, 32)
    prompts = torch.randint(0, model.mask_id - 1, (8, length), generator=source)
    pbs: dict[str, Any] = {"strategy": "pbs", "beam": 2, "gen_length": gen, "eos_early_stop": False}
    row = prompts[0].tolist()

    def ours() -> list[int]:
        return decode(model, prompts[:1], record=False, **pbs).sequences[0].tolist()

    def theirs() -> list[int]:
        options = {"mask_id": model.mask_id, "gen_length": gen, "beam": 2}
        return decode_one(model.model, row, "pbs", device=device, **options)[0]

    ours(), timed(lambda: model.model(torch.tensor([row], device=device)))  # warm
    turns = take_turns({"batched beams": ours, "one beam at a time": theirs}, rounds)
    (mine, other), spent = (own[-1][0] for own in turns.values()), seconds(turns)
    middle = {name: statistics.median(one) for name, one in spent.items()}
    share = {}
    for name, count, setting in (
        ("single-prompt PBS", 1, pbs),
        ("8 prompts, PBS", 8, pbs),
        ("8 prompts, SOAR", 8, pbs | {"strategy": "soar", "threshold": 0.5}),
    ):
        share[name] = _share(model, prompts[:count], setting, rounds)
    return {
        "shape": shape, "length": length + gen, "generated": gen,
        "seconds": spent, "same tokens": float(np.mean(np.array(mine) == other)), "share": share,
        "times faster": middle["one beam at a time"] / middle["batched beams"],
    }  # fmt: skip


def bench_identity(device: str, alone: int) -> dict:
    """Share of puzzles that get the same answer alone as in one batch, with and without fixed rows."""
    rows, some = (32 if device == "cuda" else 4), -(-alone // 10)
    arms = [(alone, "float32", rows), (alone, "bfloat16", rows),
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


SHARES = {str: {"share": [float], "wall": [float], "forward": [float]}}
ARM = {"prompts": int, "dtype": str, "same answer": float, "same score to the last bit": float}


def _stage(about: str, measure: Callable[..., dict], shape: dict, *reads: str) -> Stage:
    """A stage that measures with the options ``reads``; they and the beam kernel are its inputs."""
    return Stage(
        lambda c: measure(c.device, **c.pick(*reads)), about, f"{measure.__name__}.json", shape=shape,
        inputs=lambda c: c.pick(*reads) | {"kernel": kernel_digest()}, show=json.dumps,
    )  # fmt: skip


STUDY = Study(
    "soar-bench",
    "How fast the batched search is, and whether a batch changes an answer.",
    {
        "lab": _stage("tokens/s of SOAR against one prompt at a time", bench_lab,
                      {"prompts": int, "same answer": {str: float}, "times faster": {str: float},
                       "tokens per second": {str: float}, "setting": {"beam": int}}, "prompts", "rounds"),
        "share": _stage("share of the time that the model's forward takes", bench_share,
                        {"prompts": int, "searches": SHARES}, "prompts", "rounds"),
        "llada": _stage("the same at LLaDA-8B's shape, random bf16 weights", bench_llada,
                        {"shape": str, "same tokens": float, "times faster": float, "share": SHARES},
                        "rounds", "shape"),
        "identity": _stage("puzzles decoded alone and in one batch", bench_identity, {"arms": [ARM]},
                           "alone"),
    },
    {
        "prompts": Option(256, "puzzles of lab and share", tiny=2),
        "alone": Option(1000, "puzzles of identity", tiny=2),
        "rounds": Option(3, "timed rounds of each rival", tiny=1),
        "shape": Option("LLaDA-8B", "of llada's model", tiny="tiny", choices=("LLaDA-8B", "tiny")),
    },
)  # fmt: skip
