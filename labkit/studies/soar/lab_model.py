"""Train the checkpoints that ``load_model("lab/...")`` opens, in minutes.

python -m labkit.studies soar-models [--out DIR]                 lab/sudoku9 and lab/sudoku9-early, on a GPU
python -m labkit.studies soar-models --stages sums [--out DIR]   lab/sums; small enough for a CPU core
python -m labkit.studies soar-models --stages gsm ...            lab/gsm and lab/gsm-early, see gsm_run

Masked diffusion: what a text leaves open is masked with one rate U(0, 1) per row, and the loss is the
cross-entropy on masked positions (Nie et al. 2025, without the 1/t weight). AdamW, on a GPU bf16 autocast
and compiled blocks, warm-up, constant to 30 % of the time, then linear to 0. The puzzles are taken from
``puzzles`` and turned by a random symmetry of Sudoku every time they are seen.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from labkit import checks
from labkit.paths import write_json
from labkit.progress import bar
from labkit.provenance import provenance
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.search import decode
from labkit.soar.tasks import training
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.soar.tasks.sudoku import solved
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.soar.tasks.sums import QUESTION, SumsConfig, SumsLM, encode, right, sums
from labkit.soar.tasks.training import Batch, mask_at_random_rates
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.soar import gsm_run
from labkit.studies.soar.puzzles import training_puzzles
from labkit.traces import TrainTrace

HEADROOM = (0.60, 0.75, 0.85)  # what the early checkpoint should solve by greedy: from, best, to


class Clock:
    """The share of ``seconds`` that training has taken; the first step, which compiles, does not count."""

    def __init__(self, seconds: float, shown: Any):
        self.seconds, self.bar, self.spent = seconds, shown, 0.0

    def __call__(self, step: int) -> float:
        if step == 1:
            self.began = time.perf_counter()
        now = time.perf_counter() - self.began if step else 0.0
        self.bar.update(int(now) - int(self.spent))
        self.spent = now
        return now / self.seconds if self.seconds else 1.0


def train(
    model: MaskedLM,
    draw: Callable[[torch.Generator], Batch],
    judge: Callable[[MaskedLM], float],
    *,
    seconds: float,
    every: float,
    seed: int = 0,
    learning_rate: float = 1e-3,
    warmup: int = 300,
) -> tuple[TrainTrace, list[dict]]:
    """Train ``model`` in place for ``seconds`` (compilation not counted).

    draw   one batch on the model's device; judge: share solved by the model rounded to bf16

    Returns the curves ``loss`` (nats per masked position) and ``solved``, and a snapshot each
    ``every`` seconds and at the end: step, seconds, solved, weights (bf16, on the host).
    """
    checks.number("seconds", seconds, 0)
    checks.number("every", every, 0.1)
    device = next(model.parameters()).device
    source = torch.Generator(device).manual_seed(seed)
    snapshots: list[dict] = []
    with bar(True, total=round(seconds), unit="s", desc="train") as shown:
        clock = Clock(seconds, shown)

        def watch(step: int, share: float) -> dict[str, float]:
            if share < 1 and clock.spent < every * (len(snapshots) + 1):
                return {}
            twin = type(model)(model.config).to(device, torch.bfloat16)
            twin.load_state_dict(model.state_dict())
            score = float(judge(twin.eval()))
            weights = {name: value.cpu() for name, value in twin.state_dict().items()}
            snapshots.append({"step": step, "seconds": clock.spent, "solved": score, "weights": weights})
            return {"solved": score}

        log = training.train(
            model, partial(draw, source), clock, watch,
            learning_rate=learning_rate, warmup=warmup, log_every=20, fast=device.type == "cuda",
        )  # fmt: skip
    return TrainTrace.from_log(log), snapshots


def sudoku_batch(boards: torch.Tensor, answers: torch.Tensor, size: int, source: torch.Generator) -> Batch:
    """``size`` of the puzzles (N, 81), each turned by its own random symmetry, some blanks unmasked."""
    device = boards.device
    pick = torch.randint(len(boards), (size,), generator=source, device=device)
    board, answer = augment(boards[pick], answers[pick], source)
    masked = (board == 0) & mask_at_random_rates(board.shape, source)
    return torch.where(masked, 0, answer), answer, masked


def augment(
    boards: torch.Tensor, answers: torch.Tensor, source: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Relabel digits, permute bands, stacks, rows and columns in them, transpose: (N, 81) each."""
    count, device = len(boards), boards.device

    def order(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=source, device=device).argsort(-1)

    def lines() -> torch.Tensor:
        inside = order(count, 3, 3)  # a permutation of each band, then of the bands
        return (
            (torch.arange(3, device=device)[:, None] * 3 + inside)
            .gather(1, order(count, 3)[..., None].expand(-1, -1, 3))
            .flatten(1)
        )

    cells = lines()[:, :, None] * 9 + lines()[:, None, :]
    flip = torch.rand(count, 1, 1, generator=source, device=device) < 0.5
    cells = torch.where(flip, cells.transpose(1, 2), cells).flatten(1)
    digits = F.pad(order(count, 9) + 1, (1, 0))
    board, answer = (digits.gather(1, part.gather(1, cells)) for part in (boards, answers))
    return board, answer


def sums_batch(texts: torch.Tensor, size: int, source: torch.Generator) -> Batch:
    """``size`` of the texts (N, LENGTH), some of what stands behind the question masked."""
    target = texts[torch.randint(len(texts), (size,), generator=source, device=texts.device)]
    masked = mask_at_random_rates(target.shape, source)
    masked[:, :QUESTION] = False
    return torch.where(masked, 0, target), target, masked


def judge_sudoku(boards: np.ndarray, answers: np.ndarray, model: MaskedLM) -> float:
    return solved(decode(model, torch.from_numpy(boards), "greedy", record=False).sequences, answers).mean()


def judge_sums(texts: list[str], model: MaskedLM) -> float:
    prompts, length = encode(texts)[:, :QUESTION], model.max_length - QUESTION
    trace = decode(model, prompts, "greedy", gen_length=length, record=False)
    return right(trace.sequences, texts).mean()


def early(snapshots: list[dict]) -> dict | None:
    """The snapshot whose greedy share is nearest to the middle of HEADROOM; None if none is inside."""
    low, best, high = HEADROOM
    inside = [shot for shot in snapshots[:-1] if low <= shot["solved"] <= high]
    return min(inside, key=lambda shot: abs(shot["solved"] - best), default=None)


def save(model: MaskedLM, snapshot: dict, folder: Path, name: str, about: dict) -> Path:
    """``name``.safetensors (bf16) and its card, ``name``.json."""
    size = sum(p.numel() for p in model.parameters())
    card = {
        "name": f"lab/{name}", "parameters": size, "dtype": "bfloat16",
        "config": asdict(model.config), "steps": snapshot["step"], "training_seconds": snapshot["seconds"],
        "greedy_on_validation": snapshot["solved"], **about,
    }  # fmt: skip
    twin = type(model)(model.config)
    twin.load_state_dict(snapshot["weights"], assign=True)
    write_json(folder / f"{name}.json", card, strict=True)
    return twin.save(folder / f"{name}.safetensors", **card)


def _sudoku(o: SimpleNamespace, device: str) -> tuple[MaskedLM, Callable, Callable, str]:
    config = SudokuConfig(9, o.width or 256, o.layers or 7, heads=8)
    boards, answers = (torch.from_numpy(part).to(device) for part in training_puzzles(o.train))
    about = f"{len(boards)} puzzles of puzzle_sets (22 to 34 clues), symmetries drawn anew"
    judge = partial(judge_sudoku, *load_puzzles("validation", o.judge))
    return SudokuLM(config), partial(sudoku_batch, boards, answers, o.batch), judge, about


def _sums(o: SimpleNamespace, device: str) -> tuple[MaskedLM, Callable, Callable, str]:
    config = SumsConfig(o.width or 96, o.layers or 4, heads=4)
    texts = encode(sums(o.train, seed=1)).to(device)
    about = f"{o.train} chain sums; one in eight of all sums is held out for tests"
    judge = partial(judge_sums, sums(o.judge, seed=2, test=True))
    return SumsLM(config), partial(sums_batch, texts, o.batch), judge, about


def _run(context: Context, what: str, make: Callable, seconds: float) -> dict:
    """Train, choose, write checkpoints, cards and curves; what each checkpoint solves."""
    o = context.options
    torch.manual_seed(o.seed)
    model, draw, judge, data = make(o, context.device)
    trace, snapshots = train(
        model.to(context.device), draw, judge, seconds=o.training_seconds or seconds, every=o.every,
        seed=o.seed, learning_rate=o.learning_rate,
    )  # fmt: skip
    made = provenance(command=context.command, seed=o.seed, batch=o.batch)
    about = {"data": data, "judged_on": o.judge} | made
    chosen = {what: snapshots[-1]}
    if what == "sudoku9" and (shot := early(snapshots)):
        chosen["sudoku9-early"] = shot
    for name, shot in chosen.items():
        save(model, shot, context.out, name, about)
    trace.meta.update(arm=what, parameters=sum(p.numel() for p in model.parameters()), **about)
    trace.save(context.out / f"{what}_training.npz")
    return {"greedy_on_validation": {name: shot["solved"] for name, shot in chosen.items()}}


def _stage(what: str, make: Callable, seconds: float) -> Stage:
    run = partial(_run, what=what, make=make, seconds=seconds)
    return Stage(
        run, f"train {what}, {seconds} s unless told", "models.json", what,
        {"greedy_on_validation": {str: float}}, lambda c: dict(vars(c.options)),
        lambda found: json.dumps(found["greedy_on_validation"]),
    )  # fmt: skip


STUDY = Study(
    "soar-models",
    "Train the lab's diffusion models: weights, a card and the curves of each.",
    {
        "sudoku9": _stage("sudoku9", _sudoku, 200),
        "sums": _stage("sums", _sums, 30),
        "gsm": gsm_run.STAGE,
    },
    {
        "training_seconds": Option(
            None, "of training (default: the stage's)", tiny=1.0, kind=float, least=0
        ),
        "every": Option(10.0, "seconds between snapshots", tiny=0.5, least=0.1),
        "batch": Option(1024, "texts a step", tiny=4),
        "train": Option(100_000, "puzzles or sums to train on", tiny=40),
        "judge": Option(1024, "validation puzzles or sums", tiny=2),
        "width": Option(None, "of the model (default: 256 and 96)", tiny=16, kind=int),
        "layers": Option(None, "of the model (default: 7 and 4)", tiny=1, kind=int),
        "learning_rate": Option(1e-3, "at its highest", least=0),
        "seed": Option(0, "of weights and batches", least=0),
        **gsm_run.OPTIONS,
    },
    default=("sudoku9",),
)
