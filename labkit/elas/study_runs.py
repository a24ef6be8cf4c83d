"""The study's training runs: a process for each list of jobs, all on one card."""

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from threading import BrokenBarrierError

import torch
import torch.multiprocessing as mp

from labkit.elas import study, variants
from labkit.elas.data import Text, load_text
from labkit.elas.evaluation import evaluate
from labkit.elas.fastloop import FastRun
from labkit.elas.pretrain import PretrainConfig
from labkit.elas.recorded import save_checkpoint
from labkit.provenance import provenance

GRACE = 20  # seconds a process may go on beyond the deadline to finish its files


def share(
    workers: list[list[dict]], folder: Path, how: dict, command: str, deadline: float, timed: bool
) -> None:
    """Run every list of jobs in its own process, ``how`` = {device, compiled}.

    timed   first time a training step of each list's first job, one at a time
    """
    # each process would start a compiler thread for every core
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    context = mp.get_context("spawn")
    gate = context.Barrier(len(workers)) if timed else None
    turn = context.Lock()
    processes = [
        context.Process(target=work, args=(jobs, folder, how, command, deadline, gate, turn))
        for jobs in workers
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(1, deadline + GRACE - time.time()))
        if process.is_alive():
            process.terminate()


def work(jobs: list[dict], folder: Path, how: dict, command: str, deadline: float, gate, turn) -> None:
    """One process: its jobs in order, each guarded."""
    torch.set_num_threads(2)
    timing: dict[str, float] = {}
    if gate is not None:
        timed = partial(alone, jobs[0], how, gate, turn, timing)
        study.guard(f"time {jobs[0]['name']}", folder, timed)
    for job in jobs:
        if time.time() < deadline:
            run = partial(train, job, folder, how, command, deadline, timing)
            study.guard(job["name"], folder, run)


def make(job: dict, how: dict) -> FastRun:
    config = PretrainConfig(**job["config"])
    text = load_text(config.source, vocab_size=config.vocab_size, max_bytes=config.max_bytes)
    options = {k: v for k, v in job["options"].items() if k != "keep"}
    dtype = torch.bfloat16 if how["device"] == "cuda" else torch.float32
    return FastRun(config, text, dtype=dtype, **how, **options)


def alone(job: dict, how: dict, gate, turn, found: dict[str, float]) -> None:
    """Fill {ms, peak_bytes, tokens_per_second} of a training step while the other processes wait."""
    try:
        run = make(job, how)
        run.throughput(1)  # compile first
        with contextlib.suppress(BrokenBarrierError):
            gate.wait(120)
        with turn:
            found |= run.throughput(20)
        with contextlib.suppress(BrokenBarrierError):
            gate.wait(120)
    except Exception:
        gate.abort()  # nobody waits for a process that failed
        raise
    found["tokens_per_second"] = 1000 * run.config.batch_size * run.config.seq_len / found["ms"]


def train(job: dict, folder: Path, how: dict, command: str, deadline: float, timing: dict) -> None:
    run = make(job, how)
    trace = run.train(deadline)
    trace.meta |= {"arm": job["shown"], "options": job["options"], "throughput": timing}
    trace.meta["provenance"] = provenance(command=command)
    if not run.masked and run.net.activations():
        trace.meta["posthoc_nats"] = posthoc(run, run.text)
    trace.save(folder / f"{job['name']}.npz")
    if job["options"].get("keep"):
        save_checkpoint(folder / job["name"], run.model, trace, run.text.tokenizer)
    print(
        f"{job['name']:34} step {trace.meta['steps_done']:5} loss {trace.meta['held_out_nats']:.4f} nats "
        f"{trace.meta['seconds']:.0f} s",
        flush=True,
    )


def posthoc(run: FastRun, text: Text) -> dict[str, float]:
    """Held-out nats of a model trained without a mask when each rule is laid on afterwards.

    The scale of "soft scaled" is fitted on four training rows.
    """
    found = {}
    for rule in variants.RULES:
        variants.use(run.net, rule)
        run.net.set_sparse(True)
        with torch.compiler.set_stance("force_eager"):
            with torch.no_grad():
                run.net.train()(input_ids=run.rows[:4, :-1].long(), use_cache=False)
            found[rule] = evaluate(run.net, run.held_out, text.token_bytes, 32).nats
    return found
