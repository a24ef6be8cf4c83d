"""ELAS on several GPUs: DistributedDataParallel and FSDP2 against one process.

    python -m labkit.studies elas-parallel

Stage "same": equal batch, the losses of all steps. They hold a dense warm-up that ends, two exact steps of
LORO and the restarts after them. In float64: masks turn float32's rounding into other losses, so that one
process which merely adds its rows in another order drifts by 1e-3 nats, and a fault as large would hide.
Stage "speed": bfloat16 passes over float32 weights, eager, ``--rows`` in each process. Its losses are not
compared: FSDP2 rounds what runs between the layers, autocast does not. On a CPU two processes talk through
gloo: a rehearsal.
"""

import json
import math
import multiprocessing
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from labkit.elas.config import PretrainConfig, build_model, read_text
from labkit.elas.data import windows
from labkit.elas.loro import Loro
from labkit.elas.schedule import cosine_restart
from labkit.paths import write_json
from labkit.provenance import device_name
from labkit.studies.harness import Context, Option, Stage, Study

SHARED = ("ddp", "fsdp")  # forms that take all GPUs; "one" takes one
WARM = 10  # steps that are not timed
PATIENCE = 60  # seconds for the processes to end after their work


def settings(steps: int, rows: int, tiny: bool) -> PretrainConfig:
    """The run: the paper's 60M layers over SymPy's sources; rows a step, of all processes together."""
    shape: dict[str, Any] = {"size": "60m", "vocab_size": 8192, "seq_len": 256, "max_bytes": None}
    if tiny:
        small = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "rank": 8}
        shape = {"model": small | {"intermediate_size": 64}, "vocab_size": 300, "seq_len": 32}
        shape |= {"max_bytes": 200_000}
    return PretrainConfig(
        arm="elas_ste", **shape, batch_size=rows, steps=steps, lr_warmup=max(1, steps // 5),
        dense_steps=steps // 3, exact_every=max(2, steps * 2 // 5), log_every=1, eval_every=steps, seed=0,
    )  # fmt: skip


def same(context: Context) -> dict[str, Any]:
    """The losses of each form, and how far they are from those of one process."""
    forms = _train(context, ("one", *SHARED), fast=False)
    one = np.array(forms["one"]["losses"])
    for found in forms.values():
        found["largest_difference"] = float(np.abs(np.array(found["losses"]) - one).max())
    return {"device": device_name(), "forms": forms}


def speed(context: Context) -> dict[str, Any]:
    """Tokens a second of each form, and how many times those of one process: weak scaling."""
    forms = _train(context, ("one", *SHARED), fast=True)
    for found in forms.values():
        found["speedup"] = found["tokens_per_second"] / forms["one"]["tokens_per_second"]
    return {"device": device_name(), "forms": forms}


def _train(context: Context, forms: tuple[str, ...], fast: bool) -> dict[str, dict[str, Any]]:
    o, cuda = context.options, context.device == "cuda"
    processes = torch.cuda.device_count() if cuda else 2
    read_text(settings(o.steps, o.rows, context.tiny))  # once, for the cache
    multiprocessing.set_forkserver_preload([__name__, "labkit.elas.model"])  # once, not in each process
    found = {}
    for form in forms:
        ranks = processes if form in SHARED else 1
        config = settings(o.steps, o.rows * (ranks if fast else 1), context.tiny)
        with TemporaryDirectory() as folder:
            file, where = Path(folder) / "found.json", f"file://{folder}/processes"
            how = (ranks, where, form, config, cuda, fast, file)
            # forks of a process that has no threads yet, where neither a lock nor CUDA can be taken over
            _end(mp.start_processes(_worker, how, ranks, join=False, start_method="forkserver"), file)
            found[form] = json.loads(file.read_text())
        last = f"{form} of {ranks}: {found[form]['tokens_per_second']:,.0f} tokens/s"
        print(f"{last}, loss {found[form]['losses'][-1]:.4f}", flush=True)
    return found


def _end(context: mp.ProcessContext, file: Path) -> None:
    """Wait until all have ended; RuntimeError where one goes on ``PATIENCE`` after ``file`` came.

    Before that no wait is endless: a collective operation that a process does not join is an error.
    """
    deadline = math.inf
    try:
        while not context.join(timeout=1):
            if deadline == math.inf and file.exists():
                deadline = time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                raise RuntimeError(f"a process of elas-parallel did not end in {PATIENCE} s after its work")
    finally:
        for process in context.processes:
            process.kill()


def _worker(
    rank: int, ranks: int, where: str, form: str, config: PretrainConfig, cuda: bool, fast: bool, file: Path
) -> None:
    """One process: every ``ranks``-th row of each step's; the first writes what all found."""
    device = f"cuda:{rank}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if cuda else "gloo", init_method=where, rank=rank, world_size=ranks)
    losses, times = _steps(rank, ranks, form, config, device, fast)
    whole = torch.stack(losses).to(device)
    dist.all_reduce(whole)
    if rank == 0:
        each = np.diff(times[min(WARM, config.steps // 2) :])
        body = {
            "processes": ranks, "losses": (whole / ranks).tolist(),
            "tokens_per_second": config.batch_size * config.seq_len / float(np.median(each)),
            "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        }  # fmt: skip
        write_json(file, body)
    dist.destroy_process_group()


def _steps(
    rank: int, ranks: int, form: str, config: PretrainConfig, device: str, fast: bool
) -> tuple[list[Tensor], list[float]]:
    """The loss of each step and when it was done.

    The model ends here, before the processes part: DistributedDataParallel's C++ part, if the last to hold
    gloo's, ends it with Python's lock, for which a thread of gloo may be waiting.
    """
    cuda = device.startswith("cuda")
    text = read_text(config)
    rows = torch.from_numpy(windows(text.train, config.seq_len).astype(np.int64))
    built: Any = build_model(config, text)  # transformers wraps .to() so that its type is lost
    built.to_dtype(torch.float32 if fast else torch.float64).to(device)
    model, optimizer = wrapped(built, form, ranks, config, cuda, fast)
    order = np.random.default_rng(config.seed)
    losses, times = [], []
    for step in range(config.steps):
        picked = order.choice(len(rows), config.batch_size, replace=False)[rank::ranks]
        rate = cosine_restart(step, total=config.steps, warmup=config.lr_warmup, every=config.exact_every)
        losses.append(_step(model, optimizer, rows[picked].to(device), config.lr * rate, cuda and fast))
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter())
    return losses, times


def wrapped(
    model: Any, form: str, ranks: int, config: PretrainConfig, cuda: bool, fast: bool
) -> tuple[Any, Loro]:
    """The model as ``form`` trains it, and its optimiser."""
    if form == "fsdp":
        mesh = init_device_mesh("cuda" if cuda else "cpu", (ranks,))
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if fast else MixedPrecisionPolicy()
        for part in [*model.model.layers, model]:
            fully_shard(part, mesh=mesh, mp_policy=policy)
    optimizer = Loro.for_model(model, lr=config.lr, exact_every=config.exact_every)
    if form == "ddp":
        model = DistributedDataParallel(model)
    return model, optimizer


def _step(model: Any, optimizer: Loro, rows: Tensor, lr: float, narrow: bool) -> Tensor:
    """One step of training; the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=narrow):
        loss = model(rows[:, :-1], labels=rows[:, :-1], shift_labels=rows[:, 1:].contiguous()).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _told(key: str, unit: str, found: dict[str, Any]) -> str:
    return ", ".join(f"{form} {row[key]:.3g}{unit}" for form, row in found["forms"].items())


STUDY = Study(
    "elas-parallel",
    "DDP and FSDP2 on all GPUs against one: the same losses, tokens a second.",
    {
        "same": Stage(same, "float64: the losses of 1 and N processes", "parallel-same.json",
                      show=partial(_told, "largest_difference", " nats off")),
        "speed": Stage(speed, "bfloat16: tokens a second", "parallel-speed.json",
                       show=partial(_told, "speedup", " times")),
    },
    {
        "steps": Option(50, "of each run", tiny=5),
        "rows": Option(256, "of a step: of same in all processes together, of speed in each", tiny=4),
    },
)  # fmt: skip
