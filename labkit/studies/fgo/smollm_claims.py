"""What the record of ``studies fgo-smollm`` says: a row of the findings, a section of FGO's page.

record   results/smollm.json: ``sft``, ``runs`` {unit: {"training", "exam", "transfer"}}, ``speed``
runs     its runs with test seeds, by arm
claims   every arm against GRPO
section  the page's lines

Each raises FileNotFoundError while nothing is recorded.
"""

import json
from typing import Any

import numpy as np

from labkit.studies import stats
from labkit.studies.claims import Claim, where
from labkit.studies.fgo.claims import MARGIN, NOTEBOOK, length_words
from labkit.studies.fgo.records import RESULTS, SMOLLM
from labkit.studies.fgo.run_records import Runs, of_test_seeds, right_of, settings_tried, share_right

BASE = "GRPO"
ASKED = {  # (exam, its part): what was asked
    ("exam", "test"): "new numbers", ("exam", "templates-test"): "unseen templates",
    ("transfer", "GSM8K"): "GSM8K", ("transfer", "SVAMP"): "SVAMP",
}  # fmt: skip


def record() -> dict[str, Any]:
    """The whole file."""
    return json.loads((RESULTS / SMOLLM).read_text())


def runs(found: dict[str, Any]) -> Runs:
    """{arm: {seed: run}} of those trained and examined, see run_records.of_test_seeds."""
    return of_test_seeds(found, SMOLLM, "training", "exam", "transfer")


def claims() -> list[Claim]:
    """One row; none where GRPO or every other arm is missing."""
    found = record()
    by_arm = runs(found)
    others = [arm for arm in by_arm if arm != BASE]
    if BASE not in by_arm or not others:
        return []
    about = next(iter(by_arm[BASE].values()))["training"]
    made = where(
        about,
        f"SmolLM2-135M, {about['steps'] * about['questions']:,} questions a run",
        settings_tried(found),
    )
    ask = "Does a public model learn as on the lab's sums (greedy answers)?"
    told = "; ".join(f"{arm} minus {BASE}: {difference(by_arm, arm)}" for arm in others)
    return [Claim("FGO", ask, told, made, notebook=NOTEBOOK)]


def difference(by_arm: Runs, arm: str, how: str = "greedy") -> str:
    """Accuracy by kind of question, then the length of answers, of ``arm`` against GRPO's, in words."""
    seeds = sorted(set(by_arm[arm]) & set(by_arm[BASE]))
    told = []
    for (exam, part), name in ASKED.items():
        mine, theirs = (
            np.array([right_of(by_arm[one][seed][exam][part][how]) for seed in seeds])
            for one in (arm, BASE)
        )
        gap = stats.bootstrap_questions(mine, theirs)
        said = "" if gap.low is None else f": {gap.verdict('better', 'worse', MARGIN, 100)}"
        told.append(f"{name} {gap.text('+.1f', ' points', 100)}{said}")
    mine, theirs = (
        np.array([by_arm[one][seed]["exam"]["test"][how]["length"] for seed in seeds])
        for one in (arm, BASE)
    )
    return ", ".join([*told, length_words(stats.t_interval(mine / theirs - 1))])


def table() -> tuple[list[str], list[list[str]]]:
    """Head and rows: the first model, then every arm, for each kind of question.

    Brackets are 95 %, over questions for one run, else over seeds.
    """
    found = record()
    arms = {"before": [found["runs"]["first"]]}
    arms |= {arm: list(own.values()) for arm, own in runs(found).items()}
    head = ["asked", "arm", "seeds", "greedy, %", "sampled, %", "tokens, greedy"]
    rows = [
        [name, arm, f"{len(own)}", *_cells([run[exam][part] for run in own])]
        for (exam, part), name in ASKED.items() for arm, own in arms.items()
    ]  # fmt: skip
    return head, rows


def _cells(own: list[dict[str, Any]]) -> list[str]:
    shares = [share_right([exam[how] for exam in own]).cell(".1f", 100) for how in ("greedy", "sampled")]
    return [*shares, stats.t_interval([exam["greedy"]["length"] for exam in own]).cell(".1f")]


def section() -> list[str]:
    """What was done, then what came of it, in lines."""
    found = record()
    sft, by_arm = found["sft"], runs(found)
    counts = {
        name: found["runs"]["first"][exam][part]["greedy"]["questions"]
        for (exam, part), name in ASKED.items()
    }
    asked = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    return [
        f"SmolLM2-135M, taught GSM-Symbolic's solutions for {sft['step']:,} steps of {sft['batch']} until "
        f"it sampled {sft['accuracy']:.1%} of the validation problems right; then each arm with each seed. "
        f"Asked: {asked}. GSM8K is without the stories of the templates. {where(sft)}.",
        *(f"- {arm} minus {BASE}, {how}: {difference(by_arm, arm, how)}."
          for arm in by_arm if arm != BASE and BASE in by_arm for how in ("greedy", "sampled")),
    ]  # fmt: skip
