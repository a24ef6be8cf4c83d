"""The study on words: settings chosen on validation problems, tested once on others, a record per model.

python -m labkit.studies soar-words [--models lab/gsm lab/gsm-early FOLDER] [--out DIR]

The problems have the numbers of no training problem. Every family that takes one number gets the same
number of settings as SOAR; each is tried in blocks of BLOCKS. The baseline is greedy in the blocks that
serve it best on validation problems. Writes words.json, {model: {seed: record}}, shaped as study.json's;
several processes, one a card, may write to one file, of other models or of other families of one model;
the first one validates greedy, which decides the baseline for all. What is validated is not run again.
--validate-only leaves the test to a later call, --seconds cuts the validation short.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit.paths import CHECKPOINTS
from labkit.soar.generate import encode
from labkit.soar.load import load_model
from labkit.soar.search import decode
from labkit.studies.files import check
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar import page, records
from labkit.studies.soar.gsm_data import ANSWER
from labkit.studies.soar.gsm_run import answers
from labkit.studies.soar.outcomes import (
    FAMILIES,
    UNCAPPED,
    Outcome,
    Setting,
    choose,
    family,
    label,
    measure,
)
from labkit.studies.soar.records import WORDS, kernel_digest
from labkit.studies.soar.study import OUTCOME, choices, weights_of
from labkit.studies.soar.study import RECORD as PUZZLES
from labkit.traces import BeamTrace, TrainTrace

BLOCKS = (32, 16, 64, 8)  # the order is of importance: --seconds cuts off the end
BEAMS, COUNTS = (2, 4, 8), (2, 3, 4)
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999)
FACTORS = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
GAMMAS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
STABLE = tuple(product((0.7, 0.9, 0.95, 0.99), (0.001, 0.01, 0.1)))  # threshold, kl_threshold
KEPT = 20  # test problems whose answers are kept as texts
LOGITS = 4 * 10**9  # bytes that those of one forward may take


def settings(families: Sequence[str] = FAMILIES, blocks: Sequence[int] = BLOCKS) -> list[Setting]:
    """What the rules choose from: greedy first, then the cheap families block by block, then the beams."""
    soar = product(BEAMS, (0.9, 0.99, 0.999, 0.9999))
    cheap: list[Setting] = [
        {"strategy": "greedy"},
        *({"strategy": "soar", "beam": k, "threshold": t, "min_collapse": 2} for k, t in soar),
        *({"strategy": "adaptive", "threshold": t, "max_parallel": UNCAPPED} for t in THRESHOLDS),
        *({"strategy": "adaptive", "threshold": t} for t in THRESHOLDS),
        *({"strategy": "eb", "gamma": gamma} for gamma in GAMMAS),
        *({"strategy": "factor", "factor": factor} for factor in FACTORS),
        *({"strategy": "klass", "threshold": t, "kl_threshold": kl} for t, kl in STABLE),
        *({"strategy": "parallel", "max_parallel": n} for n in COUNTS),
    ]
    beams: list[Setting] = [
        {"strategy": strategy, "beam": k} for k in BEAMS for strategy in ("pbs", "order_token")
    ]
    every = [one | {"block_length": size} for part in (cheap, beams) for size in blocks for one in part]
    return [one for one in every if family(one) in families]


def study(
    name: str, device: str, sizes: dict[str, int], candidates: list[Setting],
    known: dict | None = None, deadline: float = float("inf"), test: bool = True,
) -> Iterator[dict]:  # fmt: skip
    """Both stages for one model in bf16 (fp32 on a CPU): its record, again after each tested setting.

    known  an earlier record of the model: of the same problems its validation stands
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = load_model(name, device=device, dtype=dtype)
    about = {"weights": weights_of(model), "kernel": kernel_digest(), "puzzles": sizes}
    held = {part: gsm.load_problems(part, count) for part, count in sizes.items()}
    before = {o["label"]: o for o in known["validation"]} if known and same_test(known, about) else {}
    new = [setting for setting in candidates if label(setting) not in before]
    before |= {o["label"]: o for o in _outcomes(model, held["validation"], new, deadline)}
    seen = [before[label(s)] for s in candidates if label(s) in before]
    base = choose(seen, "greedy", "accurate")
    seen = [base, *(o for o in seen if o is not base)]
    _against(base, seen)
    chosen = choices(seen)
    record = about | {
        "training": trained(name), "unit": "problems",
        "tried": {of: sum(o["family"] == of for o in seen) for of in map(family, candidates)},
        "validation": [{k: v for k, v in o.items() if k not in ("right", "texts")} for o in seen],
        "provenance": {"dtype": str(dtype).removeprefix("torch.")},
    }  # fmt: skip
    if not test:
        yield record | {"chosen": {}, "test": []}
        return
    tested: list[Outcome] = []
    own_first = sorted(chosen.values(), key=lambda o: o["family"] != "soar")  # should the time run out
    for setting in {o["label"]: o["setting"] for o in (base, *own_first)}.values():
        tested += _outcomes(model, held["test"], [setting])
        _against(tested[0], tested)
        labels = [o["label"] for o in tested]
        rules = {rule: o["label"] for rule, o in chosen.items() if o["label"] in labels}
        yield record | {"chosen": rules, "test": tested}


def _against(base: Outcome, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        outcome["speed"] = base["calls"] / outcome["calls"]


def _outcomes(
    model: Any, asked: list[gsm.Problem], wanted: Sequence[Setting], deadline: float = float("inf")
) -> list[Outcome]:
    prompts = [encode(model.tokenizer, problem.question) for problem in asked]
    texts: list[list[str]] = []

    def judge(trace: BeamTrace) -> np.ndarray:
        texts.append(answers(trace, model.tokenizer))
        return gsm.right(texts[-1], asked)

    def run(setting: Setting) -> BeamTrace:
        logits = 4 * setting["block_length"] * setting.get("beam", 1) * len(model.tokenizer)
        return decode(
            model, prompts, gen_length=ANSWER, record=False, batch_size=max(1, LOGITS // logits), **setting
        )

    found = measure(run, judge, wanted, deadline=deadline) if wanted else []
    return [outcome | {"texts": own[:KEPT]} for outcome, own in zip(found, texts, strict=True)]


def trained(name: str) -> dict:
    """How a model was made: its card, or what ``labkit train dlm`` left beside the folder."""
    folder = CHECKPOINTS / name.removeprefix("lab/") if name.startswith("lab/") else Path(name)
    if (folder / "card.json").exists():
        card = json.loads((folder / "card.json").read_text())
        return {key: card[key] for key in ("name", "seed", "steps", "training_seconds", "device")}
    meta = TrainTrace.load(folder.parent / "train_trace.npz").meta
    steps = json.loads((folder.parent / "result.json").read_text())["steps"]
    about = {key: meta[key] for key in ("parameters", "trained_parameters", "lora_r", "device")}
    of = {"name": folder.parent.name, "seed": meta["seed"], "steps": steps}
    return of | {"model": Path(meta["model"]).name} | about


def same_test(known: dict, new: dict) -> bool:
    """Whether two records are of the same weights, kernel and problems."""
    return all(known.get(key) == new[key] for key in ("weights", "kernel", "puzzles"))


def merged(known: dict, new: dict) -> dict:
    """Two records of one model, each of some families; ``new`` alone unless they are of the same test."""
    if not same_test(known, new):
        return new
    lists = {}
    for part in ("validation", "test"):
        labels = [o["label"] for o in new[part]]
        lists[part] = new[part][:1] + [o for o in known[part] if o["label"] not in labels] + new[part][1:]
    return new | lists | {key: known[key] | new[key] for key in ("tried", "chosen")}


def _run(context: Context) -> None:
    o, path = context.options, context.out / WORDS
    for name in o.models:
        sizes, candidates = context.pick("validation", "test"), settings(o.families, o.blocks)
        about = trained(name)
        keys = about["name"], str(about["seed"])
        known = json.loads(path.read_text()).get(keys[0], {}).get(keys[1]) if path.exists() else None
        test = not o.validate_only
        for record in study(name, context.device, sizes, candidates, known, context.deadline, test):
            body = records.packed(record)
            check(about["name"], body, RECORD)
            context.write(body, WORDS, *keys, join=merged)
        if test:
            print("\n".join(page.study_lines(keys[0], records.study(path)[keys[0]])), flush=True)


RECORD = PUZZLES | {
    "training": {"name": str, "seed": int, "steps": int}, "weights": str,
    "test": [OUTCOME | {"right": str, "texts": [str]}],
}  # fmt: skip
STUDY = Study(
    "soar-words",
    "Word problems: settings of every family chosen on validation problems, tested once on others.",
    {"words": Stage(_run, "a record per model, of one training each")},
    {
        "models": Option(("lab/gsm", "lab/gsm-early"), "names, or folders of labkit train dlm"),
        "validation": Option(256, "problems to choose on", tiny=2),
        "test": Option(2048, "problems to test on", tiny=2),
        "families": Option(FAMILIES, "greedy and what to compare with it", choices=FAMILIES),
        "blocks": Option(BLOCKS, "lengths of blocks"),
        "validate_only": Option(False, "leave the test to a later call", kind=bool),
    },
)
