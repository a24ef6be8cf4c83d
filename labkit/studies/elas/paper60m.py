"""The paper's 60M run at its batch, sizes and schedule, on one GPU, for as many steps as there is time.

    python -m labkit.studies elas-60m --stages corpus --text TEXT             where there is a network
    python -m labkit.studies elas-60m --stages throughput arms --text TEXT --state STATE --steps 4000

Arms are trained one after another on the same batches. One that --seconds cuts short is kept in --state,
and the same command goes on with it. ``--device cpu --tiny`` rehearses it.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from labkit.elas.config import LORO_REVISION, PretrainConfig
from labkit.provenance import device_name
from labkit.studies.elas import plan
from labkit.studies.elas.corpus import read_parts, write_parts
from labkit.studies.elas.longrun import LongRun, flops_per_token
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.traces import TrainTrace

SOURCE = "linux+gcide+sotu"
PUBLISHED_STEPS = 10_000
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12}  # bfloat16, dense, by the datasheet of the SXM card
# arm, as shown: what it changes. 0.01 is LORO's rate, and was the best of four at 12M; 0.001 was for the
# dense arms there, whose paper does not say; a larger batch may want more
LOW_RANK, DENSE = {"lr": 0.01}, {"lr": 0.001}
ARMS: dict[str, dict[str, Any]] = {
    "dense_swiglu": {"arm": "dense_swiglu"} | DENSE,
    "lowrank_swiglu": {"arm": "lowrank_swiglu"} | LOW_RANK,
    "lowrank_relu2": {"arm": "lowrank_relu2"} | LOW_RANK,
    "elas_ste": {"arm": "elas_ste"} | LOW_RANK,
    "elas_masked": {"arm": "elas_masked"} | LOW_RANK,
    "elas_no_warmup": {"arm": "elas_ste", "dense_steps": 0} | LOW_RANK,
    "dense_swiglu_lr0.002": {"arm": "dense_swiglu", "lr": 0.002},
}
MAIN = tuple(ARMS)[:4]


def settings(shown: str, steps: int, tiny: bool) -> PretrainConfig:
    """The run of an arm: the paper's, its warm-up, K and dense steps in proportion to ``steps``."""
    if tiny:
        return replace(plan.settings(steps, True), **ARMS[shown])
    part = steps / PUBLISHED_STEPS
    base = PretrainConfig(
        size="60m", source=SOURCE, vocab_size=32_000, max_bytes=None, seq_len=256, batch_size=512,
        steps=steps, lr_warmup=round(1000 * part), dense_steps=round(1000 * part),
        exact_every=max(1, round(500 * part)), log_every=10, eval_every=max(10, steps // 20),
        eval_tokens=131_072,
    )  # fmt: skip
    return replace(base, **ARMS[shown])


def differences(config: PretrainConfig) -> list[str]:
    """What a run of ``config`` has otherwise than the paper's."""
    tokens = config.steps * config.batch_size * config.seq_len
    return [
        f"text: {config.source} (code and English) in a BPE of {config.vocab_size:,}, not C4 in T5's",
        f"{config.steps:,} of {PUBLISHED_STEPS:,} steps, {tokens / 1e9:.3f} of 1.31 billion tokens;"
        " warm-up, dense steps and K in proportion, the cosine over this horizon",
        "bfloat16 passes over float32 weights and moments, where LORO's code is all bfloat16",
        "rows cut from one stream without padding, where LORO's hold one document each",
        "one seed; learning rates of low-rank arms LORO's, of dense arms the best of four at 12M",
    ]


def corpus(context: Context) -> dict:
    """Write the text's parts where --text says."""
    source, vocabulary = ("sympy", 300) if context.tiny else (SOURCE, 32_000)
    return write_parts(source, _text(context), context.options.parts, vocabulary)


def throughput(context: Context) -> dict:
    """A training step of each arm, timed alone."""
    rows = {}
    for shown in context.options.arms:
        run = _run(context, shown)
        found = run.throughput(2 if context.tiny else 20)
        rows[shown] = found | _rates(run, found["tokens_per_second"])
        print(f"{shown:22} {_told(rows[shown])}", flush=True)
        run.release()
        torch.compiler.reset()
    return {"device": device_name(), "chunk": context.options.chunk, "arms": rows}


def in_time(found: dict[str, Any]) -> str:
    """How many steps all arms can take in so many minutes."""
    seconds = sum(row["ms"]["p50"] / 1000 for row in found["arms"].values())
    said = [f"{int(60 * minutes / seconds) // 20 * 20} in {minutes}" for minutes in (10, 25, 60)]
    return f"steps of each arm that fit into minutes of all: {', '.join(said)}"


def arms(context: Context) -> None:
    """Train each arm, or go on with it, and write its record; one that fails leaves the others alone."""
    for shown in context.options.arms:
        if context.late:
            print(f"{shown}: no time left", flush=True)
            continue
        try:
            _train(context, shown)
        except Exception as error:
            context.tell(shown, error)


def _train(context: Context, shown: str) -> None:
    run = _run(context, shown)
    if run.rows.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    body = record(shown, run, run.train(deadline=context.deadline))
    context.write(body, f"{shown}.json")
    print(f"{shown:22} step {body['steps_done']} of {run.config.steps}: {_told(body)}", flush=True)
    run.release()
    torch.compiler.reset()


def record(shown: str, run: LongRun, trace: TrainTrace) -> dict[str, Any]:
    """What is kept of a run; numbers that are not finite as null."""
    meta, config = trace.meta, run.config
    per_step = config.batch_size * config.seq_len
    steps, seconds = trace.curve("train_seconds")
    speed = float(steps[-1] * per_step / seconds[-1]) if len(steps) > 1 else None
    done = meta["steps_done"]
    curves = {
        name: {"step": at.tolist(), "values": _clean(values.tolist())}
        for name in sorted(trace.series) for at, values in [trace.curve(name)]
    }  # fmt: skip
    keys = (
        "parameters",
        "unigram_nats",
        "validation_nats",
        "test_nats",
        "test_bits_per_byte",
        "test_tokens",
    )
    body = {"arm": shown, "config": asdict(config), "text": run.text.name, "chunk": run.chunk}
    body |= {"train_tokens": len(run.text.train), "epochs": done * per_step / len(run.text.train)}
    body |= {"steps_done": done, "tokens_done": done * per_step, "loro_revision": LORO_REVISION}
    body |= {key: _clean(meta[key]) for key in keys}
    body |= {"findings": meta["findings"], "precision": meta["precision"], "differs": differences(config)}
    body |= {"tokens_per_second": speed, **_rates(run, speed)}
    if run.rows.is_cuda:
        body["peak_bytes"] = torch.cuda.max_memory_allocated()
    return body | {"curves": curves}


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(one) for one in value]
    return (round(value, 6) if value - value == 0 else None) if isinstance(value, float) else value


def _rates(run: LongRun, tokens_per_second: float | None) -> dict[str, Any]:
    """Operations a token needs, and the share of the card's peak that the steps reach."""
    parameters = sum(p.numel() for p in run.model.parameters())
    flops = flops_per_token(run.model.config, parameters, run.config.seq_len)
    name = device_name()
    peak = next((value for card, value in PEAK_FLOPS.items() if card in name), None)
    mfu = flops * tokens_per_second / peak if peak and tokens_per_second else None
    return {"parameters": parameters, "flops_per_token": flops, "mfu": mfu}


def _told(row: dict[str, Any]) -> str:
    said = [f"{row['tokens_per_second'] or 0:,.0f} tokens/s", f"MFU {row['mfu'] or 0:.3f}"]
    said += [f"{row['ms']['p50']:.1f} ms a step"] if "ms" in row else []
    said += [f"{row['peak_bytes'] / 2**30:.1f} GiB"] if row.get("peak_bytes") else []
    said += [f"{row['test_nats']:.4f} test nats"] if row.get("test_nats") else []
    return ", ".join([*said, *(str(found) for found in row.get("findings", []))])


def _text(context: Context) -> Path:
    return Path(context.options.text or context.out / "text")


def _run(context: Context, shown: str) -> LongRun:
    o, cuda = context.options, context.device == "cuda"
    state = Path(o.state or context.out / "state")
    state.mkdir(parents=True, exist_ok=True)
    if context.prepared is None:  # the first arm reads the text, the others share it
        context.prepared = read_parts(_text(context), state)
    return LongRun(
        settings(shown, o.steps, context.tiny), context.prepared, context.device,
        state / f"{shown}-{o.steps}.pt", o.chunk, compiled=cuda and not o.no_compile, graph=not o.no_graph,
        dtype=torch.bfloat16 if cuda else torch.float32,
    )  # fmt: skip


STUDY = Study(
    "elas-60m",
    "The paper's 60M configuration at its own batch: full rank, LORO and ELAS.",
    {
        "corpus": Stage(corpus, "download the text and write its parts", "corpus.json",
                        inputs=lambda c: c.pick("parts") | {"source": SOURCE}),
        "throughput": Stage(throughput, "a training step of each arm, timed alone", "throughput.json",
                            show=in_time),
        "arms": Stage(arms, "train the arms, one after another"),
    },
    {
        "arms": Option(MAIN, "to time or train", choices=tuple(ARMS)),
        "steps": Option(PUBLISHED_STEPS, "of each arm", tiny=6),
        "text": Option(None, "folder of the text's parts (default: OUT/text)", kind=str),
        "state": Option(None, "folder of checkpoints and encoded text (default: OUT/state)", kind=str),
        "parts": Option(5, "that the training text is cut into"),
        "chunk": Option(16_384, "tokens whose logits exist at a time", tiny=50),
        "no_compile": Option(False, "train without torch.compile"),
        "no_graph": Option(False, "train without CUDA graphs"),
    },
)  # fmt: skip
