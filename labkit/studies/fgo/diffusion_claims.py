"""What the record of ``studies fgo-diffusion`` says: a row of the findings, a section of FGO's page.

record      results/diffusion.json: ``first`` {part: exam}, ``runs`` {unit: {"training", "exam"}}
runs        its runs with test seeds, by arm
claims      every arm against diffu-GRPO, FGO against the penalty
difference  one such comparison in words
section     the page's lines; table: every arm's numbers

Each raises FileNotFoundError while nothing is recorded.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.studies import stats
from labkit.studies.claims import Claim, where
from labkit.studies.fgo.claims import NOTEBOOK, accuracy_words
from labkit.studies.fgo.diffusion_lab import ARMS, BASE, HOW
from labkit.studies.fgo.records import DIFFUSION, RESULTS
from labkit.studies.fgo.run_records import Runs, of_test_seeds, right_of, settings_tried, share_right

RIVAL = "linear penalty, calls"
COUNTS = {"calls": ("calls", "more", "fewer"), "length": ("characters", "more", "fewer")}


def record() -> dict[str, Any]:
    """The whole file."""
    return json.loads((RESULTS / DIFFUSION).read_text())


def runs(found: dict[str, Any]) -> Runs:
    """{arm: {seed: run}} in the study's order, see run_records.of_test_seeds."""
    by_arm = of_test_seeds(found, DIFFUSION, "training", "exam")
    return {arm: dict(sorted(by_arm[arm].items())) for arm in ARMS if arm in by_arm}


def claims() -> list[Claim]:
    """One row; none where diffu-GRPO or every other arm is missing."""
    found = record()
    by_arm = runs(found)
    pairs = compared(by_arm)
    if not pairs:
        return []
    run = next(iter(by_arm[BASE].values()))
    about = run["training"]
    asked = f"lab/sums on sums of {about['terms'][0]} to {about['terms'][1]}"
    made = where(
        run, asked, f"{about['steps'] * about['questions']:,} questions a run", settings_tried(found)
    )
    ask = "Does FGO help a diffusion LM beyond diffu-GRPO (sampled answers)?"
    told = "; ".join(f"{arm} minus {other}: {difference(by_arm, arm, other)}" for arm, other in pairs)
    return [Claim("FGO", ask, told, made, notebook=NOTEBOOK)]


def compared(by_arm: Runs) -> list[tuple[str, str]]:
    """(arm, what it is compared with), of the arms that have a seed in common."""
    pairs = [(arm, BASE) for arm in by_arm if arm != BASE]
    pairs += [(arm, RIVAL) for arm in by_arm if arm.startswith("FGO")]
    return [pair for pair in pairs if pair[1] in by_arm and set(by_arm[pair[0]]) & set(by_arm[pair[1]])]


def difference(by_arm: Runs, arm: str, against: str, how: str = "sampled") -> str:
    """Accuracy, forward calls and characters of ``arm`` against another's, paired by seed, in words."""
    seeds = sorted(set(by_arm[arm]) & set(by_arm[against]))
    pair = [[by_arm[name][seed]["exam"][how] for seed in seeds] for name in (arm, against)]
    right, theirs = (np.array([right_of(exam) for exam in own]) for own in pair)
    told = [accuracy_words(stats.bootstrap_questions(right, theirs))]
    for key, (name, more, less) in COUNTS.items():
        gap = stats.t_interval([a[key] / b[key] - 1 for a, b in zip(*pair, strict=True)])
        said = "" if gap.low is None else f": {gap.verdict(more, less)}"
        same = not any(gap.values)
        told.append(f"{name} the same" if same else f"{name} {gap.text('+.1f', ' %', 100)}{said}")
    return ", ".join(told)


def table() -> tuple[list[str], list[list[str]]]:
    """Head and rows: the first model, then every arm; brackets are 95 %, over questions or seeds."""
    found = record()
    head = ["arm", "rate", "seeds"]
    for how in HOW:
        head += [f"{how}, %", f"{how}, calls"]
    head.append("sampled, characters")
    rows = [["before", "", "1", *_cells([found["first"]["test"]])]]
    for arm, own in runs(found).items():
        rates = sorted({run["training"]["rate"] for run in own.values()})
        exams = [run["exam"] for run in own.values()]
        rows.append([arm, ", ".join(f"{rate:g}" for rate in rates), f"{len(own)}", *_cells(exams)])
    return head, rows


def _cells(exams: Sequence[dict[str, Any]]) -> list[str]:
    cells = []
    for how in HOW:
        share = share_right([exam[how] for exam in exams])
        cells += [share.cell(".1f", 100), _mean(exams, how, "calls")]
    return [*cells, _mean(exams, "sampled", "length")]


def _mean(exams: Sequence[dict[str, Any]], how: str, key: str) -> str:
    return stats.t_interval([exam[how][key] for exam in exams]).cell(".2f")


def section() -> list[str]:
    """What was done, then what came of it, in lines."""
    found = record()
    by_arm, first = runs(found), found["first"]
    about = next((own for arm in by_arm.values() for own in arm.values()), None)
    if about is None:
        raise FileNotFoundError("no test seed of the diffusion study")
    about = about["training"]
    low, high = about["terms"]
    count = first["test"]["sampled"]["questions"]
    return [
        "lab/sums, a masked diffusion LM taught sums of numbers up to 30, is asked sums of numbers from "
        f"{low} to {high}: {about['steps']} steps of {about['questions']} questions x {about['group']} "
        f"responses, {about['iterations']} inner steps on d1's one-step log-probabilities. Decoded "
        f"adaptively (threshold {about['threshold']:g}), sampled at temperature {about['temperature']:g}: "
        "chosen with the numbers by decoding before any training, so that groups are mixed. Greedy is the "
        "same at temperature 0; one call fills in every token at once. "
        f"{count:,} test sums that no training asks for; brackets are 95 % over seeds, of the model before "
        f"over questions. {settings_tried(found)}. {where(first)}.",
        *(f"- {arm} minus {other}, {how}: {difference(by_arm, arm, other, how)}."
          for arm, other in compared(by_arm) for how in HOW),
    ]  # fmt: skip
