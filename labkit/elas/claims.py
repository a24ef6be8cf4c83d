"""Claim by claim: what ELAS's paper says and what the recorded study measured, computed from the records.

claims()       rows of {claim, paper, measured, conditions}
paired(a, b)   held-out nats of runs a minus runs b of the same seed
perplexities   per arm and seed
"""

import math
from collections.abc import Sequence

import numpy as np

from labkit.elas import published
from labkit.elas.recorded import results, runs
from labkit.traces import TrainTrace


def paired(a: Sequence[TrainTrace], b: Sequence[TrainTrace]) -> np.ndarray:
    """(seeds,) held-out nats of each run of ``a`` minus those of the run of ``b`` with its seed."""
    of_b = {run.meta["seed"]: run.meta["held_out_nats"] for run in b}
    return np.array([r.meta["held_out_nats"] - of_b[r.meta["seed"]] for r in a if r.meta["seed"] in of_b])


def perplexities(traces: Sequence[TrainTrace]) -> dict[str, np.ndarray]:
    """{arm: (seeds,) exp of the held-out nats per token}."""
    found: dict[str, list[float]] = {}
    for run in traces:
        found.setdefault(run.meta["arm"], []).append(math.exp(run.meta["held_out_nats"]))
    return {arm: np.array(values) for arm, values in found.items()}


def claims() -> list[dict[str, str]]:
    """The table of the study: each row {claim, paper, measured, conditions}, with seeds and spread."""
    return [*_loss(), *_memory(), *_speed(), *_warmup(), *_rule()]


def _arm(name: str) -> list[TrainTrace]:
    stage = "rules" if name in ("elas_no_warmup", "elas_soft", "elas_soft_scaled") else "arms"
    return runs(f"{stage}-{name}-")


def _spread(nats: np.ndarray) -> str:
    return f"{nats.mean():+.3f} nats ({nats.min():+.3f} to {nats.max():+.3f})"


def _conditions(run: TrainTrace, seeds: int) -> str:
    config, card = run.meta["config"], run.meta["provenance"]["device"]
    size, steps = f"{run.meta['parameters'] / 1e6:.1f}M parameters", run.meta["steps_done"]
    return f"{card}, {size}, {steps} steps, {seeds} seed{'s' * (seeds != 1)}, text {config['source']}"


def _loss() -> list[dict[str, str]]:
    elas, gated, plain = _arm("elas_ste"), _arm("lowrank_swiglu"), _arm("lowrank_relu2")
    sizes = published.SIZES
    ours, theirs = (published.PERPLEXITY[name][0] for name in ("ELAS", "LORO"))
    gaps = ", ".join(
        f"{100 * (a / b - 1):+.1f} % at {s}" for s, a, b in zip(sizes, ours, theirs, strict=True)
    )
    rows = []
    for rival, name in ((gated, "LORO with its gate"), (plain, "LORO with ReLU², that is for the mask")):
        gap = paired(elas, rival)
        percent = 100 * (math.exp(gap.mean()) - 1)
        rows.append({
            "claim": f"perplexity of ELAS against {name}",
            "paper": gaps if rival is gated else "not printed",
            "measured": f"{percent:+.1f} %: {_spread(gap)}",
            "conditions": _conditions(elas[0], len(gap)),
        })  # fmt: skip
    large = {run.meta["arm"]: run for run in runs("large-")}
    vocabulary = large["elas_ste"].meta["config"]["vocab_size"]
    last = int(large["elas_ste"].step[-1])
    at = {arm: float(run.series["eval_nats"][run.step == last][0]) for arm, run in large.items()
          if last in run.step}  # fmt: skip
    gaps = [at["elas_ste"] - at[arm] for arm in ("lowrank_swiglu", "lowrank_relu2")]
    rows.append({
        "claim": "the same in the paper's 60M shape (h = 512, r = 128)",
        "paper": f"perplexity {ours[0]} against {theirs[0]}",
        "measured": f"{gaps[0]:+.3f} nats against the gate, {gaps[1]:+.3f} for the mask, at step {last}",
        "conditions": f"{_conditions(large['elas_ste'], 1)}, vocabulary {vocabulary}, no spread known",
    })  # fmt: skip
    return rows


def _memory() -> list[dict[str, str]]:
    from labkit.elas.study_ffn import RELU2, shape

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
    ours, found = "ELAS packed, masked gradient", []
    for claim, paper, rival in (
        ("FFN speed against full rank", "up to 2.75x at 1B (inference)", "full-rank SwiGLU, compiled"),
        ("FFN speed against low-rank ReLU²", "not printed", "LORO ReLU², compiled"),
    ):
        said = []
        for kind in ("forward", "forward + backward"):
            us, them = ms[ours, kind], ms[rival, kind]
            low, high = them["p20"] / us["p80"], them["p80"] / us["p20"]
            said.append(f"{them['p50'] / us['p50']:.2f}x {kind} ({low:.2f} to {high:.2f})")
        found.append({
            "claim": claim, "paper": paper, "measured": ", ".join(said),
            "conditions": f"{record['provenance']['device']}, 1B shape, {tokens} tokens, masked gradient, "
            "rival by torch.compile, medians of interleaved runs (p20 to p80)",
        })  # fmt: skip
    return found


def _warmup() -> list[dict[str, str]]:
    with_it, without = _arm("elas_ste"), _arm("elas_no_warmup")
    gap = paired(without, with_it)
    theirs = published.WARMUP["130M"]
    short = runs("warmup-")
    nan = sum(not np.isfinite(run.meta["held_out_nats"]) for run in [*without, *short])
    halves = [run for run in [*short, *runs("large-")] if run.meta["options"].get("half")]
    overflows = sum(run.series["overflows"][-1].sum() for run in halves)
    peak = max(np.nanmax(run.series["peak"]) for run in halves)
    return [
        {
            "claim": "dense warm-up is needed",
            "paper": f"60M without it: NaN; 130M: {theirs[0]:.2f} instead of {theirs[1000]:.2f}",
            "measured": f"no warm-up {_spread(gap)}; {nan} of {len(without) + len(short)} runs gave NaN",
            "conditions": _conditions(without[0], len(gap)),
        },
        {
            "claim": "its NaN comes from float16 (our hypothesis)",
            "paper": "not discussed",
            "measured": f"{overflows:.0f} overflows; the largest activation was {peak:,.0f} of 65,504",
            "conditions": f"{_conditions(halves[0], 1)}; {len(halves)} runs of 200 to 400 steps without "
            "warm-up, float16 activations, learning rate 0.01 or 0.03",
        },
    ]


def _rule() -> list[dict[str, str]]:
    magnitude = _arm("elas_ste")
    trained = {name: paired(_arm(arm), magnitude) for name, arm in
               {"soft": "elas_soft", "soft, scaled": "elas_soft_scaled"}.items()}  # fmt: skip
    plain = _arm("lowrank_relu2")
    after = {
        rule: np.array([r.meta["posthoc_nats"][rule] - r.meta["held_out_nats"] for r in plain])
        for rule in ("magnitude", "soft", "soft scaled")
    }
    cost = ", ".join(f"{rule} {gap.mean():+.4f}" for rule, gap in after.items())
    return [
        {
            "claim": "magnitude beats soft thresholding in training",
            "paper": "yes; soft gives NaN at 350M and 1B",
            "measured": "; ".join(
                f"{name} minus magnitude {_spread(gap)}" for name, gap in trained.items()
            ),
            "conditions": _conditions(magnitude[0], len(magnitude)),
        },
        {
            "claim": "the same, laid on a model trained without a mask",
            "paper": "not printed",
            "measured": f"cost in nats: {cost}",
            "conditions": _conditions(plain[0], len(plain)),
        },
    ]
