"""Train the checkpoints that ``load_model("lab/...")`` opens, in minutes.

python -m labkit.studies.soar.lab_model sudoku9 [--seconds 200]  lab/sudoku9 and lab/sudoku9-early, on a GPU
python -m labkit.studies.soar.lab_model sums [--seconds 30]      lab/sums; small enough for a CPU core

Masked diffusion: what a text leaves open is masked with one rate U(0, 1) per row, and the loss is the
cross-entropy on masked positions (Nie et al. 2025, without the 1/t weight). AdamW, on a GPU bf16 autocast
and compiled blocks, warm-up, constant to 30 % of the time, then linear to 0. The puzzles are taken from
``puzzles`` and turned by a random symmetry of Sudoku every time they are seen.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit import checks
from labkit.paths import CHECKPOINTS, write_atomic
from labkit.provenance import provenance
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.search import decode
from labkit.soar.tasks import training
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.soar.tasks.sudoku import solved
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.soar.tasks.sums import QUESTION, SumsConfig, SumsLM, encode, right, sums
from labkit.soar.tasks.training import Batch, mask_at_random_rates
from labkit.studies.soar.puzzles import training_puzzles
from labkit.traces import TrainTrace

RESULTS = Path(__file__).parent / "results"
HEADROOM = (0.60, 0.75, 0.85)  # what the early checkpoint should solve by greedy: from, best, to


class Clock:
    """The share of ``seconds`` that training has taken; the first step, which compiles, does not count."""

    def __init__(self, seconds: float, bar: tqdm):
        self.seconds, self.bar, self.spent = seconds, bar, 0.0

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
    with tqdm(total=round(seconds), unit="s", desc="train") as bar:
        clock = Clock(seconds, bar)

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
    return tuple(digits.gather(1, part.gather(1, cells)) for part in (boards, answers))


def sums_batch(texts: torch.Tensor, size: int, source: torch.Generator) -> Batch:
    """``size`` of the texts (N, LENGTH), some of what stands behind the question masked."""
    target = texts[torch.randint(len(texts), (size,), generator=source, device=texts.device)]
    masked = mask_at_random_rates(target.shape, source)
    masked[:, :QUESTION] = False
    return torch.where(masked, 0, target), target, masked


def judge_sudoku(boards: np.ndarray, answers: np.ndarray, model: MaskedLM) -> float:
    return solved(decode(model, torch.from_numpy(boards), "greedy", record=False).sequences, answers).mean()


def judge_sums(texts: list[str], model: MaskedLM) -> float:
    options = {"gen_length": model.max_length - QUESTION, "record": False}
    return right(decode(model, encode(texts)[:, :QUESTION], "greedy", **options).sequences, texts).mean()


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
    write_atomic(folder / f"{name}.json", lambda path: path.write_text(json.dumps(card, indent=1) + "\n"))
    return twin.save(folder / f"{name}.safetensors", **card)


def recorded(what: str) -> tuple[TrainTrace, dict[str, dict]]:
    """Curves of the shipped training of "sudoku9" or "sums", and {checkpoint: its card}."""
    checks.choice("what", what, ("sudoku9", "sums"))
    cards = {file.stem: json.loads(file.read_text()) for file in sorted(CHECKPOINTS.glob(f"{what}*.json"))}
    return TrainTrace.load(RESULTS / f"{what}_training.npz"), cards


def main(argv: list[str] | None = None) -> None:
    """Train, choose and write checkpoints, cards and curves."""
    parser = argparse.ArgumentParser(
        prog="labkit.studies.soar.lab_model", description=__doc__.split("\n")[0]
    )
    parser.add_argument("what", choices=["sudoku9", "sums"])
    parser.add_argument("--seconds", type=float, help="of training (default: 200 and 30)")
    parser.add_argument("--every", type=float, help="seconds between snapshots (default: 10)", default=10)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--train", type=int, default=100_000, help="puzzles or sums to train on")
    parser.add_argument("--judge", type=int, default=1024, help="validation puzzles or sums")
    parser.add_argument("--width", type=int), parser.add_argument("--layers", type=int)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder for weights and cards")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the curves")
    given = parser.parse_args(argv)
    torch.manual_seed(given.seed)
    if given.what == "sudoku9":
        config = SudokuConfig(9, given.width or 256, given.layers or 7, heads=8)
        model, seconds = SudokuLM(config), given.seconds or 200
        data = [torch.from_numpy(part).to(given.device) for part in training_puzzles(given.train)]
        draw = partial(sudoku_batch, *data, given.batch)
        judge = partial(judge_sudoku, *load_puzzles("validation", given.judge))
        about = {"data": f"{len(data[0])} puzzles of puzzle_sets (22 to 34 clues), symmetries drawn anew"}
    else:
        config = SumsConfig(given.width or 96, given.layers or 4, heads=4)
        model, seconds = SumsLM(config), given.seconds or 30
        draw = partial(sums_batch, encode(sums(given.train, seed=1)).to(given.device), given.batch)
        judge = partial(judge_sums, sums(given.judge, seed=2, test=True))
        about = {"data": f"{given.train} chain sums; one in eight of all sums is held out for tests"}
    model.to(given.device)
    trace, snapshots = train(
        model, draw, judge, seconds=seconds, every=given.every, seed=given.seed,
        learning_rate=given.learning_rate,
    )  # fmt: skip
    command = " ".join(
        ["python -m labkit.studies.soar.lab_model", *(sys.argv[1:] if argv is None else argv)]
    )
    about |= {"judged_on": given.judge} | provenance(command=command, seed=given.seed, batch=given.batch)
    chosen = {given.what: snapshots[-1]}
    if given.what == "sudoku9" and (shot := early(snapshots)):
        chosen["sudoku9-early"] = shot
    for name, shot in chosen.items():
        print(
            f"{save(model, shot, given.out, name, about)}: greedy solves {shot['solved']:.1%}", flush=True
        )
    trace.meta.update(arm=given.what, parameters=sum(p.numel() for p in model.parameters()), **about)
    trace.save(given.results / f"{given.what}_training.npz")


if __name__ == "__main__":
    main()
