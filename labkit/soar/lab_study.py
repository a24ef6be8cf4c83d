"""The study on the lab's 9x9 checkpoints: settings chosen on validation puzzles, then one test.

python -m labkit.soar.lab_study [--device cuda] [--checkpoints lab/sudoku9 lab/sudoku9-early]

A checkpoint may be a file of labkit.soar.lab_model, for another seed say. Writes results/study.json:
all outcomes on the validation puzzles, and on the test puzzles those of greedy, of fixed parallel
decoding and of the settings that RULES chose on validation. What the file already holds of the same
weights and puzzles is kept and not run again.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch

from labkit import checks
from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.soar.fixed_batch import FixedBatch
from labkit.soar.models import load_model
from labkit.soar.puzzle_sets import SIZES, load_puzzles
from labkit.soar.study import Setting, choose, compare, grid, label

RESULTS = Path(__file__).parent / "results"
BEAMS, COUNTS = (2, 4, 8), (2, 4)  # SOAR with one beam is adaptive parallel decoding
THRESHOLDS = (0.999, 0.9995, 0.995, 0.99, 0.95, 0.9, 0.5)
RULES = {  # name: (choose's want, least speed against greedy)
    "fast": ("fast", 0.0),  # fewest calls that lose nothing on validation
    "accurate": ("accurate", 0.0),  # most puzzles
    "bar": ("accurate", 3.0),  # most puzzles with a third of greedy's calls
}


def settings() -> list[Setting]:
    """Greedy, fixed, adaptive, SOAR (mean score), some with the sum or collapse 1, the rest, PBS.

    The order is of importance: ``--seconds`` cuts off the end.
    """
    plain = grid(BEAMS, THRESHOLDS, COUNTS)
    wild = [s for s in plain if s["strategy"] == "soar" and s["threshold"] < 0.95]
    pbs = [s for s in plain if s["strategy"] == "pbs"]
    both = [s for s in plain if s not in wild and s not in pbs]
    for variant in ({"scores": ("sum",)}, {"collapses": (1,)}):
        both += [s for s in grid(BEAMS, (0.999, 0.99), (), **variant) if s["strategy"] == "soar"]
    return both + wild + pbs


def study(name: str, device: str, sizes: dict[str, int], known: dict, seconds: float | None) -> dict:
    """Both stages for one checkpoint in bf16: ``validation``, ``chosen`` and ``test`` outcomes.

    known  what an earlier call returned of it; used if weights and puzzles are the same
    """
    rows = 1024 if device == "cuda" else 8
    model = load_model(name, device=device, dtype=torch.bfloat16, fixed_rows=rows)
    about = {"model": name, "weights": weights_of(model), "puzzles": sizes, "device": device}
    if any(known.get(key) != value for key, value in about.items()):
        known = {}
    validation = _outcomes(model, "validation", sizes, settings(), known, seconds)
    chosen = {}
    for strategy in ("adaptive", "pbs", "soar"):
        for rule, (want, speed) in RULES.items():
            own = [o for o in validation if o["setting"]["strategy"] == strategy and o["speed"] >= speed]
            if own:
                chosen[f"{strategy}, {rule}"] = choose(validation, strategy, want, speed)
    tested = [s for s in settings() if s["strategy"] in ("greedy", "parallel")]
    tested += [o["setting"] for o in chosen.values()]
    tested = [s for index, s in enumerate(tested) if s not in tested[:index]]
    return about | {
        "validation": validation, "test": _outcomes(model, "test", sizes, tested, known, None),
        "chosen": {rule: outcome["label"] for rule, outcome in chosen.items()},
    }  # fmt: skip


def _outcomes(
    model: FixedBatch, part: str, sizes: dict[str, int], wanted: list[Setting], known: dict,
    seconds: float | None,
) -> list[dict]:  # fmt: skip
    before = {o["label"]: o for o in known.get(part, ())}
    new = [s for s in wanted if label(s) not in before]
    greedy = [] if "greedy" not in before or not new else [{"strategy": "greedy"}]  # to pair with
    found = compare(model, *load_puzzles(part, sizes[part]), greedy + new, seconds=seconds) if new else []
    before |= {o["label"]: o for o in found}
    return [before[label(s)] for s in wanted if label(s) in before]


def weights_of(model: FixedBatch) -> str:
    """A digest of the weights, so that outcomes of other weights are not mistaken for theirs."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_study(path: Path = RESULTS / "study.json") -> dict[str, dict]:
    """{checkpoint: what ``study`` returned} of the recorded study, and its ``provenance``."""
    return json.loads(path.read_text())


def called(checkpoint: str) -> str:
    """What to call a checkpoint: its name, or for a file the seed and the seconds on its recorded card."""
    path = Path(checkpoint)
    card = RESULTS / f"{path.stem}_{path.parent.name}.json"
    if not card.exists():
        return checkpoint
    made = json.loads(card.read_text())
    return f"{made['name']} trained again, seed {made['seed']}, {made['training_seconds']:.0f} s"


def parted(found: dict, winner: str, loser: str = "greedy") -> np.ndarray:
    """Indices of the test puzzles that the setting ``winner`` solved and ``loser`` did not (labels)."""
    by_label = {o["label"]: o for o in found["test"]}
    checks.choice("winner", winner, tuple(by_label))
    checks.choice("loser", loser, tuple(by_label))
    right = [
        np.unpackbits(np.frombuffer(bytes.fromhex(by_label[name]["right"]), np.uint8)).astype(bool)
        for name in (winner, loser)
    ]
    return np.flatnonzero(right[0] & ~right[1])


def table(found: dict) -> str:
    """The test outcomes of one checkpoint as text."""
    lines = [f"{found['model']}, {found['puzzles']['test']} test puzzles; chosen on "
             f"{found['puzzles']['validation']} validation puzzles: {found['chosen']}"]  # fmt: skip
    for o in found["test"]:
        lines.append(
            f"{o['label']:28s} {100 * o['accuracy']:6.2f} % [{100 * o['low']:.2f}, {100 * o['high']:.2f}]  "
            f"{100 * o['difference']:+.2f} [{100 * o['difference_low']:+.2f}, "
            f"{100 * o['difference_high']:+.2f}]  z {o['z']:+.2f}  calls {o['calls']:6.2f} "
            f"({o['speed']:.2f}x)  rows {o['rows']:7.2f}  {o['seconds']:.2f} s"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run, print and write the study; each checkpoint is written as soon as it is done."""
    parser = argparse.ArgumentParser(prog="labkit.soar.lab_study", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoints", nargs="+", default=["lab/sudoku9", "lab/sudoku9-early"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--validation", type=int, default=SIZES["validation"], help="puzzles to choose on")
    parser.add_argument("--test", type=int, default=SIZES["test"], help="puzzles to test on")
    parser.add_argument("--seconds", type=float, help="of validation, per checkpoint (default: no limit)")
    parser.add_argument("--out", type=Path, default=RESULTS / "study.json")
    given = parser.parse_args(argv)
    known = load_study(given.out) if given.out.exists() else {}
    sizes = {"validation": given.validation, "test": given.test}
    asked = "--checkpoints", *given.checkpoints, "--validation", given.validation, "--test", given.test
    command = " ".join(map(str, ("python -m labkit.soar.lab_study", *asked)))
    found = known | {"provenance": provenance(command=command, dtype="bfloat16", seed=0)}
    if earlier := known.get("provenance"):
        found["earlier"] = [*known.get("earlier", ()), earlier]
    for name in given.checkpoints:
        began = time.perf_counter()
        found[name] = study(name, given.device, sizes, known.get(name, {}), given.seconds)
        text = json.dumps(found, indent=1)
        write_atomic(given.out, lambda path, text=text: path.write_text(text + "\n"))
        print(table(found[name]), f"\n{time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
