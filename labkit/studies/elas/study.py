"""The ELAS study, on one machine with one or several GPUs: one command that goes on where it stopped.

    python -m labkit.studies elas --out runs/elas_study --seconds 540

The training stages share one pool of processes, --share on each card. The first four fill study.json and
curves.npz (journal.py), and a later call with the same --out goes on from them; large, warmup and
checkpoints leave a TrainTrace a run. ``--device cpu --tiny`` rehearses it.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

from labkit.checks import fail
from labkit.elas.config import ARMS
from labkit.studies.elas import ffn
from labkit.studies.elas.journal import Journal
from labkit.studies.elas.plan import RECORDED, TRACED, Job, plan, settings
from labkit.studies.elas.pool import Slot, spread
from labkit.studies.elas.runs import How, start, work
from labkit.studies.files import digest
from labkit.studies.harness import Context, Option, Stage, Study


def memory(context: Context) -> dict:
    """Bytes of one feed-forward layer and of a whole training step, at the 1B shape."""
    device, tiny = context.device, context.tiny
    batches = [1, 2] if tiny else [1, 2, 4, 8, 16, 32, 64, 128]
    body = {"ffn": ffn.ffn_memory(batches, device, tiny)}
    body["model"] = ffn.model_memory(batches[::2] + batches[-1:], device, tiny, context.deadline)
    return body | {"exact_step_ms": ffn.exact_step(device, tiny)}


def speed(context: Context) -> dict:
    """Milliseconds of one feed-forward layer at the 1B shape, every rival in turn."""
    if context.tiny:
        return {"ffn": ffn.speed(256, context.device, True, 5, compiled=False)}
    rows = ffn.speed(16384, context.device, False, 20, compiled=True)
    return {"ffn": rows + ffn.speed(65536, context.device, False, 10, compiled=False)}


def prepare(context: Context) -> Journal | None:
    """The texts of the training stages encoded, once for all processes; the record that is gone on with.

    ValueError if --out and --stages do not go together.
    """
    stages = [stage for stage in context.stages if stage not in ALONE]
    if not stages:
        return None
    from labkit.elas.data import load_text

    base = settings(context.options.steps, context.tiny)
    needed = {text_of(job.config) for stage in stages for job in plan(stage, base, 1, {})}
    recorded = set(stages) & set(RECORDED)
    if recorded:
        needed.add(text_of(base))
    texts = {of: load_text(of[0], vocab_size=of[1], max_bytes=of[2]) for of in sorted(needed, key=str)}
    if not recorded:
        return None
    journal = Journal(context.out, base, texts[text_of(base)], context.command)
    if {"arms", "rules"} & set(stages) and "tune" not in stages and not journal.body["chosen"]:
        given = ",".join(context.stages)
        fail("stages", given, "with tune, or --out a study whose learning rates are chosen")
    return journal


def text_of(config: Any) -> tuple[str, int, int | None]:
    """(source, vocab_size, max_bytes) that a run reads."""
    return config.source, config.vocab_size, config.max_bytes


def train(context: Context) -> None:
    """The training stages of the call, all in one pool."""
    o, journal, folder = context.options, context.prepared, context.out
    base = settings(o.steps, context.tiny)
    stages = [stage for stage in context.stages if stage not in ALONE]
    planned: dict[str, list[Job]] = {}  # for the learning rates known so far

    def waiting() -> list[Job]:
        chosen = journal.body["chosen"] if journal else {}
        if (key := str(chosen)) not in planned:
            jobs = [job for stage in stages for job in plan(stage, base, o.seeds, chosen)]
            planned[key] = [job for job in jobs if job.config.arm in o.arms]
        return [
            job for job in planned[key]
            if not (journal.done(job) if job.stage in RECORDED else (folder / f"{job.name}.npz").exists())
        ]  # fmt: skip

    def done(job: Job, found: Any, error: BaseException | None) -> None:
        if error is not None:
            context.tell(job.name, error)
        elif found is not None:
            if job.stage in RECORDED:
                journal.add(job, found)
            print(f"{job.name:34} {_told(job, found)}", flush=True)

    cards = o.cards or _cards(context.device)
    # each process would start a compiler thread for every core
    threads = max(1, min(8, (os.cpu_count() or 1) // (cards * o.share)))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
    opened = partial(start, device=context.device)
    slots = [Slot(card, place, opened) for place in range(o.share) for card in range(cards)]
    compiled = context.device == "cuda" and not o.no_compile
    how = How(context.device, compiled, not o.no_graph, folder, context.command, context.deadline)
    spread(waiting, partial(work, how=how), done, slots, context.deadline)
    if left := waiting():
        print(f"{len(left)} jobs are left: the same command goes on with them", flush=True)


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


ALONE = ("memory", "speed")
ROW = {"tokens": int, "ms": {"p20": float, "p50": float, "p80": float}, "rival": str, "pass": str}
ABOUT = {
    "times": "a training step of each arm, alone on the card",
    "tune": "four learning rates for each arm, one seed, chosen on the validation text",
    "arms": "every arm at its rate, --seeds seeds, same batches, judged once on the test text",
    "rules": "the same with soft thresholding instead of magnitude, and without dense warm-up",
    "warmup": "float16 activations, with and without dense warm-up, at two learning rates",
    "checkpoints": "two 3m models for the notebooks",
}
STUDY = Study(
    "elas",
    "What ELAS's mask costs in loss and saves in bytes and time, arm by arm.",
    {
        "memory": Stage(memory, "bytes of a feed-forward layer at the 1B shape, alone on the card",
                        "memory.json", shape={"ffn": [{"form": str, "batch": int, "saved_bytes": int}],
                                              "model": [{"form": str, "peak_bytes": int | None}]},
                        inputs=lambda c: {"code": digest(Path(ffn.__file__))}),
        "speed": Stage(speed, "its milliseconds", "speed.json", shape={"ffn": [ROW]},
                       inputs=lambda c: {"code": digest(Path(ffn.__file__))}),
        **{name: Stage(train, ABOUT[name]) for name in (*RECORDED, *TRACED)},
    },
    {
        "arms": Option(tuple(ARMS), "to train", choices=tuple(ARMS)),
        "seeds": Option(8, "of the arms", tiny=2),
        "steps": Option(700, "of each arm", tiny=4),
        "cards": Option(None, "GPUs to use (default: all; processes, on a CPU: 1)", kind=int),
        "share": Option(1, "processes on each card"),
        "no_compile": Option(False, "train without torch.compile"),
        "no_graph": Option(False, "train without CUDA graphs"),
    },
    default=RECORDED,
    prepare=prepare,
)  # fmt: skip
