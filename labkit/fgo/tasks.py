"""A verifiable task with genuine errors: verbose sums, their character tokenizer and their reward.

    prompt      Q8+4+5=
    completion  8+4=12;c4+8=12;12+5=17;A17$

Each step adds one digit; a step slips now and then; ``c`` lines check a step, often repair a slip and
otherwise copy it. Checks cost tokens and buy accuracy, which is the trade FGO is about. ``$`` ends.

Any other task works with the trainer too: rows with ``prompt`` and ``answer``, and a reward function.
"""

import random
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any
from zlib import crc32

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from labkit import checks

END, PAD = "$", "_"
CHARACTERS = PAD + END + "?0123456789+=;cAQ"
_ANSWER = re.compile(r"A(\d+)\$?")
SPLITS = ("all", "train", "test")


def char_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character of the task (19 in all); pads on the left, ``$`` ends, ``?`` is unknown."""
    model = models.WordLevel({char: i for i, char in enumerate(CHARACTERS)}, unk_token="?")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token="?", padding_side="left"
    )


def verbose_sums(count: int, **task: Any) -> list[dict[str, str]]:
    """The first ``count`` rows of ``stream_sums(**task)``."""
    checks.integer("count", count, 1)
    return list(islice(stream_sums(**task), count))


def stream_sums(
    *,
    seed: int = 0,
    operands: tuple[int, int] = (2, 3),
    digits: int = 1,
    slip: float = 0.2,
    repair: float = 0.8,
    split: str = "all",
) -> Iterator[dict[str, str]]:
    """Rows of {"prompt", "answer", "completion"} without an end; the completion is one worked solution.

    operands  least and greatest number of numbers to add
    digits    digits of the largest number: each lies between 1 and 10 ** digits - 1
    slip      probability that a step writes a result off by 1 or 2
    repair    probability that a check of a wrong result puts it right
    split     "train" or "test": questions that the other never asks (told apart by a hash of the prompt)
    """
    if not isinstance(operands, (tuple, list)) or len(operands) != 2:
        checks.fail("operands", operands, "two integers, the least and the greatest number of operands")
    checks.integer("operands", operands[0], 2)
    checks.integer("operands", operands[1], operands[0])
    checks.integer("digits", digits, 1, 6)
    checks.number("slip", slip, 0, 1)
    checks.number("repair", repair, 0, 1)
    checks.choice("split", split, SPLITS)
    return _stream(random.Random(seed), (operands[0], operands[1]), 10**digits - 1, slip, repair, split)


def _stream(
    rng: random.Random, operands: tuple[int, int], largest: int, slip: float, repair: float, split: str
) -> Iterator[dict[str, str]]:
    while True:  # apart from its caller, whose checks run at the call and not at the first row
        numbers = [rng.randint(1, largest) for _ in range(rng.randint(*operands))]
        prompt = f"Q{'+'.join(map(str, numbers))}="
        in_test = crc32(prompt.encode()) % 8 == 0
        if split == "all" or in_test == (split == "test"):
            worked = _worked(numbers, rng, slip, repair)
            yield {"prompt": prompt, "answer": str(sum(numbers)), "completion": worked}


def _worked(numbers: list[int], rng: random.Random, slip: float, repair: float) -> str:
    total, lines = numbers[0], []
    for number in numbers[1:]:
        truth = value = total + number
        if rng.random() < slip:
            value += rng.choice((-2, -1, 1, 2))  # both are at least 1: the result stays >= 0
        lines.append(f"{total}+{number}={value};")
        for _ in range(rng.randint(0, 3)):
            if value != truth and rng.random() < repair:
                value = truth
            lines.append(f"c{number}+{total}={value};")
        total = value
    return "".join(lines) + f"A{total}{END}"


def is_correct(completion: str, answer: str) -> bool:
    """True if the completion ends with ``A<answer>`` (with or without ``$``) and claims it only once."""
    claims = _ANSWER.findall(completion)
    return claims == [answer] and completion.removesuffix(END).endswith(f"A{answer}")


def sum_reward(completions: list[str], answer: list[str], **_columns: object) -> list[float]:
    """TRL reward function: +1 for a right final answer, else -1 (no answer is a wrong answer)."""
    pairs = zip(completions, answer, strict=True)
    return [1.0 if is_correct(completion, right) else -1.0 for completion, right in pairs]
