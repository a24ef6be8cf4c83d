"""Rewards that can be checked, and the data they check: files, reasoning-gym, the lab's own sums.

    +1 for a right final answer, -1 for a wrong one, None (takes no part) where the answer cannot be read

answer_reward  the final answer equals ``answer``, as a number, tuple or text (answers)
math_reward    LaTeX answers, judged equal by math-verify
gym_reward     reasoning-gym's own scorer
sum_reward     (in tasks) the lab's verbose sums
find_reward    one of these by name, or the user's own by module:function
load_rows      a file or a name -> rows with ``prompt`` and ``answer``
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from labkit import checks
from labkit.fgo.answers import Completion, final_answer, stated, text_of
from labkit.fgo.math_judge import MathJudge
from labkit.fgo.tasks import sum_reward, verbose_sums
from labkit.fgo.values import same_answer
from labkit.rows import read_rows

GYM = ("chain_sum", "gsm_symbolic")
BUILT_IN = ("lab/verbose-sums", *(f"gym/{name}" for name in GYM))
HINT = "\nThink step by step, then give the final answer as <answer>...</answer>."


def answer_reward(
    completions: list[Completion], answer: list[str], **_columns: object
) -> list[float | None]:
    """TRL reward function: +1 if the completion's final answer is that of ``answer``, else -1.

    answer  the answer, or a solution that marks it as a completion would (GSM8K: ``#### 72``); None where
            it is None or blank. What is equal: ``labkit.fgo.answers.same_answer``.
    """
    return _judged(
        lambda right, text: same_answer(final_answer(text), right) or same_answer(text, right),
        completions, answer,
    )  # fmt: skip


def math_reward(completions: list[Completion], answer: list[str], **_columns: object) -> list[float | None]:
    """TRL reward function: math-verify finds ``answer`` (LaTeX or plain) in the completion.

    answer  as in ``answer_reward``; None where it cannot be read. A completion that takes more than five
            seconds is wrong. ImportError says how to install math-verify.
    """
    _library("math_verify")
    return _judged(_math_judge(), completions, answer)


_math_judge = cache(MathJudge)  # one process for all calls


def _judged(
    judge: Callable[[str, str], bool | None], completions: list[Completion], answer: list[str]
) -> list[float | None]:
    """+1 or -1 as ``judge(right answer, text)`` says; None where it does, or there is no right answer."""
    rewards: list[float | None] = []
    for completion, column in zip(completions, answer, strict=True):
        text = "" if column is None else str(column).strip()
        right = stated(text) or text
        verdict = judge(right, text_of(completion)) if right else None
        rewards.append(None if verdict is None else 1.0 if verdict else -1.0)
    return rewards


def gym_reward(
    completions: list[Completion], gym_task: list[str], gym_entry: list[str], **_columns: object
) -> list[float]:
    """TRL reward function: +1 where reasoning-gym scores ``final_answer`` with 1, else -1.

    gym_task, gym_entry  columns of ``gym_rows``: the data set's name and its entry as JSON
    """
    scorers = {name: _library("reasoning_gym").create_dataset(name, size=1) for name in set(gym_task)}
    rows = zip(completions, gym_task, gym_entry, strict=True)
    return [
        1.0 if scorers[name].score_answer(final_answer(text), json.loads(entry)) == 1.0 else -1.0
        for text, name, entry in rows
    ]


def gym_rows(name: str, count: int, *, seed: int = 0, **settings: Any) -> list[dict[str, str]]:
    """``count`` rows of a reasoning-gym data set: prompt, answer, gym_task, gym_entry.

    name      "chain_sum" or "gsm_symbolic"
    settings  the data set's own, for instance min_terms
    """
    checks.choice("name", name, GYM)
    checks.integer("count", count, 1)
    made = _library("reasoning_gym").create_dataset(name, size=count, seed=seed, **settings)
    return [
        {"prompt": entry["question"] + HINT, "answer": str(entry["answer"]), "gym_task": name,
         "gym_entry": json.dumps(entry)}
        for entry in made
    ]  # fmt: skip


REWARDS: dict[str, Callable[..., Any]] = {
    "answer": answer_reward, "math": math_reward, "gym": gym_reward, "sums": sum_reward,
}  # fmt: skip


def find_reward(name: str) -> Callable[..., Any]:
    """The reward of ``REWARDS`` with this name, or ``module:function`` of the user's own.

    The module is installed or lies in the current folder.

    ValueError if there is none.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, _, function = name.partition(":")
    try:
        if not function:
            raise ValueError("no such name")
        if str(Path.cwd()) not in sys.path:  # a console script's path begins at its own folder
            sys.path.insert(0, str(Path.cwd()))
        found = getattr(import_module(module), function)
        if not callable(found):
            raise TypeError(f"{function} is no function")
    except Exception as error:  # whatever the user's module raises when it is imported
        allowed = f"one of {', '.join(REWARDS)}, or module:function"
        reason = " ".join(str(error).split())
        raise ValueError(f"--reward must be {allowed}; {name}: {reason}") from error
    return found


def load_rows(
    name: str, count: int = 2000, seed: int = 0, **columns: Any
) -> tuple[list[dict[str, Any]], str]:
    """(rows, the reward that suits them) of a built-in data set or of anything that ``read_rows`` reads.

    count, seed  of a built-in set; others are read whole
    columns      of ``read_rows``

    ValueError if the file cannot be read or a row lacks ``prompt`` or ``answer``.
    """
    if name == "lab/verbose-sums":
        rows = verbose_sums(count, seed=seed)
        return [{key: row[key] for key in ("prompt", "answer")} for row in rows], "sums"
    if name.startswith("gym/") and name in BUILT_IN:
        return gym_rows(name.removeprefix("gym/"), count, seed=seed), "gym"
    return read_rows(name, BUILT_IN, **columns), "answer"


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise ImportError(f"{package} is not installed ({error}): pip install 'labkit[tasks]'") from error
