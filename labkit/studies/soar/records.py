"""What the lab keeps of its SOAR studies on a GPU, and the outcomes in them.

study                  {model: {training seed: record}} of ``studies soar`` or of ``soar-words``
everything             of both
bench, caches          of ``studies soar-bench`` and ``soar-caches``;  training: of ``soar-models``
chosen_by, tested      test outcomes of a record;  solved_only_by: the puzzles on which two of them differ
missing, untested      families that were not run, or not tested
note                   what must be known of a record before its numbers
"""

import json
import tokenize
from pathlib import Path

import numpy as np

import labkit.soar
from labkit import checks
from labkit.paths import CHECKPOINTS
from labkit.studies.files import digest
from labkit.studies.soar.outcomes import FAMILIES, Outcome
from labkit.traces import TrainTrace

RESULTS = Path(__file__).parent / "results"
STUDY, WORDS = "study.json", "words.json"
BEAM_KERNEL = Path(labkit.soar.__file__).with_name("beam_kernel.py")
UNREAD = tokenize.COMMENT, tokenize.NL  # of no meaning to Python
RULES = {  # name: (choose's want, least speed against greedy)
    "fast": ("fast", 0.0),  # fewest calls that lose nothing on validation
    "accurate": ("accurate", 0.0),  # most puzzles
    "accurate, 3x": ("accurate", 3.0),  # most puzzles with at most a third of greedy's calls
}
OLD_KERNEL = "measured with the beam kernel before its repair, wrong on a GPU for beams 5 to 8"
Records = dict[int, dict]  # {training seed: record}


def study(path: Path | None = None) -> dict[str, Records]:
    """{model: {seed: record}}, ``right`` of the test outcomes bool arrays; the lab's own, or a file's."""
    found: dict[str, Records] = {}
    for model, by_seed in json.loads((path or RESULTS / STUDY).read_text()).items():
        found[model] = {int(seed): record for seed, record in sorted(by_seed.items())}
        for record in found[model].values():
            for outcome in record["test"]:
                bits = np.frombuffer(bytes.fromhex(outcome["right"]), np.uint8)
                outcome["right"] = np.unpackbits(bits, count=record["puzzles"]["test"]).astype(bool)
    return found


def everything() -> dict[str, Records]:
    """The lab's own records of both studies, puzzles and words, by model."""
    words = RESULTS / WORDS
    return study(RESULTS / STUDY) | (study(words) if words.exists() else {})


def packed(record: dict) -> dict:
    """A record whose test answers, bool (N,), are bits as hexadecimal digits; ``study`` unpacks them."""
    return record | {
        "test": [o | {"right": np.packbits(o["right"]).tobytes().hex()} for o in record["test"]]
    }


def bench(stage: str) -> dict:
    """What a stage of soar-bench gave on an H100: "lab", "share", "llada" or "identity"."""
    checks.choice("stage", stage, ("lab", "share", "llada", "identity"))
    return json.loads((RESULTS / f"bench_{stage}.json").read_text())


def caches() -> dict:
    """{stage of soar-caches: what it gave, with its ``provenance``}."""
    return json.loads((RESULTS / "caches.json").read_text())


def training(what: str) -> tuple[TrainTrace, dict[str, dict]]:
    """Curves of the shipped training of "sudoku9" or "sums", and {checkpoint: its card}."""
    checks.choice("what", what, ("sudoku9", "sums"))
    cards = {file.stem: json.loads(file.read_text()) for file in sorted(CHECKPOINTS.glob(f"{what}*.json"))}
    return TrainTrace.load(RESULTS / f"{what}_training.npz"), cards


def unit(records: Records) -> str:
    """What the study of these records asks: puzzles or problems."""
    return one_training(records) or "puzzles"


def one_training(records: Records) -> str | None:
    """What the questions are called whose intervals are over them: of the study on words."""
    return next(iter(records.values())).get("unit")


def greedy_of(records: Records) -> list[Outcome]:
    """Per seed, the test outcome of greedy, in the blocks that the study chose for it."""
    return [next(o for o in record["test"] if o["family"] == "greedy") for record in records.values()]


def tested(record: dict, name: str) -> Outcome:
    """The test outcome of one label."""
    by_label = {outcome["label"]: outcome for outcome in record["test"]}
    return by_label[checks.choice("name", name, tuple(by_label))]


def chosen_by(records: Records, of: str, rule: str) -> list[Outcome]:
    """Per seed, the test outcome of what ``rule`` chose in the family ``of``; empty if a seed lacks one."""
    checks.choice("of", of, FAMILIES)
    checks.choice("rule", rule, tuple(RULES))
    names = [record["chosen"].get(f"{of}, {rule}") for record in records.values()]
    if None in names:
        return []
    return [tested(record, name) for record, name in zip(records.values(), names, strict=True)]


def solved_only_by(record: dict, winner: str, loser: str = "greedy") -> np.ndarray:
    """Indices of the test puzzles that the setting ``winner`` solved and ``loser`` did not (labels)."""
    return np.flatnonzero(tested(record, winner)["right"] & ~tested(record, loser)["right"])


def missing(records: Records) -> list[str]:
    """Families of the study of which a seed has no outcome at all: what was not run."""
    tried = [record["tried"] for record in records.values()]
    return [of for of in tried[0] if not all(counts.get(of) for counts in tried)]


def untested(records: Records) -> list[str]:
    """Families that were tried on validation, but of which no choice was tested: the time was over."""
    tried = [of for of, count in next(iter(records.values()))["tried"].items() if count]
    return [of for of in tried[1:] if not any(chosen_by(records, of, rule) for rule in RULES)]


def note(records: Records) -> str:
    """What a reader must know of the record before its numbers; empty if nothing."""
    notes = [record.get("note", "") for record in records.values()]
    notes += [OLD_KERNEL] * any(record["kernel"] is None for record in records.values())
    return "; ".join(filter(None, notes))


def kernel_digest() -> str:
    """A digest of the beam kernel's code, comments aside: what a record went through."""
    with BEAM_KERNEL.open("rb") as file:
        return digest([t.string for t in tokenize.tokenize(file.readline) if t.type not in UNREAD])
