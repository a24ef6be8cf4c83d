"""The ELAS study on one GPU: memory and speed at the 1B shape, arms over seeds, the 60M configuration.

    python -m labkit.elas.study --out runs/elas_study --seconds 600

Stages, most important first (``--stages`` picks some):

memory, speed   study_ffn, alone on the card; "arms" and "large" also time a step of each run when alone
arms            seven arms of the 12m model, ``--seeds`` each, same batches and steps; 2:4 after the fact
rules           the same with soft thresholding instead of magnitude, and without dense warm-up
large           the paper's 60M configuration, full rank, LORO and ELAS
warmup          float16 activations, with and without dense warm-up, at two learning rates
checkpoints     two 3m models for the notebooks

The runs of a stage share the card, a process for each arm; "arms+rules" makes one stage of two. Every
result is written as soon as it is there: JSON for memory and speed, one TrainTrace a run.
``--device cpu --tiny`` rehearses all of it in minutes.
"""

import argparse
import itertools
import json
import multiprocessing as mp
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from labkit.checks import choice, integer, number
from labkit.elas.pretrain import ARMS, PretrainConfig
from labkit.paths import write_atomic
from labkit.provenance import provenance

STAGES = ("memory", "speed", "arms", "rules", "large", "warmup", "checkpoints")
TEXT = "gcide+sotu"  # both pinned by checksum: the same text on every machine
DENSE_LR = 0.003  # the best tried at "tiny"; LORO's own 0.01 for the others


def plan(stage: str, seeds: int, steps: int, large_steps: int, tiny: bool) -> list[list[dict]]:
    """Jobs of a stage, one list for each process; a job is {name, config, and options of ``work``}."""
    base = PretrainConfig(
        size="12m", source=TEXT, vocab_size=8192, max_bytes=None, seq_len=512, batch_size=32, steps=steps,
        lr_warmup=100, dense_steps=100, exact_every=100, log_every=10, eval_every=100, eval_tokens=65536,
    )  # fmt: skip
    # the lab's own vocabulary, so that the text is encoded once: the paper's is 32000
    large = {"size": "60m", "seq_len": 256, "batch_size": 64, "steps": large_steps}
    large |= {"exact_every": 200}
    small = {"size": "3m", "source": "sympy", "vocab_size": 2048, "arm": "lowrank_relu2", "steps": 1500}
    if tiny:
        shape = {"num_hidden_layers": 1, "hidden_size": 48, "num_attention_heads": 2}
        shape |= {"intermediate_size": 96}
        base = PretrainConfig(
            max_bytes=100_000, seq_len=64, batch_size=2, steps=4, lr_warmup=2, dense_steps=2, exact_every=3,
            log_every=1, eval_every=2, eval_tokens=128, vocab_size=300, model=shape,
        )  # fmt: skip
        large = small = {}

    def job(name: str, shown: str, options: dict | None = None, **fields) -> dict:
        lr = {"lr": DENSE_LR} if fields["arm"].startswith("dense") else {}
        config = asdict(base) | lr | fields
        return {"name": name, "shown": shown, "config": config, "options": options or {}}

    def over_seeds(shown: str, **fields) -> list[dict]:
        return [job(f"{stage}-{shown}-{seed}", shown, seed=seed, **fields) for seed in range(seeds)]

    if stage == "arms":
        return [over_seeds(arm, arm=arm) for arm in ARMS]
    if stage == "rules":
        rules = {"elas_soft": "soft", "elas_soft_scaled": "soft scaled"}
        jobs = [over_seeds(name, arm="elas_ste", options={"rule": rule}) for name, rule in rules.items()]
        return [*jobs, over_seeds("elas_no_warmup", arm="elas_ste", dense_steps=0)]
    half = {"rule": "magnitude", "half": True}
    if stage == "large":
        arms = ("dense_swiglu", "lowrank_swiglu", "lowrank_relu2", "elas_ste")
        jobs = [[job(f"large-{arm}-0", arm, arm=arm, **large)] for arm in arms]
        large |= {"dense_steps": 0, "arm": "elas_ste"}
        return [*jobs, [job("large-elas_no_warmup_float16-0", "elas_no_warmup", half, **large)]]
    if stage == "warmup":
        jobs = []
        for as_half, lr in itertools.product((False, True), (0.01, 0.03)):
            few = {"arm": "elas_ste", "lr": lr, "steps": min(400, base.steps)}
            options, kind = half | {"half": as_half}, "float16" if as_half else "bfloat16"
            jobs.append(
                [
                    job(f"warmup-{dense}-{kind}-lr{lr:g}", "elas_ste", options, dense_steps=dense, **few)
                    for dense in (0, base.dense_steps)
                ]
            )
        return jobs
    choice("stage", stage, ("checkpoints",))
    pair = {"lowrank_relu2": "elas-relu2-3m", "elas_ste": "elas-3m"}
    return [[job(name, arm, {"keep": True}, **small | {"arm": arm})] for arm, name in pair.items()]


def measure(stage: str, device: str, tiny: bool, deadline: float) -> dict:
    """The body of memory.json or speed.json."""
    from labkit.elas import study_ffn as ffn

    if stage == "memory":
        batches = [1, 2] if tiny else [1, 2, 4, 8, 16, 32, 64, 128]
        body = {"ffn": ffn.ffn_memory(batches, device, tiny)}
        body["model"] = ffn.model_memory(batches[::2] + batches[-1:], device, tiny, deadline)
        return body | {"exact_step_ms": ffn.exact_step(device, tiny)}
    if tiny:
        return {"ffn": ffn.speed(256, device, tiny, 5, compiled=False)}
    rows = ffn.speed(16384, device, tiny, 20, compiled=True)
    return {"ffn": rows + ffn.speed(65536, device, tiny, 10, compiled=False)}


def run_stage(stage: str, arguments: argparse.Namespace, command: str, deadline: float) -> None:
    """Do one stage; a failure is written to errors.txt and loses nothing else."""
    from labkit.elas import study_runs

    folder = Path(arguments.out)
    if stage in ("memory", "speed"):
        body = measure(stage, arguments.device, arguments.tiny, deadline)
        _write(folder / f"{stage}.json", body | {"provenance": provenance(command=command)})
        return
    sizes = (arguments.seeds, arguments.steps, arguments.large_steps, arguments.tiny)
    workers = [jobs for part in stage.split("+") for jobs in plan(part, *sizes)]
    timed = stage in ("arms", "large")  # together with another stage no step is alone on the card
    compiled = arguments.device == "cuda" and not arguments.no_compile
    how = {"device": arguments.device, "compiled": compiled, "graph": not arguments.no_graph}
    study_runs.share(workers, folder, how, command, deadline, timed)


def study_texts(stages: list[str], arguments: argparse.Namespace) -> list[tuple]:
    """(source, vocab_size, max_bytes) that the training stages read."""
    steps = (arguments.seeds, arguments.steps, arguments.large_steps, arguments.tiny)
    training = [part for stage in stages for part in stage.split("+") if part not in ("memory", "speed")]
    configs = [j["config"] for stage in training for jobs in plan(stage, *steps) for j in jobs]
    return sorted({(c["source"], c["vocab_size"], c["max_bytes"]) for c in configs}, key=str)


def prepare(texts: list[tuple]) -> None:
    """Fill the cache: train each tokenizer and encode each text once, for the processes to read."""
    from labkit.elas.data import load_text

    for source, vocab, limit in texts:
        load_text(source, vocab_size=vocab, max_bytes=limit)


def _write(path: Path, body: dict) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(body, indent=1) + "\n"))


def guard(what: str, folder: Path, call: Callable[[], None]) -> None:
    """Run ``call``; whatever it raises goes to errors.txt and the console."""
    import traceback

    try:
        call()
    except Exception:
        text = f"{what}\n{traceback.format_exc()}\n"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "errors.txt").open("a") as file:
            file.write(text)
        print(text, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m labkit.elas.study", description=__doc__.split("\n")[0])
    top.add_argument("--out", required=True, help="folder for the results")
    top.add_argument("--seconds", type=float, default=3600, help="stop by then (default: 3600)")
    top.add_argument("--stages", default=",".join(STAGES), help=f"default: {','.join(STAGES)}")
    top.add_argument("--seeds", type=int, default=3, help="of the arms (default: 3)")
    top.add_argument("--steps", type=int, default=1000, help="of each arm (default: 1000)")
    top.add_argument("--large-steps", type=int, default=1000, help="of each 60M run (default: 1000)")
    top.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    top.add_argument("--no-compile", action="store_true", help="train without torch.compile")
    top.add_argument("--no-graph", action="store_true", help="train without CUDA graphs")
    top.add_argument("--tiny", action="store_true", help="smallest sizes: a rehearsal")
    return top


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    words = ["OUT" if word == arguments.out else word for word in (sys.argv[1:] if argv is None else argv)]
    command = " ".join(["python -m labkit.elas.study", *words])
    started = time.time()
    try:
        stages = arguments.stages.split(",")
        for part in arguments.stages.replace("+", ",").split(","):
            choice("stages", part, STAGES if part in stages else STAGES[2:])
        for name in ("seeds", "steps", "large_steps"):
            integer(name, getattr(arguments, name), 1)
        deadline = started + number("seconds", arguments.seconds, 1)
    except ValueError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    errors = folder / "errors.txt"
    told_before = errors.stat().st_size if errors.exists() else 0
    texts = study_texts(stages, arguments)
    # tokenizers train on the CPU while memory and speed are measured on the card
    reader = mp.get_context("spawn").Process(target=prepare, args=(texts,))
    reader.start()
    for stage in stages:
        if stage not in ("memory", "speed"):
            reader.join()
        began = time.time()
        if began > deadline:
            print(f"{stage}: no time left")
            continue
        guard(stage, folder, lambda s=stage: run_stage(s, arguments, command, deadline))
        print(f"{stage}: {time.time() - began:.0f} s", flush=True)
    return 1 if errors.exists() and errors.stat().st_size > told_before else 0


if __name__ == "__main__":
    sys.exit(main())
