"""Word problems with worked solutions: GSM-Symbolic's templates, numbers drawn anew by reasoning-gym.

problems       of one template, drawn from seeds (extra ``tasks``)
part_of        which part a problem belongs to: PARTS
load_problems  the held-out ones that come with the lab
right          whose text ends on the right number

Problems of one template with the same numbers are in one part, so a held-out problem never differs from a
training problem by a name alone. The problems of HELD_OUT_TEMPLATES are not trained on at all.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from labkit import checks
from labkit.paths import CHECKPOINTS

SHIPPED = CHECKPOINTS / "gsm_problems.jsonl.gz"
PARTS = ("train", "validation", "test", "templates-validation", "templates-test")
HELD_OUT_TEMPLATES = (4, 12, 20, 28, 39, 47, 55, 75, 88, 99)
HELD_OUT_PERCENT = {"validation": 2, "test": 3}  # of the number tuples of every other template
SUFFIX = " Give the result as your final answer. Do not include units."  # reasoning-gym's, not the task's
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FINAL = re.compile(r"####\s*\$?(-?(?:[\d,]*\.)?\d[\d,]*)")
_TOO_PRECISE = re.compile(r"\d\.\d{5}")  # 9.499999999999998: a float that the template did not round


@dataclass(frozen=True)
class Problem:
    """One word problem; ``solution`` is worked out in words and ends on ``#### answer``."""

    template: int
    question: str
    solution: str
    answer: str


def templates() -> list[int]:
    """Numbers of the templates that reasoning-gym calls sound."""
    return list(_gsm_symbolic().tasks_ok)


def problems(template: int, seeds: Iterable[int]) -> Iterator[Problem]:
    """The problem of ``template`` for each seed, without those whose numbers are not written out."""
    checks.choice("template", template, tuple(templates()))
    make = _generators()[template]
    for seed in seeds:
        made = make(Random(seed), 1.0)
        question = made["question"].removesuffix(SUFFIX).strip()
        solution = made["metadata"]["answer_cot"].strip()
        if not _TOO_PRECISE.search(question + solution):
            yield Problem(template, question, solution, made["answer"])


def part_of(problem: Problem) -> str:
    """One of PARTS, decided by the template and the numbers in the question."""
    numbers = " ".join(_NUMBER.findall(problem.question))
    digest = hashlib.sha256(f"{problem.template}: {numbers}".encode()).digest()
    percent = int.from_bytes(digest[:8]) % 100
    if problem.template in HELD_OUT_TEMPLATES:
        return "templates-validation" if percent < 20 else "templates-test"
    if percent < HELD_OUT_PERCENT["validation"]:
        return "validation"
    return "test" if percent < sum(HELD_OUT_PERCENT.values()) else "train"


def load_problems(part: str, count: int | None = None) -> list[Problem]:
    """The shipped problems of a held-out part, in a fixed random order, or its first ``count``.

    ValueError if there are fewer than ``count``.
    """
    found = read_problems(SHIPPED)[checks.choice("part", part, PARTS[1:])]
    return found[: checks.integer("count", len(found) if count is None else count, 1, len(found))]


def final_number(text: str) -> Decimal | None:
    """The number behind the first ####; None if there is none."""
    match = _FINAL.search(text)
    return Decimal(match[1].replace(",", "")) if match else None


def right(texts: Sequence[str], asked: Sequence[Problem]) -> np.ndarray:
    """Bool (N,): whose final number is the answer. The working is not looked at."""
    wanted = (Decimal(problem.answer.replace(",", "")) for problem in asked)
    return np.array(
        [final_number(text) == answer for text, answer in zip(texts, wanted, strict=True)], bool
    )


def write_problems(parts: dict[str, list[Problem]]) -> bytes:
    """The bytes of a file of held-out problems: gzipped JSON lines."""
    lines = (json.dumps({"part": part, **vars(problem)}) for part in parts for problem in parts[part])
    return gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0)


@cache
def read_problems(file: Path) -> dict[str, list[Problem]]:
    """The held-out problems in a file of ``write_problems`` by part."""
    parts: dict[str, list[Problem]] = {part: [] for part in PARTS[1:]}
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        row = json.loads(line)
        parts[row.pop("part")].append(Problem(**row))
    return parts


def _gsm_symbolic() -> Any:
    try:
        return import_module("reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic")
    except ImportError as error:
        raise ImportError("word problems are made by reasoning-gym: pip install 'labkit[tasks]'") from error


@cache
def _generators() -> dict[int, Any]:
    module = _gsm_symbolic()
    return module.GSMSymbolicDataset(module.GSMSymbolicDatasetConfig(size=1, seed=0)).generators
