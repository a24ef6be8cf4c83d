"""What the lab keeps of its SOAR study on a GPU (``lab_study``), and what can be read off it.

load_study   {model: {training seed: record}}
summary      greedy and what one rule chose in every family, on the test puzzles, over seeds
claim        SOAR against greedy and against its strongest rival, in a sentence
table        all rules and every seed's exact tests, as text
chosen_by, tested, parted   outcomes of a record, and the puzzles on which two of them part
"""

import json
from pathlib import Path

import numpy as np

import labkit.soar
from labkit import checks
from labkit.studies.files import digest
from labkit.studies.soar.study import FAMILIES, Outcome, Row, describe, gain_words, over_seeds

STUDY_FILE = "study.json"
STUDY = Path(__file__).parent / "results" / STUDY_FILE
BEAM_KERNEL = Path(labkit.soar.__file__).with_name("beam_kernel.py")
RULES = {  # name: (choose's want, least speed against greedy)
    "fast": ("fast", 0.0),  # fewest calls that lose nothing on validation
    "accurate": ("accurate", 0.0),  # most puzzles
    "accurate, 3x": ("accurate", 3.0),  # most puzzles with at most a third of greedy's calls
}
OLD_KERNEL = "measured with the beam kernel before its repair, wrong on a GPU for beams 5 to 8"
Records = dict[int, dict]  # {training seed: record}


def load_study(path: Path = STUDY) -> dict[str, Records]:
    """{model: {seed: record}} of the recorded study, ``right`` of its test outcomes as bool arrays."""
    found: dict[str, Records] = {}
    for model, by_seed in json.loads(path.read_text()).items():
        found[model] = {int(seed): record for seed, record in sorted(by_seed.items())}
        for record in found[model].values():
            for outcome in record["test"]:
                bits = np.frombuffer(bytes.fromhex(outcome["right"]), np.uint8)
                outcome["right"] = np.unpackbits(bits, count=record["puzzles"]["test"]).astype(bool)
    return found


def tested(record: dict, name: str) -> Outcome:
    """The test outcome of one label."""
    by_label = {outcome["label"]: outcome for outcome in record["test"]}
    return by_label[checks.choice("name", name, tuple(by_label))]


def chosen_by(records: Records, of: str, rule: str) -> list[Outcome]:
    """Per seed, the test outcome of what ``rule`` chose in the family ``of``; empty if a seed lacks one."""
    checks.choice("of", of, FAMILIES)
    checks.choice("rule", rule, tuple(RULES))
    names = [record["chosen"].get(f"{of}, {rule}") for record in records.values()]
    return (
        [] if None in names else [tested(r, name) for r, name in zip(records.values(), names, strict=True)]
    )


def parted(record: dict, winner: str, loser: str = "greedy") -> np.ndarray:
    """Indices of the test puzzles that the setting ``winner`` solved and ``loser`` did not (labels)."""
    return np.flatnonzero(tested(record, winner)["right"] & ~tested(record, loser)["right"])


def summary(records: Records, rule: str) -> list[Row]:
    """Greedy and what ``rule`` chose in every family, each beside greedy: the most solved first.

    A family in which the rule found nothing for some seed is left out; see ``missing``.
    """
    greedy = [tested(record, "greedy") for record in records.values()]
    rows = [over_seeds("greedy", greedy, greedy)]
    for of in FAMILIES[1:]:
        if own := chosen_by(records, of, rule):
            rows.append(over_seeds(_labels(own), own, greedy))
    return sorted(rows, key=lambda row: -row.share.estimate)


def missing(records: Records) -> list[str]:
    """Families of which a seed has no outcome at all: what was not run."""
    return [of for of in FAMILIES if not all(record["tried"].get(of) for record in records.values())]


def strongest_rival(records: Records, rule: str) -> str:
    """The family but greedy and SOAR whose setting chosen by ``rule`` solved most validation puzzles."""

    def validated(of: str) -> float:
        pairs = zip(records.values(), chosen_by(records, of, rule), strict=True)
        return float(np.mean([o["accuracy"] for record, own in pairs for o in record["validation"]
                              if o["label"] == own["label"]]))  # fmt: skip

    return max((of for of in FAMILIES[1:-1] if chosen_by(records, of, rule)), key=validated)


def claim(records: Records, rule: str = "accurate, 3x") -> str:
    """SOAR and its strongest rival by ``rule`` against greedy, the better first, and against each other;
    then, if it is a third, the arm of the rule "fast" with the fewest forward calls."""
    greedy = [tested(record, "greedy") for record in records.values()]
    own, rival = (chosen_by(records, of, rule) for of in ("soar", strongest_rival(records, rule)))
    rows = [over_seeds(_labels(outcomes), outcomes, greedy) for outcomes in (own, rival) if outcomes]
    parts = [f"{row.label}: {gain_words(row)}, {row.speed:.1f}x fewer forward calls"
             for row in sorted(rows, key=lambda row: -row.gain.estimate)]  # fmt: skip
    if own and rival:
        name = _labels(rival)
        parts.append(f"SOAR {gain_words(over_seeds('', own, rival), name)}")
    cheapest = max(summary(records, "fast"), key=lambda row: row.speed)
    if cheapest.label not in [row.label for row in rows]:
        parts.append(f"fewest calls: {cheapest.label}, {gain_words(cheapest)}, {cheapest.speed:.1f}x fewer")
    parts += [f"not run: {', '.join(missing(records))}"] * bool(missing(records))
    puzzles = next(iter(records.values()))["puzzles"]
    parts.append(f"settings chosen per training seed on {puzzles['validation']:,} puzzles, tested once on "
                 f"{puzzles['test']:,}")  # fmt: skip
    return "; ".join(parts)


def _labels(outcomes: list[Outcome]) -> str:
    return " / ".join(dict.fromkeys(outcome["label"] for outcome in outcomes))


def kernel_digest() -> str:
    """A digest of the beam kernel's source, so that a record says which kernel it went through."""
    return digest(BEAM_KERNEL)


def note(records: Records) -> str:
    """What a reader must know of the record before its numbers; empty if nothing."""
    return OLD_KERNEL if any(record["kernel"] is None for record in records.values()) else ""


def table(model: str, records: Records) -> str:
    """The test outcomes of one model as text: per rule the arms, the most solved first."""
    first = next(iter(records.values()))
    tried = ", ".join(f"{of} {count}" for of, count in first["tried"].items())
    seeds, sizes = ", ".join(map(str, records)), first["puzzles"]
    lines = [f"{model}, training seeds {seeds}, {sizes['test']:,} test puzzles",
             f"settings tried on {sizes['validation']:,} validation puzzles: {tried}"]  # fmt: skip
    lines += [note(records)] * bool(note(records))
    for rule in RULES:
        lines.append(f"rule: {rule}")
        for row in summary(records, rule):
            solved = ", ".join(f"{value:.2%}" for value in row.share.values)
            lines.append(f"  {solved}  {row.label if row.label == 'greedy' else describe(row)}")
    return "\n".join(lines)
