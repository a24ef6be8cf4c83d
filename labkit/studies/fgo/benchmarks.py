"""Benchmarks of worked answers by name: where the hub has them, how they are asked and judged."""

from dataclasses import dataclass
from pathlib import Path

from labkit import checks
from labkit.fgo.rewards import BUILT_IN, load_rows
from labkit.rows import Rows, columns_of, read_rows

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
QUESTIONS = ("prompt", "question", "problem")  # columns that hold one, in files
ANSWERS = ("answer", "solution")


@dataclass(frozen=True)
class Benchmark:
    """A data set on the hub with its columns, and the reward that judges its answers."""

    hub: str
    split: str = "test"
    question: str = "problem"
    answer: str = "answer"
    config: str | None = None
    reward: str = "math"
    title: str = ""


BENCHMARKS = {
    "gsm8k": Benchmark("openai/gsm8k", question="question", config="main", reward="answer", title="GSM8K"),
    "math500": Benchmark("HuggingFaceH4/MATH-500", title="MATH500"),
    "aime24": Benchmark("HuggingFaceH4/aime_2024", split="train", title="AIME24"),
    "amc23": Benchmark("math-ai/amc23", question="question", title="AMC23"),
    "minerva": Benchmark("math-ai/minervamath", question="question", title="Minerva"),
}


def load_benchmark(name: str, file: str | None = None, count: int | None = None) -> tuple[Rows, str]:
    """(rows with ``prompt`` and ``answer``, the reward that judges them).

    name   of ``BENCHMARKS``, from the hub; a file or folder that ``read_rows`` reads; or a built-in data
           set, drawn with another seed than training's
    file   has the rows of the benchmark ``name`` instead of the hub
    count  only the first so many

    A file's question stands in its column prompt, question or problem, its answer in answer or solution.

    ValueError if neither can be read.
    """
    if count is not None:
        checks.integer("--questions", count, 1)
    known = BENCHMARKS.get(name)
    if name in BUILT_IN:
        return load_rows(name, count or 200, seed=1)
    if known is not None and file is None:
        columns = {"prompt": known.question, "answer": known.answer}
        rows = read_rows(known.hub, config=known.config, split=known.split, **columns)
    elif known is None and not Path(file or name).exists():
        checks.fail("--bench", name, f"one of {', '.join([*BENCHMARKS, *BUILT_IN])}, or a file that exists")
    else:
        rows = _from_file(file or name)
    return rows[:count], known.reward if known else "answer"


def _from_file(path: str) -> Rows:
    has = columns_of(path)
    prompt = next((name for name in QUESTIONS if name in has), QUESTIONS[0])
    answer = next((name for name in ANSWERS if name in has), ANSWERS[0])
    return read_rows(path, prompt=prompt, answer=answer)
