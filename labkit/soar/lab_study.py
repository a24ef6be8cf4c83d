"""The study on the lab's 9x9 checkpoints: settings chosen on validation puzzles, then one test.

python -m labkit.soar.lab_study [--device cuda] [--checkpoints lab/sudoku9 lab/sudoku9-early]

Writes results/study.json: all outcomes on the validation puzzles, and on the test puzzles those of
greedy, of fixed parallel decoding and of the settings that RULES chose on validation.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from labkit.paths import write_atomic
from labkit.provenance import provenance
from labkit.soar.models import load_model
from labkit.soar.puzzle_sets import SIZES, load_puzzles
from labkit.soar.study import choose, compare, grid

RESULTS = Path(__file__).parent / "results"
BEAMS, COUNTS = (1, 2, 4, 8), (2, 4)
THRESHOLDS = (0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995)
RULES = {  # name: (choose's want, least speed against greedy)
    "fast": ("fast", 0.0),  # fewest calls that lose nothing on validation
    "accurate": ("accurate", 0.0),  # most puzzles
    "bar": ("accurate", 3.0),  # most puzzles with a third of greedy's calls
}


def study(name: str, device: str, sizes: dict[str, int], seconds: float | None, seed: int = 0) -> dict:
    """Both stages for one checkpoint in bf16: ``validation``, ``chosen`` and ``test`` outcomes."""
    model = load_model(
        name, device=device, dtype=torch.bfloat16, fixed_rows=1024 if device == "cuda" else 8
    )
    settings = grid(BEAMS, THRESHOLDS, COUNTS, ("mean", "sum"), (2, 1))
    # The lab's own variant first, so that a short time still covers it.
    settings.sort(key=lambda s: (s.get("score") == "sum") + (s.get("min_collapse") == 1))
    validation = compare(model, *load_puzzles("validation", sizes["validation"]), settings, seed=seed,
                         seconds=seconds)  # fmt: skip
    chosen = {}
    for strategy in ("adaptive", "pbs", "soar"):
        for rule, (want, speed) in RULES.items():
            own = [o for o in validation if o["setting"]["strategy"] == strategy and o["speed"] >= speed]
            if own:
                chosen[f"{strategy}, {rule}"] = choose(validation, strategy, want, speed)
    tested = [s for s in settings if s["strategy"] in ("greedy", "parallel")]
    tested += [o["setting"] for o in chosen.values()]
    tested = [s for index, s in enumerate(tested) if s not in tested[:index]]
    test = compare(model, *load_puzzles("test", sizes["test"]), tested, seed=seed)
    for outcome in validation:
        del outcome["right"]
    return {
        "model": name, "puzzles": sizes, "settings": len(settings), "validation": validation, "test": test,
        "chosen": {rule: outcome["label"] for rule, outcome in chosen.items()},
    }  # fmt: skip


def load_study(path: Path = RESULTS / "study.json") -> dict[str, dict]:
    """{checkpoint: what ``study`` returned} of the recorded study, and its ``provenance``."""
    return json.loads(path.read_text())


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
    sizes = {"validation": given.validation, "test": given.test}
    found = {"provenance": provenance(command="python -m labkit.soar.lab_study", dtype="bfloat16", seed=0)}
    for name in given.checkpoints:
        began = time.perf_counter()
        found[name] = study(name, given.device, sizes, given.seconds)
        text = json.dumps(found, indent=1)
        write_atomic(given.out, lambda path, text=text: path.write_text(text + "\n"))
        print(table(found[name]), f"\n{time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
