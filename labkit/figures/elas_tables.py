"""The recorded ELAS study in tables.

arm_table         the main one: loss, difference and time of a step of each arm
perplexity_table  the paper's perplexities beside ours, with the seeds' range
byte_table        what each form of one FFN keeps for the backward pass
claims_table      claim by claim: paper, measured, conditions
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import HTML

from labkit.figures.pretraining import NAMES, by_arm, differences
from labkit.figures.tables import html_table
from labkit.studies.claims import Claim
from labkit.studies.elas.records import note
from labkit.studies.stats import spread
from labkit.traces import TrainTrace

OURS = {"Full rank": "dense_swiglu", "LORO": "lowrank_swiglu", "ELAS": "elas_ste"}


def perplexity_table(
    published: Mapping[str, tuple[Sequence[float], str]],
    sizes: Sequence[str],
    ours: Mapping[str, np.ndarray],
) -> HTML:
    """Published perplexities beside ours; ``ours``: {arm: (seeds,)}, arms the paper lacks come last."""

    def cell(arm: str | None) -> list[str]:
        if arm is None or arm not in ours:
            return ["not run", ""]
        return [NAMES[arm], spread(ours[arm], ".2f")]

    rows = []
    for name, (values, source) in published.items():
        rows.append([name, *(f"{v:.2f}" for v in values), *cell(OURS.get(name)), source])
    for arm in ours:
        if arm not in OURS.values():
            rows.append([NAMES[arm], *("" for _ in sizes), *cell(arm), ""])
    head = ["method", *(f"paper, {size}" for size in sizes), "our arm", "ours (range)", "source of theirs"]
    title = (
        "Perplexity, lower is better. Theirs: C4, 1 to 13 billion tokens. Ours: another text, size and "
        "budget, so compare the gaps within a column, not the columns"
    )
    return html_table(head, rows, title)


def arm_table(record: Mapping[str, Any], runs: Sequence[TrainTrace]) -> HTML:
    """Loss and time of every arm in one table. ``record``: results("study"); ``runs``: records.runs().

    Means and ranges over seeds, differences paired by seed with their interval. A step's time is the
    median, alone on the card; tokens a second count the exact steps in.
    """
    against = "lowrank_relu2"
    arms = {arm: own for arm, own in by_arm(runs).items() if own[0].meta["stage"] == "arms"}
    gaps = differences([run for own in arms.values() for run in own], against)
    rows = []
    for arm, own in arms.items():
        whole = [run.meta for run in own if np.isfinite(run.meta["test_nats"])]
        broke = f", {len(own) - len(whole)} broke" * (len(whole) < len(own))
        nats, bits = ([meta[f"test_{unit}"] for meta in whole] for unit in ("nats", "bits_per_byte"))
        gap = gaps[arm].text() if arm in gaps else "reference" if arm == against else "not paired"
        rows.append([
            NAMES[arm], f"{own[0].meta['parameters'] / 1e6:.1f}M", _rate(record, arm), f"{len(own)}{broke}",
            spread(nats), spread(bits), spread(np.exp(nats), ".2f"), gap, *_times(record, arm),
        ])  # fmt: skip
    text, config = record["text"], record["config"]
    counted = text["unigram_nats"]
    losses = [f"{counted:.3f}", f"{text['unigram_bits_per_byte']:.3f}", f"{np.exp(counted):.0f}"]
    rows.append(["counting tokens alone", "", "", "", *losses, "", "", "", ""])
    head = [
        "arm", "parameters", "learning rate", "seeds", "test loss (nats per token)", "bits per byte",
        "perplexity", f"nats minus {NAMES[against]}", "ms a step", "million tokens a second", "peak GiB",
    ]  # fmt: skip
    tokens, where = config["batch_size"] * config["seq_len"], record["provenance"]["device"]
    title = f"{config['steps']} steps of {tokens:,} tokens, text {text['name']}, {where}"
    return html_table(head, rows, "; ".join(part for part in (title, note(record)) if part))


def _rate(record: Mapping[str, Any], arm: str) -> str:
    """The chosen learning rate, of how many, and whether a better one may lie beyond those tried."""
    rate, tried = record["chosen"][arm], [float(lr) for lr in record["tried"].get(arm, {})]
    if not tried:
        return f"{rate:g} (not tuned)"
    edge = ", at the edge" if rate in (min(tried), max(tried)) else ""
    return f"{rate:g} (best of {len(tried)}{edge})"


def _times(record: Mapping[str, Any], arm: str) -> list[str]:
    found = record["times"].get(arm)
    if found is None:
        return ["not timed", "", ""]
    step = f"{found['ms']['p50']:.2f}"
    if found["exact_ms"]:
        step += f" ({found['exact_ms']:.0f} every {record['config']['exact_every']}th)"
    return [step, f"{found['tokens_per_second'] / 1e6:.2f}", f"{found['peak_bytes'] / 2**30:.2f}"]


def byte_table(measured: Mapping[str, float]) -> HTML:
    """Measured bytes per token, each with its change against the second form's."""
    names, values = list(measured), np.array(list(measured.values()))
    change = 100 * (values / values[1] - 1)
    rows = [
        [name, f"{value:,.0f}", f"{percent:+.0f} %" if percent else "reference"]
        for name, value, percent in zip(names, values, change, strict=True)
    ]
    least = int(values.argmin())
    less = f"{-change[least]:.0f} % less than {names[1]}"
    title = f"{names[least]} keeps {values[least]:,.0f} bytes a token, {less}"
    return html_table(["form of the FFN", "bytes per token", f"against {names[1]}"], rows, title, (1, 2))


def claims_table(rows: Sequence[Claim]) -> HTML:
    """Claims of the paper, what it prints and what was measured."""
    head = ["claim", "the paper", "what we measured", "card, sizes, seeds"]
    cells = [[row.claim, row.published, row.measured, row.conditions] for row in rows]
    return html_table(head, cells, "ELAS, claim by claim")
