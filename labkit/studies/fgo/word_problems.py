"""Word problems for a language model of the lab's sampler: what is taught, what is asked, what comes back.

read_pools      training problems of ``studies.soar.gsm_data --text``: to teach, and others to reinforce
read_gsm8k      GSM8K's test problems without the stories that GSM-Symbolic's templates retell
read_svamp      SVAMP's
asked, worked   problems as prompts, and as prompts with their solutions, in tokens
answers         the texts of responses
examine         how a fleet's first copy answers problems
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from labkit import checks
from labkit.fgo.lab.sampler import Responses, Sampler
from labkit.fgo.measures import summarise
from labkit.rows import read_rows
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar.gsm_problems import Problem

ASK = "\nAnswer:"  # behind every question; a solution begins with a blank
SHARED = 0.45  # of the lower-case words of two stories: above, one retells the other
SHOWN = 3  # problems of a template that stand for it
ELSEWHERE = -1  # the template of a problem that has none
_WORD = re.compile(r"[A-Za-z]+")


def read_pools(file: str) -> tuple[list[Problem], list[Problem]]:
    """(problems to teach with their solutions, problems to ask): every other row of the file.

    ValueError for a row whose answer does not end on ``#### number``.
    """
    rows, found = read_rows(file), []
    for number, row in enumerate(rows, 1):
        answer = gsm.final_number(row["answer"])
        if answer is None:
            checks.fail(f"answer in row {number} of {file}", row["answer"], "a solution with #### number")
        found.append(Problem(ELSEWHERE, row["prompt"], row["answer"], str(answer)))
    if len(found) < 2:
        checks.fail("--data", file, "a file with at least two problems")
    return found[::2], found[1::2]


def held_out(part: str, count: int) -> list[Problem]:
    """The first ``count`` shipped problems of a part, or all if there are fewer."""
    return gsm.load_problems(part)[:count]


def read_gsm8k(file: str) -> list[Problem]:
    """GSM8K's test set: its file has ``question`` and ``answer``; without shared stories."""
    rows = read_rows(file, prompt="question")
    found = [(row["prompt"], gsm.final_number(row["answer"])) for row in rows]
    problems = [Problem(ELSEWHERE, question, "", str(answer)) for question, answer in found]
    if any(answer is None for _, answer in found):
        checks.fail("--gsm8k", file, "a file whose answers end on #### number")
    shipped = sorted((p for part in gsm.PARTS[1:] for p in gsm.load_problems(part)), key=_template)
    told = (list(own)[:SHOWN] for _, own in groupby(shipped, key=_template))
    return without_shared(problems, [problem for own in told for problem in own])


def read_svamp(file: str) -> list[Problem]:
    """SVAMP: its file has ``Body``, ``Question`` and ``Answer``, a number."""
    found = []
    for number, row in enumerate(read_rows(file, prompt="Question", answer="Answer"), 1):
        if not isinstance(body := row.get("Body"), str) or not re.fullmatch(r"-?[\d.]+", row["answer"]):
            checks.fail(f"row {number} of --svamp {file}", row, "one with a Body and a number as Answer")
        story = body.strip() if body.strip().endswith((".", "!", "?")) else f"{body.strip()}."
        found.append(Problem(ELSEWHERE, f"{story} {row['prompt'].strip()}", "", row["answer"]))
    return found


def without_shared(problems: Sequence[Problem], known: Sequence[Problem]) -> list[Problem]:
    """Those that tell another story than every problem of ``known``, whatever the names and numbers.

    Measured on GSM8K's test set: its question nearest to a template's problems has an overlap (shared words
    of all words of both) of 0.47 at least, the one after that of 0.62 at most, mostly below 0.4.
    """
    stories = [_words(problem) for problem in known]
    return [p for p in problems if all(_overlap(_words(p), story) < SHARED for story in stories)]


def _template(problem: Problem) -> int:
    return problem.template


def _words(problem: Problem) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(problem.question) if word[0].islower())


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def asked(tokenizer: Any, problems: Sequence[Problem], pad: int) -> tuple[Tensor, Tensor]:
    """(ids, length) of the prompts: int (n, width) padded on the right, and (n,)."""
    return _padded(_ids(tokenizer, [problem.question + ASK for problem in problems]), pad)


def worked(tokenizer: Any, problems: Sequence[Problem], pad: int) -> tuple[Tensor, Tensor]:
    """(ids, mask): prompts with solutions and the end token, and where the latter two stand, (n, width)."""
    prompts = _ids(tokenizer, [problem.question + ASK for problem in problems])
    solutions = _ids(tokenizer, [f" {problem.solution}" for problem in problems])
    rows = [a + b + [tokenizer.eos_token_id] for a, b in zip(prompts, solutions, strict=True)]
    ids, length = _padded(rows, pad)
    start = torch.tensor([len(prompt) for prompt in prompts])[:, None]
    place = torch.arange(ids.shape[1])
    return ids, (place >= start) & (place < length[:, None])


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _padded(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=pad), torch.tensor(list(map(len, rows)))


def answers(tokenizer: Any, responses: Responses) -> list[str]:
    """The texts of the first copy's responses."""
    ids, mask = responses.ids[0].cpu(), responses.mask[0].cpu()
    return [
        tokenizer.decode(row[kept], skip_special_tokens=True) for row, kept in zip(ids, mask, strict=True)
    ]


def examine(
    sampler: Sampler, tokenizer: Any, problems: Sequence[Problem], *, greedy: bool, seed: int = 0
) -> dict[str, Any]:
    """One answer to each problem: ``summarise``'s means, ``questions``, ``cut`` (share without an end), and
    ``right``, a digit 1 or 0 a problem.

    seed  of the draws
    """
    fleet, parts = sampler.fleet, []
    for start in range(0, len(problems), sampler.rows):
        part = problems[start : start + sampler.rows]
        rows = [*part, *[part[-1]] * (sampler.rows - len(part))]  # the buffers have so many rows
        ids, length = (t[None].to(fleet.device) for t in asked(tokenizer, rows, fleet.config.pad_token_id))
        found = sampler(ids, length, greedy=greedy, seed=seed + start)
        ended = (found.ids == fleet.config.eos_token_id) & found.mask
        columns = {
            "correct": torch.from_numpy(gsm.right(answers(tokenizer, found), rows)),
            "length": found.length[0], "sampled": found.entropies["sampled_sum"][0].double(),
            "full": found.entropies["full_sum"][0].double(), "cut": ~ended.any(2)[0],
        }  # fmt: skip
        parts.append({name: value.cpu().numpy()[: len(part)] for name, value in columns.items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    cut = float(whole.pop("cut").mean())
    right = "".join(map(str, whole["correct"].astype(int)))
    means = summarise(**{name: values[:, None] for name, values in whole.items()})
    return {**means, "questions": len(problems), "cut": cut, "right": right}
