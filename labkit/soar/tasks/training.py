"""train_sudoku: a masked diffusion LM from nothing to a Sudoku solver, in seconds on one core for 4x4."""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit import checks
from labkit.paths import cache_dir
from labkit.provenance import provenance
from labkit.soar.models import transformer
from labkit.soar.search import decode
from labkit.soar.tasks import sudoku, sudoku_model
from labkit.soar.tasks.sudoku import puzzles, solved
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.traces import TrainTrace

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.98), 0.05, 1.0
LEAST_MASKED = 0.02  # smallest masking rate drawn, so that few batches are empty


def train_sudoku(
    config: SudokuConfig | None = None,
    *,
    steps: int = 600,
    batch: int = 64,
    learning_rate: float = 3e-3,
    warmup: int = 50,
    train_puzzles: int = 2000,
    eval_puzzles: int = 200,
    eval_every: int = 100,
    seed: int = 0,
    device: str = "cpu",
    cache: bool = False,
    progress: bool = True,
) -> tuple[SudokuLM, TrainTrace]:
    """Train a SudokuLM by masked diffusion: each blank is masked with one rate U(0, 1) per board, and
    the loss is the cross-entropy on masked cells (Nie et al. 2025, without the 1/t weight).

    AdamW, linear warm-up, constant to 30 % of the run, then linear to 0. Deterministic on CPU for a
    seed. Each ``eval_every`` steps, greedy decoding of ``eval_puzzles`` held-out puzzles.

    cache   reuse the model that this code, with these arguments, trained before (runs/cache/sudoku)

    Returns (model in eval mode, TrainTrace with series ``loss`` (nats per masked cell) and ``solved``
    (share of held-out puzzles that greedy decoding solves)). ValueError names a bad argument.
    """
    config = config or SudokuConfig()
    for name, value in {"steps": steps, "batch": batch, "warmup": warmup, "eval_every": eval_every,
                        "train_puzzles": train_puzzles, "eval_puzzles": eval_puzzles}.items():  # fmt: skip
        checks.integer(name, value, 1)
    checks.number("learning_rate", learning_rate, 0)
    checks.integer("seed", seed, 0)
    arguments = {
        "steps": steps, "batch": batch, "learning_rate": learning_rate, "warmup": warmup,
        "train_puzzles": train_puzzles, "eval_puzzles": eval_puzzles, "eval_every": eval_every,
        "seed": seed,
    }  # fmt: skip
    weights, curves = _cached(config, arguments | {"device": torch.device(device).type})
    if cache and weights.exists() and curves.exists():
        return SudokuLM.load(weights)[0].to(device), TrainTrace.load(curves)
    began = time.perf_counter()
    model, log = _train(config, arguments, torch.device(device), progress)
    size = sum(p.numel() for p in model.parameters())
    about = {"arm": "sudoku", "config": asdict(config), "parameters": size}
    about |= provenance(**arguments, seconds=time.perf_counter() - began)
    trace = TrainTrace.from_log(log, meta=about)
    if cache:
        model.save(weights, **arguments, solved=float(trace.curve("solved")[1][-1]))
        trace.save(curves)
    return model.eval(), trace


def _train(
    config: SudokuConfig, given: dict, device: torch.device, progress: bool
) -> tuple[SudokuLM, list[dict]]:
    steps, batch, seed = given["steps"], given["batch"], given["seed"]
    kind = {"grids": "train"} if config.side == 4 else {}
    held = {"grids": "test"} if config.side == 4 else {}
    puzzle, answer = (
        torch.from_numpy(part).to(device)
        for part in puzzles(given["train_puzzles"], config.side, seed=2 * seed, **kind)
    )
    test, truth = puzzles(given["eval_puzzles"], config.side, seed=2 * seed + 1, **held)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SudokuLM(config).to(device)
    source = torch.Generator().manual_seed(seed)  # on the host, so that devices draw the same
    adam = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY)
    log = []
    for step in tqdm(range(steps + 1), desc="train sudoku", disable=not progress):
        if step % given["eval_every"] == 0 or step == steps:
            board = decode(model.eval(), torch.from_numpy(test), "greedy", record=False).sequences
            log.append({"step": step, "solved": solved(board, truth).mean()})
            model.train()
        if step == steps:
            break
        rate = min(1, (step + 1) / given["warmup"]) * min(1, (1 - step / steps) / 0.7)
        for group in adam.param_groups:
            group["lr"] = given["learning_rate"] * rate
        pick = torch.randint(len(puzzle), (batch,), generator=source)
        share = torch.rand(batch, 1, generator=source).clamp(min=LEAST_MASKED)
        chosen = torch.rand(batch, config.side**2, generator=source) < share
        board, target = puzzle[pick.to(device)], answer[pick.to(device)]
        masked = (board == sudoku.BLANK) & chosen.to(device)
        logits = model(torch.where(masked, model.mask_id, target))
        nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        loss = (nats * masked.flatten()).sum() / masked.sum().clamp(min=1)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        log.append({"step": step + 1, "loss": loss.detach()})
    for entry in log:  # one wait for the device at the end, none per step
        entry |= {name: float(value) for name, value in entry.items() if name != "step"}
    return model, log


def _cached(config: SudokuConfig, arguments: dict) -> tuple[Path, Path]:
    """Where this run's weights and curves are kept: named by arguments, code and torch version."""
    modules = (__file__, sudoku.__file__, sudoku_model.__file__, transformer.__file__)
    code = [Path(module).read_bytes() for module in modules]
    key = json.dumps([asdict(config), arguments, torch.__version__], sort_keys=True).encode()
    name = hashlib.sha256(b"".join([key, *code])).hexdigest()[:16]
    folder = cache_dir("sudoku")
    return folder / f"{name}.safetensors", folder / f"{name}.npz"
