"""Masked diffusion training: ``train``, the loop, and ``train_sudoku``, seconds on one core for 4x4."""

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from labkit import checks
from labkit.paths import cache_dir
from labkit.progress import Progress, bar, tell_rows
from labkit.provenance import provenance
from labkit.soar.masking import masked_loss
from labkit.soar.models import transformer
from labkit.soar.models.transformer import MaskedLM
from labkit.soar.search import decode
from labkit.soar.tasks import sudoku, sudoku_model
from labkit.soar.tasks.sudoku import puzzles, solved
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.traces import TrainTrace

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.98), 0.05, 1.0
HOLD = 0.3  # share of the run at the full learning rate
LEAST_MASKED = 0.02  # smallest masking rate drawn, so that few batches are empty
Batch = tuple[Tensor, Tensor, Tensor]  # (B, L) int64 inputs, int64 targets, bool where the loss counts


def mask_at_random_rates(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Bool (B, L): each position masked with the rate of its row, U(0, 1)."""
    rate = torch.rand(shape[0], 1, generator=source, device=source.device).clamp(min=LEAST_MASKED)
    return torch.rand(shape, generator=source, device=source.device) < rate


def train(
    model: MaskedLM,
    draw: Callable[[], Batch],
    done: Callable[[int], float],
    watch: Callable[[int, float, list[dict[str, Any]]], dict[str, float]],
    *,
    learning_rate: float,
    warmup: int,
    log_every: int = 1,
    fast: bool = False,
) -> list[dict[str, float]]:
    """Train ``model`` in place: cross-entropy on masked positions (Nie et al. 2025, without 1/t).

    AdamW, linear warm-up, constant to 30 % of the run, then linear to 0.

    Args:
        model: What is trained, on its device.
        draw: Makes a batch on that device.
        done: Before step i: the share of the run that is over; 1 ends it.
        watch: Given step, share and the log so far before each step and at the end: what to log more,
            often nothing.
        learning_rate: At its highest.
        warmup: Steps until then.
        log_every: Steps between two logged losses.
        fast: On a GPU: bf16 autocast, compiled blocks, fused AdamW.

    Returns:
        Dicts with ``step`` and ``loss`` (nats per masked position) or what ``watch`` gave.
    """
    adam = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=fast or None)
    if fast:
        for block in model.blocks:  # one compilation serves all layers
            block.compile()
    device = next(model.parameters()).device
    log: list[dict[str, Any]] = []
    for step in itertools.count():
        share = done(step)
        if seen := watch(step, share, log):
            log.append({"step": step, **seen})
        if share >= 1:
            break
        rate = min(1, (step + 1) / warmup) * min(1, (1 - share) / (1 - HOLD))
        for group in adam.param_groups:
            group["lr"] = learning_rate * rate
        inputs, targets, masked = draw()
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            logits = model(inputs)
        loss = masked_loss(logits, targets, masked)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        if (step + 1) % log_every == 0:
            log.append({"step": step + 1, "loss": loss.detach()})
        if step == 0:
            loss.item()  # the first step compiles: a clock in ``done`` starts after it
    # One wait for the device at the end, none per step.
    return [{name: value if name == "step" else float(value) for name, value in one.items()} for one in log]


@dataclass(frozen=True)
class Recipe:
    """How ``train_sudoku`` trains. Each ``eval_every`` steps ``eval_puzzles`` held-out ones are decoded."""

    steps: int = 600
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 50
    train_puzzles: int = 2000
    eval_puzzles: int = 200
    eval_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "warmup", "eval_every", "train_puzzles", "eval_puzzles"):
            checks.integer(name, getattr(self, name), 1)
        checks.number("learning_rate", self.learning_rate, 0)
        checks.integer("seed", self.seed, 0)


def train_sudoku(
    *,
    device: str = "cpu",
    cache: bool = False,
    progress: Progress = True,
    **recipe: Any,
) -> tuple[SudokuLM, TrainTrace]:
    """Train a 4x4 SudokuLM by masked diffusion. Deterministic on a CPU for a seed.

    Args:
        device: Where to train; batches are drawn on the host, so that devices draw the same.
        cache: Reuse the model that this code, with these arguments, trained before (runs/cache/sudoku).
        progress: Show a bar, or a function called as progress(steps done, steps); it may raise to stop.
        recipe: Fields of ``Recipe``.

    Returns:
        The model in eval mode, and a TrainTrace with the series ``loss`` (nats per masked cell) and
        ``solved`` (share of held-out puzzles that greedy decoding solves).

    Raises:
        ValueError: names the argument that is out of range.
    """
    config, given = SudokuConfig(), Recipe(**recipe)
    arguments = asdict(given)
    weights, curves = _cached(config, arguments | {"device": torch.device(device).type})
    if cache and (kept := _kept(weights, curves)):
        return kept[0].to(device), kept[1]
    began = time.perf_counter()
    model, log = _train(config, given, torch.device(device), progress)
    size = sum(p.numel() for p in model.parameters())
    about = {"arm": "sudoku", "config": asdict(config), "parameters": size}
    about |= provenance(**arguments, seconds=time.perf_counter() - began)
    trace = TrainTrace.from_log(log, meta=about)
    if cache:
        model.save(weights, **arguments, solved=float(trace.curve("solved")[1][-1]))
        trace.save(curves)
    return model.eval(), trace


def _train(
    config: SudokuConfig, recipe: Recipe, device: torch.device, progress: Progress
) -> tuple[SudokuLM, list[dict[str, float]]]:
    seed = recipe.seed
    boards, answers = (
        torch.from_numpy(part).to(device)
        for part in puzzles(recipe.train_puzzles, seed=2 * seed, grids="train")
    )
    test, truth = puzzles(recipe.eval_puzzles, seed=2 * seed + 1, grids="test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SudokuLM(config).to(device)
    source = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        pick = torch.randint(len(boards), (recipe.batch,), generator=source).to(device)
        chosen = mask_at_random_rates((recipe.batch, boards.shape[1]), source).to(device)
        target, masked = answers[pick], (boards[pick] == sudoku.BLANK) & chosen
        return torch.where(masked, model.mask_id, target), target, masked

    with bar(progress, total=recipe.steps, desc="train sudoku") as shown:

        def watch(step: int, share: float, log: list[dict[str, Any]]) -> dict[str, float]:
            tell_rows(progress, log)
            shown.update(min(step, 1))
            if step % recipe.eval_every and share < 1:
                return {}
            found = decode(model, torch.from_numpy(test), "greedy", record=False).sequences
            return {"solved": solved(found, truth).mean()}

        log = train(
            model, draw, lambda step: step / recipe.steps, watch,
            learning_rate=recipe.learning_rate, warmup=recipe.warmup,
        )  # fmt: skip
    return model, log


def _kept(weights: Path, curves: Path) -> tuple[SudokuLM, TrainTrace] | None:
    """What an earlier call kept; None where a file is missing or damaged."""
    if not (weights.exists() and curves.exists()):
        return None
    try:
        return SudokuLM.load(weights)[0], TrainTrace.load(curves)
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        print(f"{weights}: damaged ({type(error).__name__}); the model is trained again", file=sys.stderr)
        return None


def _cached(config: SudokuConfig, arguments: dict[str, Any]) -> tuple[Path, Path]:
    """Where this run's weights and curves are kept: named by arguments, code and torch version."""
    modules = (__file__, sudoku.__file__, sudoku_model.__file__, transformer.__file__)
    code = [Path(module).read_bytes() for module in modules]
    key = json.dumps([asdict(config), arguments, torch.__version__], sort_keys=True).encode()
    name = hashlib.sha256(b"".join([key, *code])).hexdigest()[:16]
    folder = cache_dir("sudoku")
    return folder / f"{name}.safetensors", folder / f"{name}.npz"
