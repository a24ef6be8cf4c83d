"""SOAR's page of results: the study's and the benches' numbers as Markdown, from the records."""

import statistics
from collections.abc import Sequence

from labkit.studies.soar import records as recorded
from labkit.studies.soar.claims import summary
from labkit.studies.soar.outcomes import Row
from labkit.studies.soar.records import OLD_KERNEL, RULES, Records, missing, note, unit, untested

MEANS = {
    "fast": "fewest forward calls among the settings that lose nothing on validation",
    "accurate": "most solved on validation",
    "accurate, 3x": "most solved on validation with at most a third of greedy's forward calls",
}
HEAD = """# Recorded SOAR results

Written by `python -m labkit.studies report` from the files in this folder. Every record holds its command,
versions, card, time and, from now on, a digest of the beam kernel; notebooks 03 and 04 draw them. `commit` in a
record is the state the work started from, not the state that ran.

| files | command | what |
|---|---|---|
| study.json | `python -m labkit.studies soar --checkpoints ...` | per model and training seed: settings chosen on validation puzzles, tested once on others |
| words.json | `python -m labkit.studies soar-words` | the same of the lab's word problems, one training per model: its intervals are over problems |
| bench_lab.json, bench_share.json, bench_llada.json, bench_identity.json | `python -m labkit.studies soar-bench` | speed, share of the forward, one prompt alone against many |
| caches.json | `python -m labkit.studies soar-caches` | what caches cost in answers and save in seconds |
| sudoku9_training.npz, sums_training.npz | `python -m labkit.studies soar-models`, [as on their cards](../../../checkpoints/README.md) | training curves of the shipped models |

## The study: who solves more, in how many forward calls

Rules, applied to each family of settings and each training seed on its validation puzzles:
"""  # noqa: E501


def page() -> str:
    """The whole page."""
    parts = [HEAD, *(f"- *{rule}*: {MEANS[rule]}" for rule in RULES), ""]
    for model, records in recorded.everything().items():
        parts += study_lines(model, records)
    parts += ["## Speed", "", *_speed(), ""]
    return "\n".join(parts)


def study_lines(model: str, records: Records) -> list[str]:
    """Lines of Markdown: one model's records, per rule the arms, the most solved first."""
    first = next(iter(records.values()))
    tried = ", ".join(f"{of} {count}" for of, count in first["tried"].items())
    sizes, made = first["puzzles"], max(r["provenance"]["time"][:10] for r in records.values())
    trained = "; ".join(f"seed {seed}: {_training(r['training'])}" for seed, r in records.items())
    lines = [
        f"### {model}",
        "",
        f"Trained: {trained}. {first['provenance']['device']}, {made}, {first['provenance']['dtype']}.",
        f"Settings tried on {sizes['validation']:,} {unit(records)}: {tried}; tested on "
        f"{sizes['test']:,} others.",
    ]
    lines += [f"**{note(records)}.**"] * bool(note(records))
    lines += [f"Not run: {', '.join(missing(records))}."] * bool(missing(records))
    lines += [f"Not tested: {', '.join(untested(records))}."] * bool(untested(records))
    lines += [
        "",
        "| rule | setting | solved, % | against greedy, points | exact p, a seed | forward calls | rows | "
        "seconds for all |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for rule in RULES:
        lines += [_line(rule, row) for row in summary(records, rule)]
    return [*lines, ""]


def _training(about: dict) -> str:
    seconds = about.get("training_seconds")
    return f"{about['steps']:,} steps" + (f" in {seconds:.0f} s" if seconds else "")


def _line(rule: str, row: Row) -> str:
    gain, p = row.gain.text("+.2f", scale=100), " and ".join(f"{test.p:.2g}" for test in row.tests)
    if row.family == "greedy":
        gain = p = ""
    share, calls = row.share.text(".2f", scale=100), f"{row.calls:.1f} ({row.speed:.2f}x fewer)"
    return (
        f"| {rule} | {row.label} | {share} | {gain} | {p} | {calls} | {row.rows:.1f} | {row.seconds:.1f} |"
    )


def _speed() -> list[str]:
    lab, share, llada = (recorded.bench(stage) for stage in ("lab", "share", "llada"))
    made = lab["provenance"]
    tokens, faster = lab["tokens per second"], lab["times faster"]
    alone = "one at a time"
    lines = [
        f"{made['device']}, torch {made['versions']['torch']}, Triton {made['versions']['triton']}, "
        f"{made['time'][:10]}, bfloat16; times faster are of medians.",
        "", "| what | measured |", "|---|---|",
        f"| {lab['prompts']} puzzles, SOAR {lab['setting']['beam']}: against one prompt at a time, same "
        f"answers {lab['same answer'][alone]:.0%} | {faster[alone]:.0f}x ({tokens['batched']:,.0f} against "
        f"{tokens[alone]:,.0f} tokens/s); {faster[f'{alone}, same graph']:.0f}x if that decoder is given "
        "the same graph (timed once) |",
    ]  # fmt: skip
    old = f" ({OLD_KERNEL})" * ("kernel" not in share["provenance"])
    for name, seen in share["searches"].items():
        remark = old * name.startswith("soar 8")
        lines.append(f"| share of the time in the forward, {share['prompts']} puzzles, {name}{remark} | "
                     f"{_percent(seen['share'])} |")  # fmt: skip
    for name, seen in llada["share"].items():
        lines.append(f"| the same, {llada['shape']}'s shape, random weights: {name} | "
                     f"{_percent(seen['share'])} |")  # fmt: skip
    lines.append(f"| {llada['shape']}'s shape, PBS of one prompt against one beam at a time, same tokens "
                 f"{llada['same tokens']:.0%} | {llada['times faster']:.2f}x |")  # fmt: skip
    caches = recorded.caches()["llada"]
    for arm in caches["arms"]:
        if arm["cache"]:
            lines.append(f"| {caches['shape']}'s shape, {arm['prompts']} prompts, {arm['cache']} cache | "
                         f"{arm['faster']:.2f}x (runs timed: {len(arm['seconds'])}) |")  # fmt: skip
    for arm in recorded.bench("identity")["arms"]:
        lines.append(
            f"| {arm['prompts']:,} puzzles alone and in one batch, {arm['dtype']}, fixed_rows="
            f"{arm['fixed_rows']} | {arm['same answer']:.0%} equal answers, "
            f"{arm['same score to the last bit']:.0%} with equal scores to the last bit |"
        )
    return lines


def _percent(shares: Sequence[float]) -> str:
    return f"{statistics.mean(shares):.0%} (mean of {len(shares)} runs)"
