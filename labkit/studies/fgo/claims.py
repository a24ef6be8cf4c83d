"""What FGO's records say, in rows and in sentences.

claims               FGO against GRPO, against its strongest rival, its entropy term; nulls first
summary              one row per arm, every seed's numbers; ``table``: the same as text
difference           length and accuracy of one arm against another, paired by seed
describe_difference  the same in words
entropy_lost         from which step on an arm's per-token entropy stays below another's, and where it went
"""

from collections.abc import Sequence

import numpy as np

from labkit import checks
from labkit.studies import published, stats
from labkit.studies.claims import Claim, where
from labkit.studies.fgo import records
from labkit.studies.fgo.frontier import of_seeds, strongest_rival, without_entropy
from labkit.studies.fgo.records import Arms
from labkit.traces import TrainTrace

NOTEBOOK = "06_fgo_entropy"  # the one that shows them
MARGIN = 1.0  # points of accuracy: a smaller difference would not matter
COLUMNS = {  # a row's key -> (heading, digits); the first four with intervals
    "accuracy": ("accuracy, %", 1),
    "length": ("tokens", 1),
    "greedy_accuracy": ("greedy accuracy, %", 1),
    "greedy_length": ("greedy tokens", 1),
    "act": ("ACT", 0),
    "entropy": ("entropy, sum", 2),
    "entropy_per_token": ("entropy / token", 3),
    "checks": ("checks", 2),
    "invalid": ("invalid groups", 0),
    "constant": ("constant groups", 0),
}


def claims() -> list[Claim]:
    """A row per question, what is not resolved first. FileNotFoundError without a recorded study."""
    arms = records.runs()
    if not {"FGO", "GRPO"} <= set(arms):
        raise FileNotFoundError("no recorded FGO study")
    about = arms["FGO"][0].meta
    rival = strongest_rival(arms)
    lacking = len(records.missing(arms))
    made = where(
        about, f"{about['steps'] * about['questions']:,} questions a run", settings_tried(),
        f"{lacking} of {lacking + len(arms)} planned arms were not run" * bool(lacking),
    )  # fmt: skip
    asked = {
        "How do accuracy and length differ from GRPO's?": [("FGO", "GRPO")],
        f"Is FGO better than {rival}, the strongest rival that writes no more?": [("FGO", rival)],
        "What does FGO's entropy term add to its length term?": twins(arms),
    }
    rows = [
        (_settled(arms, pairs), Claim("FGO", ask, "; ".join(sentence(arms, *pair) for pair in pairs), made,
                                      notebook=NOTEBOOK))
        for ask, pairs in asked.items() if pairs
    ]  # fmt: skip
    return [row for _, row in sorted(rows, key=lambda found: found[0])]


def twins(arms: Arms) -> list[tuple[str, str]]:
    """(an arm of FGO, the same without its entropy term), where both are recorded."""
    pairs = ((arm, without_entropy(arms, arm)) for arm in arms)
    return [(arm, other) for arm, other in pairs if other]


def _settled(arms: Arms, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether every interval of the difference in accuracy leaves out zero."""
    gaps = [difference(arms, *pair)["accuracy"] for pair in pairs]
    return all(gap.verdict("settled", "settled") == "settled" for gap in gaps)


def sentence(arms: Arms, arm: str, against: str, exam: str = "sampled") -> str:
    """``FGO minus GRPO: accuracy ..., length ...``."""
    return f"{arm} minus {against}: {describe_difference(arms, arm, against, exam)}"


def settings_tried() -> str:
    """How many settings the choice of learning rates saw; empty without its record."""
    runs = [run for found in records.tuned().values() for run in found["runs"]]
    rates = {run["learning_rate"] for run in runs}
    seeds = len({run["seed"] for run in runs})
    families = len(records.tuned())
    return f"{families} families x {len(rates)} learning rates on {seeds} validation seeds" * bool(runs)


def summary(arms: Arms) -> list[dict]:
    """One row per arm, {name of ``COLUMNS``: one value per seed}: before training, then the most accurate.

    Accuracies are in %. ``seeds``, ``learning_rate`` and ``arm`` are the row's own; invalid and constant
    groups are those of the whole run.
    """
    some = next(iter(arms.values()))
    rows = []
    for arm, runs in arms.items():
        counts = {name: [groups_of(run, name) for run in runs] for name in ("invalid", "constant")}
        about = {"arm": arm, "seeds": len(runs), "learning_rate": runs[0].meta["learning_rate"]}
        rows.append(about | _exam(runs, "after") | counts)
    rows.sort(key=lambda row: -np.mean(row["accuracy"]))
    return [{"arm": "before", "seeds": len(some), **_exam(some, "before")}, *rows]


def paper_words() -> str:
    """What the paper measured, of another model on other questions."""
    told = []
    for arm, row in published.MATH500.items():
        counts = published.INVALID.get(arm, ())
        groups = " to ".join(dict.fromkeys(f"{pick(counts):,}" for pick in (min, max) if counts))
        counted = f", invalid groups {groups}" * bool(groups)
        told.append(f"{arm} {row['accuracy']:g} % at {row['length']:g} tokens, ACT {row['act']:g}{counted}")
    return (
        f"The paper (Qwen2.5-Math-1.5B on MATH500, {published.QUESTIONS:,} questions; another model, other "
        f"questions): {'; '.join(told)}."
    )


def _exam(runs: Sequence[TrainTrace], when: str) -> dict[str, list[float]]:
    names = ("accuracy", "length", "act", "entropy", "entropy_per_token", "checks")
    found = {name: [run.meta[when][name] for run in runs] for name in names}
    found |= {f"greedy_{name}": [run.meta[f"{when}_greedy"][name] for run in runs] for name in names[:2]}
    return found | {name: [100 * v for v in found[name]] for name in ("accuracy", "greedy_accuracy")}


def groups_of(run: TrainTrace, name: str) -> float:
    """How many of a run's groups were ``name``: "invalid" or "constant"."""
    checks.choice("name", name, ("invalid", "constant"))
    return float(run.curve(f"fgo/{name}_groups")[1].sum())


def table(arms: Arms, against: str = "GRPO") -> tuple[list[str], list[list[str]]]:
    """Head and rows of ``summary`` as text, each arm's paired difference to ``against`` beside it."""
    head = ["arm", "learning rate", f"accuracy minus {against}'s, points", f"length against {against}'s, %"]
    head[2:2] = [heading for heading, _ in COLUMNS.values()][:2]
    head += [heading for heading, _ in COLUMNS.values()][2:]
    lines = []
    for row in summary(arms):
        cells = [
            "" if name not in row
            else stats.t_interval(row[name]).cell(f",.{digits}f") if place < 4
            else f"{np.mean(row[name]):,.{digits}f}"
            for place, (name, (_, digits)) in enumerate(COLUMNS.items())
        ]  # fmt: skip
        gaps = ["", ""]
        if row["arm"] not in ("before", against):
            gap = difference(arms, row["arm"], against)
            gaps = [gap[name].cell("+.1f", 100) for name in ("accuracy", "length")]
        rate = f"{row['learning_rate']:g}" if "learning_rate" in row else ""
        lines.append([row["arm"], rate, *cells[:2], *gaps, *cells[2:]])
    return head, lines


def metrics(arms: Arms) -> list[tuple[str, float, str]]:
    """(name, value, unit) of what notebook 06 records of the study."""
    rows = {row["arm"]: row for row in summary(arms)}
    some = arms["FGO"][0].meta
    units = {"accuracy": "%", "length": "tokens", "act": "% per 100 tokens"}
    found = [(f"study: {name}, {arm}", float(np.mean(rows[arm][name])), unit)
             for arm in ("GRPO", "FGO") for name, unit in units.items()]  # fmt: skip
    of = f"of {some['steps'] * some['questions']:,}"
    found += [
        (f"study: invalid groups, {a}", float(np.mean(rows[a]["invalid"])), of) for a in ("GRPO", "FGO")
    ]
    for name, against in (("GRPO", "GRPO"), ("strongest rival", strongest_rival(arms))):
        gap = difference(arms, "FGO", against)
        found.append((f"study: length, FGO against {name}", gap["length"].estimate, ""))
        found.append((f"study: accuracy, FGO minus {name}", 100 * gap["accuracy"].estimate, "points"))
    ratio = float(np.mean(entropy_lost(arms)["ratio"]))
    return [*found, ("study: entropy per token, FGO over GRPO", ratio, "")]


def difference(
    arms: Arms, arm: str = "FGO", against: str = "GRPO", exam: str = "sampled"
) -> dict[str, stats.Estimate]:
    """How ``arm`` differs from ``against`` in the last exam, seed by seed.

    Returns ``accuracy``, of 1, and ``length``, relative (-0.3: 30 % shorter).
    """
    base, own = (of_seeds(arms, name, "length", exam) for name in (against, arm))
    change = [own[seed] / base[seed] - 1 for seed in own if seed in base]
    right = (of_seeds(arms, name, "accuracy", exam) for name in (arm, against))
    return {"accuracy": stats.paired_t(*right), "length": stats.t_interval(change)}


def describe_difference(arms: Arms, arm: str = "FGO", against: str = "GRPO", exam: str = "sampled") -> str:
    """``difference`` as words: "accuracy +1.2 points (95 % ..., 8 seeds): more accurate, length ..."."""
    gap = difference(arms, arm, against, exam)
    return f"{accuracy_words(gap['accuracy'])}, {length_words(gap['length'])}"


def accuracy_words(gap: stats.Estimate) -> str:
    """A difference in accuracy, of 1, with the verdict that it allows."""
    said = gap.verdict("more accurate", "less accurate", MARGIN, 100)
    return f"accuracy {gap.text('+.1f', ' points', 100)}{_verdict(gap, said)}"


def length_words(gap: stats.Estimate) -> str:
    """A relative difference in length, likewise."""
    return f"length {gap.text('+.0f', ' %', 100)}{_verdict(gap, gap.verdict('longer', 'shorter'))}"


def _verdict(gap: stats.Estimate, words: str) -> str:
    return "" if gap.low is None else f": {words}"


def entropy_lost(arms: Arms, arm: str = "FGO", against: str = "GRPO") -> dict[str, list]:
    """From which exam on ``arm``'s entropy per token stays below ``against``'s: a value per common seed.

    step        that step, None where it does not; the rest is of the last exam
    ratio       entropy per token, ``arm`` over ``against``
    sum_ratio   entropy per response (sum), likewise
    choice_ratio, result_ratio   nats per token where the model chooses (check, go on, answer) and where
                it computes
    """
    checks.choice("arm", arm, tuple(arms))
    checks.choice("against", against, tuple(arms))
    base = {run.meta["seed"]: run for run in arms[against]}
    pairs = [(run, base[run.meta["seed"]]) for run in arms[arm] if run.meta["seed"] in base]
    found: dict[str, list] = {"step": [_stays_below(run, other) for run, other in pairs]}
    for name, key in (("ratio", "entropy_per_token"), ("sum_ratio", "entropy"),
                      ("choice_ratio", "entropy_choice"), ("result_ratio", "entropy_result")):  # fmt: skip
        found[name] = [run.meta["after"][key] / other.meta["after"][key] for run, other in pairs]
    return found


def describe_lost(arms: Arms, arm: str = "FGO", against: str = "GRPO") -> str:
    """``entropy_lost`` in a sentence."""
    lost = entropy_lost(arms, arm, against)
    steps = [step for step in lost["step"] if step is not None]
    when = f" (from step {' to '.join(map(str, sorted({min(steps), max(steps)})))} on)" if steps else ""
    end = stats.t_interval(lost["ratio"]).text(".0f", " %", 100)
    return (
        f"{arm}'s entropy per token ends below {against}'s in {len(steps)} of {len(lost['step'])} seeds"
        f"{when}, at {end} of it"
    )


def _stays_below(run: TrainTrace, other: TrainTrace) -> int | None:
    steps, mine = run.curve("exam/entropy_per_token")
    below = mine < other.curve("exam/entropy_per_token")[1]
    if not below[-1]:
        return None
    return int(steps[0 if below.all() else np.flatnonzero(~below)[-1] + 1])
