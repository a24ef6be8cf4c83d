"""Claim by claim: what ELAS's paper says and what the recorded study measured, computed from the records.

claims()           rows of {claim, paper, measured, conditions}
gap(arm, against)  test nats of an arm minus another's, paired by seed, with its interval
told(gap)          the same in words
perplexities()     per arm and seed
"""

import math

import numpy as np

from labkit.studies.elas import published
from labkit.studies.elas.recorded import judged, note, results, runs
from labkit.studies.stats import Estimate, paired_t, t_interval
from labkit.traces import TrainTrace

# Nats per token that would matter, 2 % of perplexity: an interval within it is called no difference.
MARGIN = 0.02


def claims() -> list[dict[str, str]]:
    """The table of the study: each row {claim, paper, measured, conditions}, with seeds and intervals."""
    return [*_loss(), *_large(), *_memory(), *_speed(), _step(), *_warmup(), *_rule()]


def nats(arm: str) -> dict[int, float]:
    """{seed: nats per token on the test text} of an arm's recorded runs that did not break."""
    found = {run.meta["seed"]: run.meta["test_nats"] for run in judged(arm)}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def gap(arm: str, against: str) -> Estimate:
    """Test nats per token of ``arm`` minus those of the same seed of ``against``."""
    return paired_t(nats(arm), nats(against))


def told(difference: Estimate) -> str:
    """A difference in nats per token and what its interval allows to say; more nats are worse."""
    return f"{difference.text('+.3f', ' nats')}: {difference.verdict('worse', 'better', MARGIN)}"


def perplexities() -> dict[str, np.ndarray]:
    """{arm: (seeds,) exp of the test nats per token}, of the arms in their order."""
    arms = dict.fromkeys(run.meta["arm"] for run in judged() if run.meta["stage"] == "arms")
    return {arm: np.exp(list(nats(arm).values())) for arm in arms}


def _conditions(run: TrainTrace, *more: str) -> str:
    config, card = run.meta["config"], run.meta["provenance"]["device"]
    steps = run.meta.get("steps", run.meta.get("steps_done"))
    rows = config["batch_size"] * config["seq_len"]
    parts = [
        card, f"{run.meta['parameters'] / 1e6:.1f}M parameters", f"{steps} steps of {rows:,} tokens", *more,
        f"text {config['source']}", note(run.meta),
    ]  # fmt: skip
    return ", ".join(part for part in parts if part)


def _loss() -> list[dict[str, str]]:
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
        percent = 100 * math.expm1(difference.estimate)
        rows.append({
            "claim": f"perplexity of ELAS against {name}", "paper": paper,
            "measured": f"{percent:+.1f} %; {told(difference)}",
            "conditions": _conditions(judged("elas_ste")[0], tuned),
        })  # fmt: skip
    return rows


def _large() -> list[dict[str, str]]:
    large = {run.meta["arm"]: run for run in runs("large-")}
    elas = large["elas_ste"]
    last = int(elas.step[-1])
    at = {arm: float(run.series["eval_nats"][run.step == last][0]) for arm, run in large.items()
          if last in run.step}  # fmt: skip
    gate, mask = (at["elas_ste"] - at[arm] for arm in ("lowrank_swiglu", "lowrank_relu2"))
    ours, theirs = (published.PERPLEXITY[name][0][0] for name in ("ELAS", "LORO"))
    return [{
        "claim": "the same in the paper's 60M shape (h = 512, r = 128)",
        "paper": f"perplexity {ours} against {theirs}",
        "measured": f"{mask:+.3f} nats for the mask, {gate:+.3f} for the gate, at step {last}; no verdict",
        "conditions": _conditions(elas, "1 seed", f"vocabulary {elas.meta['config']['vocab_size']}"),
    }]  # fmt: skip


def _memory() -> list[dict[str, str]]:
    from labkit.studies.elas.ffn import RELU2, shape

    record = results("memory")
    card = record["provenance"]["device"]
    saved = {(r["form"], r["batch"]): r["saved_bytes"] for r in record["ffn"]}
    batch = max(b for _, b in saved)
    tokens = next(r["tokens"] for r in record["ffn"] if r["batch"] == batch)
    plain = saved["LORO ReLU²", batch]
    forms = {
        "packed straight-through": "ELAS packed, straight-through",
        "packed masked": "ELAS packed, masked gradient",
        "recomputed without a mask": "LORO ReLU², recomputed",
    }
    wide = 2 * RELU2["intermediate_size"] * tokens
    one = (plain - saved[forms["packed straight-through"], batch]) / wide
    whole = "; ".join(f"{saved[form, batch] / plain - 1:+.1%} {name}" for name, form in forms.items())
    peak = {(r["form"], r["batch"]): r["peak_bytes"] for r in record["model"]}
    largest = max(b for (f, b), value in peak.items() if f == "LORO ReLU²" and value)
    base = peak["LORO ReLU²", largest]
    step = "; ".join(f"{peak[form, largest] / base - 1:+.1%} {name}" for name, form in forms.items())
    beyond = max(b for _, b in peak)
    fits = [name for name, form in forms.items() if peak[form, beyond]]
    over, layers = "", shape(RELU2, tiny=False).num_hidden_layers
    if peak["LORO ReLU²", beyond] is None:
        over = f" At batch {beyond} it does not fit; these do: {' and '.join(fits)}."
    return [
        {
            "claim": "FFN activation memory",
            "paper": f"-{published.FFN_MEMORY_CUT:.0%}",
            "measured": f"{-one:+.2%} of the tensor that is packed; of all that the FFN keeps: {whole}",
            "conditions": f"{card}, FFN of the 1B shape, batch 1 to {batch} of 256 tokens, counted bytes",
        },
        {
            "claim": "peak memory of a training step",
            "paper": "not printed",
            "measured": f"batch {largest}: {base / 2**30:.1f} GiB without a mask; {step}.{over}",
            "conditions": f"{card}, whole 1B model ({layers} layers), bfloat16, Loro's states included, "
            "one run",
        },
    ]


def _speed() -> list[dict[str, str]]:
    record = results("speed")
    tokens = min(row["tokens"] for row in record["ffn"])  # the larger batch has no compiled rivals
    rows = [row for row in record["ffn"] if row["tokens"] == tokens]
    ms = {(row["rival"], row["pass"]): row["ms"] for row in rows}
    found = []
    for claim, paper, rival in (
        ("FFN speed against full rank", "up to 2.75x at 1B (inference)", "full-rank SwiGLU, compiled"),
        ("FFN speed against low-rank ReLU²", "not printed", "LORO ReLU², compiled"),
    ):
        said = []
        for gradient in ("straight-through", "masked gradient"):
            for kind in ("forward", "forward + backward"):
                us, them = ms[f"ELAS packed, {gradient}", kind], ms[rival, kind]
                low, high = them["p20"] / us["p80"], them["p80"] / us["p20"]
                said.append(f"{gradient} {kind} {them['p50'] / us['p50']:.2f}x ({low:.2f} to {high:.2f})")
        found.append({
            "claim": claim, "paper": paper, "measured": ", ".join(said),
            "conditions": f"{record['provenance']['device']}, 1B shape, {tokens:,} tokens, rival by "
            "torch.compile in its default mode, medians of interleaved runs (p20 to p80)",
        })  # fmt: skip
    return found


def _step() -> dict[str, str]:
    times = results("study")["times"]
    named = {
        "elas_ste": "ELAS straight-through", "elas_masked": "masked", "lowrank_relu2": "LORO ReLU²",
        "equal_flops": "equal FLOPs", "lowrank_swiglu": "LORO SwiGLU", "dense_swiglu": "full-rank SwiGLU",
    }  # fmt: skip
    shown = [f"{name} {times[arm]['ms']['p50']:.2f} ms" for arm, name in named.items() if arm in times]
    return {
        "claim": "time of a training step, end to end", "paper": "not printed",
        "measured": ", ".join(shown),
        "conditions": _conditions(judged("elas_ste")[0], "alone on the card, mask as a dense tensor"),
    }  # fmt: skip


def _warmup() -> list[dict[str, str]]:
    without, short = judged("elas_no_warmup"), runs("warmup-")
    theirs = published.WARMUP["130M"]
    broken = sum(not math.isfinite(run.meta["test_nats"]) for run in [*without, *short])
    halves = [run for run in [*short, *runs("large-")] if run.meta["options"].get("half")]
    overflows = sum(run.series["overflows"][-1].sum() for run in halves)
    peak = max(np.nanmax(run.series["peak"]) for run in halves)
    return [
        {
            "claim": "dense warm-up is needed",
            "paper": f"60M without it: NaN; 130M: {theirs[0]:.2f} instead of {theirs[1000]:.2f}",
            "measured": f"no warm-up minus warm-up {told(gap('elas_no_warmup', 'elas_ste'))}; "
            f"{broken} of {len(without) + len(short)} runs gave NaN",
            "conditions": _conditions(without[0]),
        },
        {
            "claim": "its NaN comes from float16 (our hypothesis)",
            "paper": "not discussed",
            "measured": f"{overflows:.0f} overflows; the largest activation was {peak:,.0f} of 65,504",
            "conditions": f"{_conditions(halves[0], '1 seed')}; {len(halves)} runs of 200 to 400 steps "
            "without warm-up, float16 activations, learning rate 0.01 or 0.03",
        },
    ]


def _rule() -> list[dict[str, str]]:
    trained = {name: gap(arm, "elas_ste") for name, arm in
               {"soft": "elas_soft", "soft, scaled": "elas_soft_scaled"}.items()}  # fmt: skip
    plain = judged("lowrank_relu2")
    after = {
        rule: t_interval([r.meta["posthoc_nats"][rule] - r.meta["test_nats"] for r in plain])
        for rule in ("magnitude", "soft", "soft scaled")
    }
    return [
        {
            "claim": "magnitude beats soft thresholding in training",
            "paper": "yes; soft gives NaN at 350M and 1B",
            "measured": "; ".join(f"{name} minus magnitude {told(one)}" for name, one in trained.items()),
            "conditions": _conditions(judged("elas_soft")[0]),
        },
        {
            "claim": "the same, laid on a model trained without a mask",
            "paper": "not printed",
            "measured": "cost: " + "; ".join(f"{k} {v.text('+.4f', ' nats')}" for k, v in after.items()),
            "conditions": _conditions(plain[0]),
        },
    ]
