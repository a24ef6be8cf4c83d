"""The ELAS study, on one machine with one or several GPUs: one command that goes on where it stopped.

    python -m labkit.studies.elas.study --out runs/elas_study --seconds 540

Stages (``--stages`` picks some; the first four are the default):

times          a training step of each arm, alone on the card
tune           four learning rates for each of seven arms, one seed; chosen on the validation text
arms           every arm at its rate, ``--seeds`` seeds, same batches, judged once on the test text
rules          the same with soft thresholding instead of magnitude, and without dense warm-up
memory, speed  one feed-forward layer at the 1B shape (study_ffn)
large          the paper's 60M configuration, full rank, LORO and ELAS
warmup         float16 activations, with and without dense warm-up, at two learning rates
checkpoints    two 3m models for the notebooks

The first four fill study.json and curves.npz (study_record); a later call with the same --out goes on from
them. memory and speed leave a JSON each, the others a TrainTrace a run; each card has --share processes.
``--device cpu --tiny`` rehearses it.
"""

import argparse
import json
import os
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from labkit.checks import choice, fail, integer, number
from labkit.elas.config import ARMS
from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.studies.elas.plan import RECORDED, TRACED, Job, plan, settings

ALONE = ("memory", "speed")
STAGES = (*RECORDED, *ALONE, *TRACED)


def measure(stage: str, device: str, tiny: bool, deadline: float) -> dict:
    """The body of memory.json or speed.json."""
    from labkit.studies.elas import ffn

    if stage == "memory":
        batches = [1, 2] if tiny else [1, 2, 4, 8, 16, 32, 64, 128]
        body = {"ffn": ffn.ffn_memory(batches, device, tiny)}
        body["model"] = ffn.model_memory(batches[::2] + batches[-1:], device, tiny, deadline)
        return body | {"exact_step_ms": ffn.exact_step(device, tiny)}
    if tiny:
        return {"ffn": ffn.speed(256, device, tiny, 5, compiled=False)}
    rows = ffn.speed(16384, device, tiny, 20, compiled=True)
    return {"ffn": rows + ffn.speed(65536, device, tiny, 10, compiled=False)}


def train(stages: list[str], options: argparse.Namespace, command: str, deadline: float) -> None:
    """The training stages, all in one pool. ValueError if --out and --stages do not go together."""
    from labkit.elas.data import load_text
    from labkit.studies.elas.pool import Slot, spread
    from labkit.studies.elas.record import Record
    from labkit.studies.elas.runs import How, start, work

    folder, base = Path(options.out), settings(options.steps, options.tiny)
    for source, vocab, limit in texts(stages, options):  # encoded once, for the processes to read
        text = load_text(source, vocab_size=vocab, max_bytes=limit)
        if (source, vocab, limit) == (base.source, base.vocab_size, base.max_bytes):
            study_text = text
    record = Record(folder, base, study_text, command) if set(stages) & set(RECORDED) else None

    if {"arms", "rules"} & set(stages) and "tune" not in stages and not record.body["chosen"]:
        fail("--stages", options.stages, "with tune, or --out a study whose learning rates are chosen")
    planned: dict[str, list[Job]] = {}  # for the learning rates known so far

    def waiting() -> list[Job]:
        chosen = record.body["chosen"] if record else {}
        if (key := str(chosen)) not in planned:
            jobs = [job for stage in stages for job in plan(stage, base, options.seeds, chosen)]
            planned[key] = [job for job in jobs if job.config.arm in options.arms.split(",")]
        return [
            job for job in planned[key]
            if not (record.done(job) if job.stage in RECORDED else (folder / f"{job.name}.npz").exists())
        ]  # fmt: skip

    def done(job: Job, found: Any, error: BaseException | None) -> None:
        if error is not None:
            tell(job.name, folder, error)
        elif found is not None:
            if job.stage in RECORDED:
                record.add(job, found)
            print(f"{job.name:34} {_told(job, found)}", flush=True)

    cards = options.cards or _cards(options.device)
    # each process would start a compiler thread for every core
    threads = max(1, min(8, (os.cpu_count() or 1) // (cards * options.share)))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
    opened = partial(start, device=options.device)
    slots = [Slot(card, place, opened) for place in range(options.share) for card in range(cards)]
    compiled = options.device == "cuda" and not options.no_compile
    how = How(options.device, compiled, not options.no_graph, folder, command, deadline)
    spread(waiting, partial(work, how=how), done, slots, deadline)
    if left := waiting():
        print(f"{len(left)} jobs are left: the same command goes on with them", flush=True)


def texts(stages: list[str], options: argparse.Namespace) -> list[tuple]:
    """(source, vocab_size, max_bytes) that the stages read."""
    base = settings(options.steps, options.tiny)
    configs = [job.config for stage in stages for job in plan(stage, base, 1, {})]
    configs += [base] * bool(set(stages) & set(RECORDED))
    return sorted({(c.source, c.vocab_size, c.max_bytes) for c in configs}, key=str)


def _cards(device: str) -> int:
    import torch

    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def _told(job: Job, found: Any) -> str:
    if job.stage == "times":
        return f"{found['ms']['p50']:.2f} ms a step, {found['tokens_per_second']:,.0f} tokens a second"
    meta = found.meta
    side = "test" if "test_nats" in meta else "validation"
    said = f"step {meta['steps_done']:5} {meta[f'{side}_nats']:.4f} {side} nats {meta['seconds']:.0f} s"
    return "; ".join([said, *found.findings])


def _write(path: Path, body: dict) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(body, indent=1) + "\n"))


def tell(what: str, folder: Path, error: BaseException) -> None:
    """Add an error to errors.txt and show it: nothing else is lost."""
    text = f"{what}\n{''.join(traceback.format_exception(error))}\n"
    with (folder / "errors.txt").open("a") as file:
        file.write(text)
    print(text, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m labkit.studies.elas.study", description=__doc__.split("\n")[0]
    )
    top.add_argument(
        "--out", required=True, help="folder for the results; one that has some is gone on with"
    )
    top.add_argument("--seconds", type=float, default=3600, help="stop by then (default: 3600)")
    top.add_argument("--stages", default=",".join(RECORDED), help=f"of {', '.join(STAGES)}")
    top.add_argument("--arms", default=",".join(ARMS), help="to train (default: all)")
    top.add_argument("--seeds", type=int, default=8, help="of the arms (default: 8)")
    top.add_argument("--steps", type=int, default=700, help="of each arm (default: 700)")
    top.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    top.add_argument("--cards", type=int, help="GPUs to use (default: all; processes, on a CPU: 1)")
    top.add_argument("--share", type=int, default=1, help="processes on each card (default: 1)")
    top.add_argument("--no-compile", action="store_true", help="train without torch.compile")
    top.add_argument("--no-graph", action="store_true", help="train without CUDA graphs")
    top.add_argument("--tiny", action="store_true", help="smallest sizes: a rehearsal")
    return top


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    words = ["OUT" if word == options.out else word for word in (sys.argv[1:] if argv is None else argv)]
    command = " ".join(["python -m labkit.studies.elas.study", *words])
    folder = Path(options.out)
    try:
        stages = [choice("stages", stage, STAGES) for stage in options.stages.split(",")]
        for arm in options.arms.split(","):
            choice("arms", arm, tuple(ARMS))
        for name in ("seeds", "steps", "share", "cards"):
            if getattr(options, name) is not None:
                integer(name, getattr(options, name), 1)
        deadline = time.time() + number("seconds", options.seconds, 1)
    except ValueError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    errors = folder / "errors.txt"
    before = errors.stat().st_size if errors.exists() else 0
    for stage in (stage for stage in stages if stage in ALONE):
        try:
            body = measure(stage, options.device, options.tiny, deadline)
            _write(folder / f"{stage}.json", body | {"provenance": provenance(command=command)})
        except Exception as error:
            tell(stage, folder, error)
    if training := [stage for stage in STAGES if stage in stages and stage not in ALONE]:
        try:
            train(training, options, command, deadline)
        except ValueError as error:  # of a folder that holds another study, or of stages without tune
            print(f"study: {error}", file=sys.stderr)
            return 2
    return 1 if errors.exists() and errors.stat().st_size > before else 0


if __name__ == "__main__":
    sys.exit(main())
