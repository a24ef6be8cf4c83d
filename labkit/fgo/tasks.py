"""A verifiable task with genuine errors: verbose sums, their character tokenizer and their reward.

    prompt      Q8+4+5=
    completion  8+4=12;c4+8=12;12+5=17;A17$

Each step adds one digit; a step slips now and then; ``c`` lines check a step, often repair a slip and
otherwise copy it. Checks cost tokens and buy accuracy, which is the trade FGO is about. ``$`` ends.

Any other task works with the trainer too: rows with ``prompt`` and ``answer``, and a reward function.
"""

import random
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from labkit import checks

END, PAD = "$", "_"
CHARACTERS = PAD + END + "?0123456789+=;cAQ"
_ANSWER = re.compile(r"A(\d+)\$?")


def char_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character of the task (19 in all); pads on the left, ``$`` ends, ``?`` is unknown."""
    model = models.WordLevel({char: i for i, char in enumerate(CHARACTERS)}, unk_token="?")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token="?", padding_side="left"
    )


def verbose_sums(
    count: int,
    *,
    seed: int = 0,
    operands: tuple[int, int] = (2, 3),
    slip: float = 0.2,
    repair: float = 0.8,
) -> list[dict[str, str]]:
    """``count`` rows of {"prompt", "answer", "completion"}; the completion is one worked solution.

    operands  least and greatest number of digits to add, each digit 1 to 9
    slip      probability that a step writes a result off by 1 or 2
    repair    probability that a check of a wrong result puts it right
    """
    checks.integer("count", count, 1)
    low, high = operands
    checks.integer("operands", low, 2, high)
    checks.number("slip", slip, 0, 1)
    checks.number("repair", repair, 0, 1)
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        digits = [rng.randint(1, 9) for _ in range(rng.randint(low, high))]
        rows.append({
            "prompt": f"Q{'+'.join(map(str, digits))}=",
            "answer": str(sum(digits)),
            "completion": _worked(digits, rng, slip, repair),
        })  # fmt: skip
    return rows


def _worked(digits: list[int], rng: random.Random, slip: float, repair: float) -> str:
    total, lines = digits[0], []
    for digit in digits[1:]:
        truth = value = total + digit
        if rng.random() < slip:
            value += rng.choice((-2, -1, 1, 2))  # two digits of at least 1: the result stays >= 0
        lines.append(f"{total}+{digit}={value};")
        for _ in range(rng.randint(0, 3)):
            if value != truth and rng.random() < repair:
                value = truth
            lines.append(f"c{digit}+{total}={value};")
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
