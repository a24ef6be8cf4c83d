"""labkit eval: a causal LM on a benchmark: accuracy, length, ACT, the paper's figures beside.

Intervals are 95 %, over questions: they say how the model would do on other questions like these, not how
another training run would.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit import checks, device
from labkit.fgo.policy import load_policy
from labkit.fgo.rewards import find_reward
from labkit.options import help_field, parse_options
from labkit.paths import runs_dir, write_json
from labkit.provenance import provenance
from labkit.rows import Rows, as_prompts
from labkit.studies import published
from labkit.studies.fgo.benchmarks import BENCHMARKS, BOXED, load_benchmark
from labkit.studies.fgo.responses import Examination, Responses, Sampling, examine, respond

PAPER = {"math500": published.MATH500}  # what the lab has of the paper's tables

# measure: its heading, what it is multiplied by, its format
COLUMNS = {"accuracy": ("accuracy %", 100, ".1f"), "length": ("tokens", 1, ".1f"), "act": ("ACT", 1, ".2f")}


@dataclass(frozen=True)
class Arguments:
    """What is evaluated, beside how it is sampled."""

    model: str = help_field("a folder (labkit train fgo's too), a name on the hub or a lab model")
    bench: str = help_field(f"{', '.join(BENCHMARKS)}, a file of questions and answers, a built-in set")
    file: str | None = help_field("where the benchmark's rows are, instead of the hub", None)
    questions: int | None = help_field("only the first so many", None)
    reward: str | None = help_field("answer, math, ... or module:function (default: the benchmark's)", None)
    instruction: str | None = help_field("behind each question (default: a benchmark's \\boxed one)", None)
    chat: bool | None = help_field("as a user's message (default: if there is a chat template)", None)
    device: str = help_field("auto, cpu, cuda or cuda:N", "auto")
    output: str | None = help_field("a folder (default: runs/eval)", None)


def main(argv: Sequence[str]) -> int:
    """Evaluate, print the table, keep responses and figures; 0. ValueError or OSError for bad input."""
    arguments, sampling = parse_options(
        (Arguments, Sampling), argv, prog="labkit eval", description=__doc__
    )
    rows, suits = load_benchmark(arguments.bench, arguments.file, arguments.questions)
    reward = _reward(arguments.reward or suits)
    folder = Path(arguments.output) if arguments.output else runs_dir() / "eval"
    folder.mkdir(parents=True, exist_ok=True)  # its error comes before hours are spent
    where = device.use(arguments.device)
    model, tokenizer = load_policy(arguments.model, **_settings(arguments.model, where))
    model.to(where)
    asked = _asked(rows, arguments, tokenizer)
    responses = respond(model, tokenizer, asked, sampling)
    _keep_responses(folder, rows, responses, np.full(responses.length.shape, np.nan))  # a reward may fail
    found = examine(asked, responses, reward)
    _keep_responses(folder, rows, responses, found.correct)
    measures = {name: interval._asdict() for name, interval in found.measures.items()}
    about = provenance(settings=asdict(arguments) | asdict(sampling), questions=len(rows))
    write_json(folder / "result.json", {"measures": measures, "truncated": found.truncated, "about": about})
    print(table(arguments.bench, arguments.model, sampling, found))
    print(f"{folder / 'result.json'}, {folder / 'responses.jsonl'}")
    return 0


def _reward(name: str) -> Any:
    try:
        reward = find_reward(name)
        if name == "math":
            reward([], [])  # is its library there?
    except ImportError as error:
        raise ValueError(f"{error}; or --reward answer") from error
    return reward


def _settings(model: str, where: str) -> dict[str, Any]:
    """float32 on the CPU; on a GPU as the file holds it, which is what a finished model is used in."""
    return {"dtype": "auto"} if where == "cuda" and not model.startswith("lab/") else {}


def _asked(rows: Rows, arguments: Arguments, tokenizer: Any) -> Rows:
    """The questions as they are put: conversations as they stand, texts with instruction and template."""
    if not isinstance(rows[0]["prompt"], str):
        return as_prompts(rows, instruction=arguments.instruction, chat=bool(arguments.chat))
    named = arguments.bench in BENCHMARKS
    instruction = BOXED if arguments.instruction is None and named else arguments.instruction
    has = tokenizer.chat_template is not None
    chat = has and not arguments.bench.startswith("lab/") if arguments.chat is None else arguments.chat
    if chat and not has:
        checks.fail("--model", arguments.model, "one with a chat template, or come without --chat")
    return as_prompts(rows, instruction=instruction, chat=chat)


def _keep_responses(folder: Path, rows: Rows, responses: Responses, correct: np.ndarray) -> None:
    """responses.jsonl: every response with its verdict, (Q, G) as Examination has them."""
    lines = [
        json.dumps({"question": row["prompt"], "answer": row["answer"], "text": text,
                    "correct": None if verdict != verdict else bool(verdict), "length": int(length)})
        for row, texts, verdicts, lengths in zip(rows, responses.texts, correct, responses.length,
                                                 strict=True)
        for text, verdict, length in zip(texts, verdicts, lengths, strict=True)
    ]  # fmt: skip
    (folder / "responses.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(bench: str, model: str, sampling: Sampling, found: Examination) -> str:
    """The figures in lines of text, those that the paper prints for the benchmark below."""
    count, samples = found.correct.shape
    how = "greedy" if sampling.temperature == 0 else f"avg@{samples}, temperature {sampling.temperature:g}"
    title = BENCHMARKS[bench].title if bench in BENCHMARKS else bench
    cells = []
    for key, (name, scale, form) in COLUMNS.items():
        middle, low, high = (f"{scale * value:{form}}" for value in found.measures[key])
        cells.append(f"{name} {middle} ({low} to {high})")
    lines = [f"{title}, {count} questions, {how}: {model}", "  " + "   ".join(cells)]
    if found.truncated:
        lines.append(f"  {found.truncated:.0%} of the responses were cut at {sampling.max_tokens} tokens")
    if paper := PAPER.get(bench):
        lines.append("the paper, Qwen2.5-Math-1.5B (arXiv 2602.10048):")
        lines += [f"  {arm:<7} accuracy % {row['accuracy']:.1f}   tokens {row['length']}   ACT {row['act']}"
                  for arm, row in paper.items()]  # fmt: skip
    elif bench in BENCHMARKS:
        lines.append(f"the lab has no figure of the paper for {title}")
    return "\n".join(lines)
