"""What SOAR's records say, in rows and in sentences.

claims     the headlines: per model and rule, SOAR against greedy and against its strongest rival
summary    greedy and what one rule chose in every family, on the test puzzles, over seeds
sentence   SOAR and its strongest rival by one rule, in words
metrics    the numbers of the records that notebook 04 stands for
"""

import numpy as np

from labkit.studies.claims import Claim, where
from labkit.studies.soar import records as recorded
from labkit.studies.soar import speed
from labkit.studies.soar.outcomes import FAMILIES, Outcome, Row, gain_words, over_seeds
from labkit.studies.soar.records import Records, chosen_by, greedy_of, missing, note, one_training, unit

NOTEBOOK = "04_soar_quality_speed"
QUESTIONS = {  # the rule -> what it answers
    "accurate, 3x": "More {unit} than greedy, with a third of its forward calls?",
    "accurate": "Who solves most {unit}, at any cost?",
}


def claims() -> list[Claim]:
    """A row per model and rule of QUESTIONS. FileNotFoundError without a recorded study."""
    rows = []
    for model, records in recorded.everything().items():
        if not rivals(records, "accurate"):
            continue  # of greedy and SOAR alone nothing is claimed
        made = "; ".join(filter(None, [max(map(where, records.values())), note(records)]))
        about = {"conditions": made, "notebook": NOTEBOOK}
        rows += [
            Claim("SOAR", f"{ask.format(unit=unit(records))} ({model})", sentence(records, rule), **about)
            for rule, ask in QUESTIONS.items()
        ]
    return rows


def summary(records: Records, rule: str) -> list[Row]:
    """Greedy and what ``rule`` chose in every family, each beside greedy: the most solved first.

    A family in which the rule found nothing for some seed is left out; see ``records.missing``.
    """
    greedy, questions = greedy_of(records), one_training(records)
    rows = [over_seeds(_labels(greedy), greedy, greedy, questions)]
    for of in FAMILIES[1:]:
        if own := chosen_by(records, of, rule):
            rows.append(over_seeds(_labels(own), own, greedy, questions))
    return sorted(rows, key=lambda row: -row.share.estimate)


def strongest_rival(records: Records, rule: str) -> str:
    """The family but greedy and SOAR whose setting chosen by ``rule`` solved most validation puzzles."""

    def validated(of: str) -> float:
        pairs = zip(records.values(), chosen_by(records, of, rule), strict=True)
        return float(np.mean([o["accuracy"] for record, own in pairs for o in record["validation"]
                              if o["label"] == own["label"]]))  # fmt: skip

    return max(rivals(records, rule), key=validated)


def rivals(records: Records, rule: str) -> list[str]:
    """The families but greedy and SOAR of which ``rule`` chose a setting that was tested."""
    return [of for of in FAMILIES[1:-1] if chosen_by(records, of, rule)]


def sentence(records: Records, rule: str = "accurate, 3x") -> str:
    """SOAR and its strongest rival by ``rule`` against greedy, the better first, and against each other;
    then, if it is a third, the arm of the rule "fast" with the fewest forward calls."""
    greedy, questions = greedy_of(records), one_training(records)
    own, rival = (chosen_by(records, of, rule) for of in ("soar", strongest_rival(records, rule)))
    rows = [
        over_seeds(_labels(outcomes), outcomes, greedy, questions) for outcomes in (own, rival) if outcomes
    ]
    parts = [f"{row.label}: {gain_words(row)}, {row.speed:.1f}x fewer forward calls"
             for row in sorted(rows, key=lambda row: -row.gain.estimate)]  # fmt: skip
    if own and rival:
        parts.append(f"SOAR {gain_words(over_seeds('', own, rival, questions), _labels(rival))}")
    cheapest = max(summary(records, "fast"), key=lambda row: row.speed)
    if cheapest.label not in [row.label for row in rows]:
        parts.append(f"fewest calls: {cheapest.label}, {gain_words(cheapest)}, {cheapest.speed:.1f}x fewer")
    parts += [f"not run: {', '.join(missing(records))}"] * bool(missing(records))
    sizes = next(iter(records.values()))["puzzles"]
    parts.append(
        f"settings chosen per training seed on {sizes['validation']:,} {unit(records)}, tested once on "
        f"{sizes['test']:,}"
    )
    return "; ".join(parts)


def metrics(records: Records) -> list[tuple[str, float, str]]:
    """(name, value, unit) of what notebook 04 records of the studies: this one, the bench, the caches."""
    seeds, found = f"mean of {len(records)} seed(s)", []
    for cache in ("approximate-prefix", "approximate-dual"):
        lost = [a["difference"] for a in recorded.caches()["lab/sudoku9"]["arms"] if a["cache"] == cache]
        found.append((f"H100, {cache}: largest loss", -min(lost), ""))
    for rule in QUESTIONS:
        row = next(row for row in summary(records, rule) if row.family == "soar")
        values = {"solved": row.share.estimate, "difference": row.gain.estimate, "speed": row.speed}
        found += [(f"H100, SOAR, {rule}: {name}", value, seeds) for name, value in values.items()]
    alike = min(arm["same answer"] for arm in recorded.bench("identity")["arms"])
    return [*found, ("H100, times faster than one prompt at a time", speed.times_faster(), ""),
            ("H100, least share of the forward, as a graph", speed.least_share(), ""),
            ("H100, same answer alone and in a batch", alike, "")]  # fmt: skip


def _labels(outcomes: list[Outcome]) -> str:
    return " / ".join(dict.fromkeys(outcome["label"] for outcome in outcomes))
