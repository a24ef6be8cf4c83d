"""What ELAS's records say beside what its paper prints, in rows and in words.

loss_headline, memory_headline   rows for the table of findings
claims            claim by claim, with seeds, intervals and conditions
straight_through  speed of the packed feed-forward layer with the default gradient
"""

import math
from functools import partial

import numpy as np

from labkit.studies import published
from labkit.studies.claims import Claim, where
from labkit.studies.elas.claims60m import claims_60m, claims_generate, claims_parallel
from labkit.studies.elas.gaps import describe_gap, describe_tried, gap
from labkit.studies.elas.records import note, results, runs, traces
from labkit.studies.stats import t_interval
from labkit.traces import TrainTrace

NOTEBOOK = "02_elas_pretraining"
row = partial(Claim, "ELAS")


def loss_headline() -> list[Claim]:
    """What mask, rival and gate cost in loss; what else was tried. FileNotFoundError without a study."""
    about, config = runs("elas_ste")[0].meta, runs("elas_ste")[0].meta["config"]
    horizon = f"{config['steps']} steps of {config['batch_size'] * config['seq_len']:,} tokens"
    mask, cheap, gate = (
        describe_gap(gap(arm, against))
        for arm, against in (("elas_ste", "lowrank_relu2"), ("elas_ste", "equal_flops"),
                             ("lowrank_relu2", "lowrank_swiglu"))
    )  # fmt: skip
    measured = (
        f"ELAS minus the same model without its mask {mask}; minus a lower rank of equal FLOPs, no mask, "
        f"{cheap}; without the gate minus with it {gate} (per token of test text, "
        f"{about['parameters'] / 1e6:.0f}M parameters, {horizon})"
    )
    asked = {
        "What does the mask cost in loss?": measured,
        "Do the dense warm-up, the exact gradient or a softer rule change the loss?": describe_tried(),
    }
    return [row(ask, told, where(about, note(about)), notebook=NOTEBOOK) for ask, told in asked.items()]


def memory_headline() -> list[Claim]:
    """What a packed layer keeps for the backward pass. FileNotFoundError without its record."""
    record = results("memory")
    saved = _by_batch(record["ffn"], "saved_bytes")
    packed, plain = "ELAS packed, masked gradient", "LORO ReLU²"
    batch = max(batch for form, batch in saved if form == packed and (plain, batch) in saved)
    measured = (
        f"{saved[packed, batch] / saved[plain, batch]:.0%} of the same low-rank ReLU² layer's, masked "
        f"gradient, at the 1B shape and batch {batch}"
    )
    ask = "How many bytes does a packed feed-forward layer keep?"
    return [row(ask, measured, where(record), notebook=NOTEBOOK)]


def claims() -> list[Claim]:
    """The table of the study, claim by claim."""
    return [
        *_loss(),
        *claims_60m(),
        *claims_parallel(),
        *_memory(),
        *_speed(),
        *claims_generate(),
        _step(),
        *_warmup(),
        *_rule(),
    ]


def straight_through() -> dict[str, float]:
    """{pass: torch.compile's time over ELAS's} of the packed low-rank layer with the default gradient."""
    ms = _compiled_ms()
    own, rival = "ELAS packed, straight-through", "LORO ReLU², compiled"
    return {
        kind: ms[rival, kind]["p50"] / ms[own, kind]["p50"] for kind in ("forward", "forward + backward")
    }


def _compiled_ms() -> dict[tuple[str, str], dict[str, float]]:
    """{(rival, pass): p20, p50, p80} at the smaller batch: the larger one has no compiled rivals."""
    rows = results("speed")["ffn"]
    tokens = min(row["tokens"] for row in rows)
    return {(row["rival"], row["pass"]): row["ms"] for row in rows if row["tokens"] == tokens}


def _conditions(run: TrainTrace, *more: str) -> str:
    config, card = run.meta["config"], run.meta["provenance"]["device"]
    steps = run.meta.get("steps", run.meta.get("steps_done"))
    rows = config["batch_size"] * config["seq_len"]
    parts = [
        card, f"{run.meta['parameters'] / 1e6:.1f}M parameters", f"{steps} steps of {rows:,} tokens", *more,
        f"text {config['source']}", note(run.meta),
    ]  # fmt: skip
    return ", ".join(part for part in parts if part)


def _loss() -> list[Claim]:
    ours, theirs = (published.PERPLEXITY[name][0] for name in ("ELAS", "LORO"))
    printed = ", ".join(
        f"{100 * (a / b - 1):+.1f} % at {s}" for s, a, b in zip(published.SIZES, ours, theirs, strict=True)
    )
    tried = results("study")["tried"].get("elas_ste", {})
    tuned = f"each arm's learning rate the best of {len(tried)} on a validation text" if tried else ""
    rows = []
    for against, name, paper in (
        ("lowrank_relu2", "LORO with ReLU², that is for the mask", "not printed"),
        ("equal_flops", "a lower rank of equal FLOPs and no mask", "not printed"),
        ("lowrank_swiglu", "LORO with its gate", printed),
        ("elas_masked", "ELAS with the masked gradient", "not printed"),
    ):
        difference = gap("elas_ste", against)
        measured = f"{100 * math.expm1(difference.estimate):+.1f} %; {describe_gap(difference)}"
        conditions = _conditions(runs("elas_ste")[0], tuned)
        rows.append(row(f"perplexity of ELAS against {name}", measured, conditions, paper))
    return rows


def _memory() -> list[Claim]:
    from labkit.studies.elas.ffn import RELU2, shape

    record, plain = results("memory"), "LORO ReLU²"
    card = record["provenance"]["device"]
    forms = {
        "packed straight-through": "ELAS packed, straight-through",
        "packed masked": "ELAS packed, masked gradient",
        "recomputed without a mask": "LORO ReLU², recomputed",
    }

    def changes(values: dict[tuple[str, int], int], batch: int) -> str:
        base = values[plain, batch]
        return "; ".join(f"{values[form, batch] / base - 1:+.1%} {name}" for name, form in forms.items())

    saved, peak = _by_batch(record["ffn"], "saved_bytes"), _by_batch(record["model"], "peak_bytes")
    batch, beyond = (max(b for _, b in values) for values in (saved, peak))
    tokens = next(r["tokens"] for r in record["ffn"] if r["batch"] == batch)
    one = saved[plain, batch] - saved[forms["packed straight-through"], batch]
    share = one / (2 * RELU2["intermediate_size"] * tokens)  # of one wide tensor, bfloat16
    fits = max(b for (form, b), value in peak.items() if form == plain and value)
    over, layers = "", shape(RELU2, tiny=False).num_hidden_layers
    if peak[plain, beyond] is None:
        others = " and ".join(name for name, form in forms.items() if peak[form, beyond])
        over = f" At batch {beyond} it does not fit; these do: {others}."
    base = f"batch {fits}: {peak[plain, fits] / 2**30:.1f} GiB without a mask"
    return [
        row(
            "FFN activation memory",
            f"{-share:+.0%} of the wide tensor behind ReLU², which the straight-through gradient makes "
            "again from the one before it; of all that the FFN keeps: "
            f"{changes(saved, batch)}",
            f"{card}, FFN of the 1B shape, batch 1 to {batch} of 256 tokens, counted bytes",
            f"-{published.FFN_MEMORY_CUT:.0%}",
        ),
        row(
            "peak memory of a training step",
            f"{base}; {changes(peak, fits)}.{over}",
            f"{card}, whole 1B model ({layers} layers), bfloat16, Loro's states included, one run",
        ),
    ]


def _by_batch(rows: list[dict], name: str) -> dict[tuple[str, int], int]:
    return {(r["form"], r["batch"]): r[name] for r in rows}


def _speed() -> list[Claim]:
    record, ms, rows = results("speed"), _compiled_ms(), []
    tokens = min(r["tokens"] for r in record["ffn"])
    conditions = (
        f"{record['provenance']['device']}, 1B shape, {tokens:,} tokens, rival by torch.compile in its "
        "default mode, medians of interleaved runs (p20 to p80)"
    )
    for claim, paper, rival in (
        ("FFN speed against full rank", "up to 2.75x at 1B (inference)", "full-rank SwiGLU, compiled"),
        ("FFN speed against low-rank ReLU²", "not printed", "LORO ReLU², compiled"),
    ):
        told = []
        for gradient in ("straight-through", "masked gradient"):
            for kind in ("forward", "forward + backward"):
                us, them = ms[f"ELAS packed, {gradient}", kind], ms[rival, kind]
                low, high = them["p20"] / us["p80"], them["p80"] / us["p20"]
                told.append(f"{gradient} {kind} {them['p50'] / us['p50']:.2f}x ({low:.2f} to {high:.2f})")
        rows.append(row(claim, ", ".join(told), conditions, paper))
    return rows


def _step() -> Claim:
    times = results("study")["times"]
    named = {
        "elas_ste": "ELAS straight-through", "elas_masked": "masked", "lowrank_relu2": "LORO ReLU²",
        "equal_flops": "equal FLOPs", "lowrank_swiglu": "LORO SwiGLU", "dense_swiglu": "full-rank SwiGLU",
    }  # fmt: skip
    shown = [f"{name} {times[arm]['ms']['p50']:.2f} ms" for arm, name in named.items() if arm in times]
    conditions = _conditions(runs("elas_ste")[0], "alone on the card, mask as a dense tensor")
    return row("time of a training step, end to end", ", ".join(shown), conditions)


def _warmup() -> list[Claim]:
    without, short = runs("elas_no_warmup"), traces("warmup-")
    theirs = published.WARMUP["130M"]
    broken = sum(not math.isfinite(run.meta["test_nats"]) for run in [*without, *short])
    halves = [run for run in short if run.meta["options"].get("half")]
    overflows = sum(run.series["overflows"][-1].sum() for run in halves)
    peak = max(np.nanmax(run.series["peak"]) for run in halves)
    return [
        row(
            "dense warm-up is needed",
            f"no warm-up minus warm-up {describe_gap(gap('elas_no_warmup', 'elas_ste'))}; "
            f"{broken} of {len(without) + len(short)} runs gave NaN",
            _conditions(without[0]),
            f"60M without it: NaN; 130M: {theirs[0]:.2f} instead of {theirs[1000]:.2f}",
        ),
        row(
            "its NaN comes from float16 (our hypothesis)",
            f"{overflows:.0f} overflows; the largest activation was {peak:,.0f} of 65,504",
            f"{_conditions(halves[0], '1 seed')}; {len(halves)} runs of 200 to 400 steps without warm-up, "
            "float16 activations, learning rate 0.01 or 0.03",
            "not discussed",
        ),
    ]


def _rule() -> list[Claim]:
    trained = {name: gap(arm, "elas_ste") for name, arm in
               {"soft": "elas_soft", "soft, scaled": "elas_soft_scaled"}.items()}  # fmt: skip
    plain = runs("lowrank_relu2")
    after = {
        rule: t_interval([r.meta["posthoc_nats"][rule] - r.meta["test_nats"] for r in plain])
        for rule in ("magnitude", "soft", "soft scaled")
    }
    return [
        row(
            "magnitude beats soft thresholding in training",
            "; ".join(f"{name} minus magnitude {describe_gap(one)}" for name, one in trained.items()),
            _conditions(runs("elas_soft")[0]),
            "yes; soft gives NaN at 350M and 1B",
        ),
        row(
            "the same, laid on a model trained without a mask",
            "cost: " + "; ".join(f"{k} {v.text('+.4f', ' nats')}" for k, v in after.items()),
            _conditions(plain[0]),
        ),
    ]
