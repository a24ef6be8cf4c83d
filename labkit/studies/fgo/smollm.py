"""A public model: SmolLM2-135M taught GSM-Symbolic's solutions, then GRPO, FGO, a length penalty.

    python -m labkit.studies.soar.gsm_data DIR --each 400 --text 400             makes DIR/train.jsonl
    python -m labkit.studies fgo-smollm --stages sft exam transfer --data DIR/train.jsonl ...
    python -m labkit.studies fgo-smollm --stages arms exam transfer --arm FGO --seed 0 ...

The first lesson stops at the first exam with ``target`` of the sampled answers right. Then one call trains
one arm with one seed; calls may share --out and run side by side, one a card or several. A call that
--seconds ended is gone on with by the same command, exactly. Exams ask held-out numbers of the taught
templates (test), templates that were never taught (templates-test), and other people's problems (GSM8K
without the stories of the templates, SVAMP). All arms of a seed are asked the same; seeds from
VALIDATION on choose settings and are no results.

Writes smollm.json (see smollm_claims) and smollm/RUN.npz, a TrainTrace; weights stay in --out/state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import checks
from labkit.fgo.rewards import answer_reward
from labkit.fgo.smollm import NAME
from labkit.provenance import provenance
from labkit.studies.fgo import bench
from labkit.studies.fgo import word_problems as words
from labkit.studies.fgo.records import SMOLLM
from labkit.studies.fgo.run_records import once
from labkit.studies.fgo.smollm_lab import CHOICES, FIRST, Lab, Training, draw, lesson, passed, reinforce
from labkit.studies.files import digest
from labkit.studies.harness import Context, Option, Stage, Study
from labkit.studies.soar.gsm_problems import Problem
from labkit.studies.state import load_weights
from labkit.traces import TrainTrace

PARTS = ("test", "templates-test")
HOW = {"greedy": True, "sampled": False}
SIZES = ("model", "exam_every", "exam_problems", "max_tokens")
SFT = (*SIZES, "sft_steps", "sft_batch", "sft_rate", "target")
ARM = (*SIZES, "arm", "seed", "rate", "steps", "questions", "group")


def _sft(context: Context) -> dict[str, Any]:
    lab: Lab = context.prepared
    run = lesson(context, lab)
    _trace(context, run, FIRST)
    exams = [entry["accuracy"] for entry in run.log if "accuracy" in entry]
    return {"step": run.step, "seconds": run.seconds, "accuracy": float(exams[-1]) if exams else None,
            "passed": passed(run, context.options.target), "target": context.options.target,
            "batch": context.options.sft_batch, "rate": context.options.sft_rate}  # fmt: skip


def _arms(context: Context) -> None:
    lab, o = context.prepared, context.options
    first = lab.step_of(FIRST)

    def make() -> dict[str, Any] | None:
        run = reinforce(context, lab)
        if run.step < o.steps:
            print(f"{lab.unit}: step {run.step} of {o.steps}, the same command goes on")
            return None
        _trace(context, run, lab.unit)
        return context.pick(*ARM) | {"seconds": run.seconds, "rows": lab.rows}

    inputs = context.pick(*ARM) | {"first": first, "data": digest(Path(o.data))}
    once(context, SMOLLM, ("runs", lab.unit, "training"), inputs, make)


def _trace(context: Context, run: Training, unit: str) -> None:
    log = [{name: float(value) for name, value in entry.items()} for entry in run.log]
    arm, seed = "sft" if unit == FIRST else context.options.arm, context.options.seed
    about = provenance(command=context.command, arm=arm, seed=seed, seconds=run.seconds)
    TrainTrace.from_log(log, meta=about).save(context.out / "smollm" / f"{unit}.npz")


def _exam(context: Context) -> None:
    asked = {part: words.held_out(part, context.options.problems) for part in PARTS}
    _examine(context, "exam", asked)


def _transfer(context: Context) -> None:
    _examine(context, "transfer", context.prepared.transfer)


def _examine(context: Context, stage: str, asked: Mapping[str, list[Problem]]) -> None:
    """Put the problems to the call's run, greedily and sampled."""
    lab: Lab = context.prepared
    step = lab.step_of(lab.unit)
    if lab.unit != FIRST and step < context.options.steps:
        checks.fail("--stages", f"{stage} at step {step}", f"arms until step {context.options.steps}")

    def make() -> dict[str, Any]:
        load_weights(lab.fleet, lab.state / lab.unit)
        sampler = lab.sampler(*asked.values())
        return {
            name: {how: words.examine(sampler, lab.tokenizer, problems, greedy=greedy, seed=11)
                   for how, greedy in HOW.items()}
            for name, problems in asked.items()
        }  # fmt: skip

    questions = digest([[problem.question for problem in own] for own in asked.values()])
    inputs = context.pick("max_tokens", "model") | {"step": step, "questions": questions}
    once(context, SMOLLM, ("runs", lab.unit, stage), inputs, make)


def _speed(context: Context) -> dict[str, Any]:
    """The lab's sampler beside transformers' generate and TRL's, of the first model."""
    lab, o = context.prepared, context.options
    load_weights(lab.fleet, lab.state / FIRST)
    weights = {name: value[0] for name, value in lab.fleet.state_dict().items()}
    model: Any = lab.model
    model.load_state_dict(weights, strict=False)  # the head is the embedding
    asked = draw(lab.validation, o.questions, 5)
    rows = [{"prompt": problem.question + words.ASK, "answer": problem.answer} for problem in asked]
    return bench.bench(
        model.to(context.device), rows, lab.tokenizer, answer_reward, device=context.device,
        **context.pick(*bench.SIZES),
    )  # fmt: skip


STUDY = Study(
    "fgo-smollm",
    "A public model: SmolLM2-135M taught word problems, then GRPO, FGO, a length penalty; transfer.",
    {
        "sft": Stage(
            _sft, "solutions, until the exam is passed", SMOLLM, "sft", {"step": int, "passed": bool},
            lambda c: c.pick(*SFT) | {"data": digest(Path(c.options.data))},
            lambda found: f"step {found['step']}, {'' if found['passed'] else 'not '}passed",
        ),
        "arms": Stage(_arms, "one arm with one seed, from what sft made"),
        "exam": Stage(_exam, "that run (without --arm: what sft made) on held-out problems"),
        "transfer": Stage(_transfer, "the same on GSM8K and SVAMP"),
        "speed": Stage(
            _speed, "tokens per second beside transformers and TRL", SMOLLM, "speed",
            {"ways": {str: bench.ROW}}, lambda c: c.pick("model", "questions", *bench.SIZES),
            bench.show,
        ),
    },
    {
        "model": Option(NAME, "or a folder of a Llama or Qwen2 with its tokenizer"),
        "data": Option(None, "file of labkit.studies.soar.gsm_data --text", kind=str),
        "gsm8k": Option(None, "file of GSM8K's test set", kind=str),
        "svamp": Option(None, "file of SVAMP", kind=str),
        "arm": Option(None, "to train or examine", kind=str, choices=(None, *CHOICES)),
        "seed": Option(0, "of the arm; from 1000 on of a choice of settings", least=0),
        "rate": Option(2e-5, "learning rate of the arm", least=0),
        "steps": Option(100, "of the arm", tiny=4),
        "questions": Option(32, "a step", tiny=2),
        "group": Option(8, "responses to a question", tiny=4, least=2),
        "chunk": Option(16, "rows of a step that are computed at once", tiny=3),
        "max_tokens": Option(192, "of a response", tiny=8),
        "target": Option(0.5, "sampled accuracy at which sft ends", tiny=0.0, least=0),
        "sft_steps": Option(1500, "of sft at most", tiny=4),
        "sft_batch": Option(64, "solutions a step of sft", tiny=4),
        "sft_rate": Option(1e-4, "learning rate of sft", least=0),
        "exam_every": Option(25, "steps between exams on validation problems", tiny=2),
        "exam_problems": Option(256, "of such an exam", tiny=8),
        "problems": Option(1000, "at most, of each part of exam", tiny=6),
        "rounds": Option(2, "timed rounds of speed", tiny=1),
    },
    default=("sft", "exam"),
    prepare=Lab,
)  # fmt: skip
