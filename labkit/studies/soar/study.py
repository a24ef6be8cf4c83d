"""The study on the lab's 9x9 checkpoints: settings chosen on validation puzzles, then one test, per seed.

python -m labkit.studies soar [--checkpoints lab/sudoku9 lab/sudoku9-early] [--out DIR]

A checkpoint may be a file of soar-models, which is how other training seeds come in. SOAR and both
adaptive families get the same budget, 18 settings; fixed parallel decoding and PBS have one whole number to
set. Writes study.json, {model: {seed: record}}. A record holds all outcomes on the validation puzzles, what
RULES chose there, and the chosen settings' outcomes on the test puzzles with their answers. What the file
already holds of the same weights, puzzles and beam kernel is kept and not run again; anything else of that
model and seed is replaced. Several processes, one a card, may write to one file. --seconds cuts the
validation short; a later call goes on.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from labkit.paths import CHECKPOINTS
from labkit.soar.load import load_model
from labkit.soar.tasks.puzzle_sets import SIZES, load_puzzles
from labkit.soar.tasks.sudoku_model import SudokuLM
from labkit.studies.files import check
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.soar import page, records
from labkit.studies.soar.outcomes import FAMILIES, Outcome, Setting, choose, compare, family, grid, label
from labkit.studies.soar.records import RULES, kernel_digest
from labkit.studies.soar.records import STUDY as FILE

BEAMS, COUNTS = (2, 4, 8), (2, 3, 4, 5)  # SOAR with one beam is adaptive decoding; its cap is 5
THRESHOLDS = (0.999, 0.9995, 0.9999, 0.995, 0.99, 0.9)  # of SOAR, each with every beam
MORE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.93, 0.95, 0.97, 0.98, 0.993, 0.997, 0.998)  # of adaptive decoding


def settings() -> list[Setting]:
    """Greedy and what the rules choose from. The order is of importance: ``--seconds`` cuts off the end."""
    plain = grid(BEAMS, THRESHOLDS, COUNTS)
    more = [s for s in grid((), MORE, ()) if s["strategy"] == "adaptive"]
    pbs = [s for s in plain if s["strategy"] == "pbs"]
    return [s for s in plain if s not in pbs] + more + pbs


def ablations() -> list[Setting]:
    """Two variants of the paper's code, seen on validation puzzles only: the sum, and collapse 1."""
    variants = ({"scores": ("sum",)}, {"collapses": (1,)})
    return [s for v in variants for s in grid((4,), (0.999, 0.99), (), **v) if s["strategy"] == "soar"]


def study(name: str, device: str, sizes: dict[str, int], known: dict, deadline: float) -> dict:
    """Both stages for one checkpoint in bf16; ``right`` of the outcomes is kept for the test only.

    deadline  a ``time.time()`` after which no further setting is tried on validation puzzles
    known  the earlier record of this model and seed; used if weights, puzzles and kernel are the same
    """
    model = load_model(
        name, device=device, dtype=torch.bfloat16, fixed_rows=1024 if device == "cuda" else 1
    )
    about = {"weights": weights_of(model), "kernel": kernel_digest(), "device": device, "puzzles": sizes}
    if any(known.get(key) != value for key, value in about.items()):
        known = {}
    began = time.perf_counter()
    seen = _outcomes(model, "validation", sizes, settings() + ablations(), known, deadline)
    candidates = [o for o in seen if o["setting"] in settings()]
    chosen = choices(candidates)
    tested = [{"strategy": "greedy"}, *(o["setting"] for o in chosen.values())]
    tested = [s for index, s in enumerate(tested) if s not in tested[:index]]
    tried = {of: sum(o["family"] == of for o in candidates) for of in map(family, grid((2,), (0.9,), (2,)))}
    return about | {
        "training": trained(name), "tried": tried,
        "chosen": {rule: outcome["label"] for rule, outcome in chosen.items()},
        "validation": [{k: v for k, v in o.items() if k != "right"} for o in seen],
        "test": _outcomes(model, "test", sizes, tested, known),
        "provenance": {"dtype": "bfloat16", "seconds": time.perf_counter() - began},
    }  # fmt: skip


def choices(candidates: Sequence[Outcome]) -> dict[str, Outcome]:
    """{"FAMILY, RULE": what the rule chooses among the outcomes, of which the first is the baseline}."""
    return {
        f"{of}, {rule}": choose(candidates, of, want, speed)
        for of in FAMILIES[1:]
        for rule, (want, speed) in RULES.items()
        if any(o["family"] == of and o["speed"] >= speed for o in candidates)
    }


def _outcomes(
    model: torch.nn.Module, part: str, sizes: dict[str, int], wanted: list[Setting], known: dict,
    deadline: float = float("inf"),
) -> list[Outcome]:  # fmt: skip
    before = {o["label"]: o for o in known.get(part, ())}
    new = [s for s in wanted if label(s) not in before]
    if new and new[0]["strategy"] != "greedy":  # to measure speed by
        new = [{"strategy": "greedy"}, *new]
    found = compare(model, *load_puzzles(part, sizes[part]), new, deadline=deadline) if new else []
    before |= {o["label"]: o for o in found}
    return [before[label(s)] for s in wanted if label(s) in before]


def weights_of(model: torch.nn.Module) -> str:
    """A digest of the weights, so that outcomes of other weights are not mistaken for theirs."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def trained(name: str) -> dict:
    """Of a checkpoint's card: name, seed, steps, training_seconds, greedy_on_validation, device."""
    path = CHECKPOINTS / f"{Path(name).name}.safetensors" if name.startswith("lab/") else Path(name)
    card = SudokuLM.load(path)[1]
    keys = ("name", "seed", "steps", "training_seconds", "greedy_on_validation", "device")
    return {key: card[key] for key in keys}


def save(record: dict, context: Context) -> None:
    """Put a record into study.json, its answers as bits, as hexadecimal digits."""
    body, about = records.packed(record), record["training"]
    check(about["name"], body, RECORD)
    context.write(body, FILE, about["name"], str(about["seed"]))


def _run(context: Context) -> None:
    sizes, path = context.pick("validation", "test"), context.out / FILE
    for name in context.options.checkpoints:
        if context.late:
            print(f"{name}: no time left", flush=True)
            continue
        began, about = time.perf_counter(), trained(name)
        known = records.study(path).get(about["name"], {}) if path.exists() else {}
        record = study(name, context.device, sizes, known.get(about["seed"], {}), context.deadline)
        save(record, context)
        written = records.study(path)[about["name"]][about["seed"]]
        print("\n".join(page.study_lines(about["name"], {about["seed"]: written})))
        print(f"{time.perf_counter() - began:.1f} s", flush=True)


OUTCOME = {"setting": {"strategy": str}, "family": str, "label": str, "accuracy": float, "calls": float,
           "rows": float, "speed": float, "seconds": float}  # fmt: skip
RECORD = {
    "training": {"name": str, "seed": int, "steps": int, "training_seconds": float}, "tried": {str: int},
    "puzzles": {"validation": int, "test": int}, "kernel": str | None, "chosen": {str: str},
    "validation": [OUTCOME], "test": [OUTCOME | {"right": str}],
}  # fmt: skip
STUDY = Study(
    "soar",
    "Settings of every family chosen on validation puzzles, tested once on others, per training seed.",
    {"puzzles": Stage(_run, "9x9 Sudoku; a record per checkpoint, which a later call goes on from")},
    {
        "checkpoints": Option(("lab/sudoku9", "lab/sudoku9-early"), "names, or files of soar-models"),
        "validation": Option(SIZES["validation"], "puzzles to choose on", tiny=1),
        "test": Option(SIZES["test"], "puzzles to test on", tiny=2),
    },
)
