"""Chain sums with their working, as text for a masked diffusion LM: `27+15+30=27+15=42;42+30=72;A72`.

A text has LENGTH characters: the question, right-justified in QUESTION of them, then the working, the
answer behind an A, and full stops to the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from labkit import checks
from labkit.soar.models.transformer import MaskedLM, check_shape

ALPHABET = "_ 0123456789+=;A."  # token ids; _ is the mask, . fills up behind the answer
QUESTION, LENGTH = 9, 32
TERMS, LARGEST = 3, 30
ROOM = 49  # of terms up to it the working fits a text


def sums(
    count: int, *, seed: int = 0, test: bool = False, terms: tuple[int, int] = (1, LARGEST)
) -> list[str]:
    """``count`` texts of LENGTH characters, three terms each.

    test   False: sums to train on; True: sums that no training text asks for (one in eight of all)
    terms  the smallest and the largest that are drawn, at most ROOM; lab/sums knows those up to LARGEST

    ValueError names the argument that is out of range.
    """
    checks.integer("count", count, 1)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    checks.choice("test", test, (True, False))
    least, most = terms
    checks.integer("terms", most, checks.integer("terms", least, 1, ROOM), ROOM)
    made = np.zeros((0, TERMS), int)
    while len(made) < count:
        drawn = rng.integers(least, most + 1, size=(16 * count if test else 2 * count, TERMS))
        held = (drawn * [7919, 104729, 1299709]).sum(1) // 97 % 8 == 0
        made = np.concatenate([made, drawn[held == test]])
    return [_text(terms) for terms in made[:count].tolist()]


def _text(terms: Sequence[int]) -> str:
    question = "+".join(map(str, terms)) + "="
    total, working = terms[0], ""
    for term in terms[1:]:
        working += f"{total}+{term}={total + term};"
        total += term
    return (question.rjust(QUESTION) + f"{working}A{total}").ljust(LENGTH, ".")


def encode(texts: Sequence[str]) -> torch.Tensor:
    """Long (N, L) token ids of texts of one length. ValueError names a character that is not known."""
    unknown = set("".join(texts)) - set(ALPHABET)
    if unknown or len({len(text) for text in texts}) != 1:
        checks.fail(
            "texts", sorted(unknown) or "texts of several lengths", f"of one length, of {ALPHABET!r}"
        )
    return torch.tensor([[ALPHABET.index(letter) for letter in text] for text in texts])


def text_of(tokens: Sequence[int]) -> str:
    """The text of token ids, spaces in front left out."""
    return "".join(ALPHABET[token] for token in tokens).lstrip(" ")


def question(*terms: int) -> torch.Tensor:
    """Long (1, QUESTION) prompt that asks for a sum of three numbers from 1 to LARGEST."""
    if len(terms) != TERMS:
        checks.fail("terms", terms, f"{TERMS} numbers")
    for term in terms:
        checks.integer("terms", term, 1, LARGEST)
    return encode([_text(terms)])[:, :QUESTION]


def right(sequences: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Bool (N,): whose answer, what stands behind the A, is right. The working may be wrong."""
    found = [_answer(text_of(row)) for row in np.asarray(sequences).tolist()]
    return np.array([one == _answer(text) for one, text in zip(found, texts, strict=True)])


def _answer(text: str) -> str:
    return text.partition("A")[2].rstrip(".")


class SumsTokenizer:
    """Reads 12+30+5 and writes the working: what ``generate`` calls of a transformers tokenizer."""

    chat_template = None
    gen_length = LENGTH - QUESTION  # a SumsLM has no other

    def __call__(self, text: str) -> dict[str, list[int]]:
        """The prompt of one question. ValueError unless it is a sum of TERMS numbers the model knows."""
        terms = text.strip().removesuffix("=").split("+")
        if len(terms) != TERMS or not all(term.strip().isdecimal() for term in terms):
            checks.fail("question", text, f"{TERMS} numbers from 1 to {LARGEST} like 12+30+5")
        return {"input_ids": question(*map(int, terms))[0].tolist()}

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        return text_of(tokens)

    def get_added_vocab(self) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class SumsConfig:
    """Shape of a SumsLM; ``width`` is a multiple of ``heads``."""

    width: int = 96
    layers: int = 4
    heads: int = 4

    def __post_init__(self):
        check_shape(self)


class SumsLM(MaskedLM):
    """Characters (B, LENGTH) -> logits (B, LENGTH, 17): the lab's text diffusion LM."""

    Config = SumsConfig
    eos_id = ALPHABET.index(".")
    tokenizer = SumsTokenizer()

    def __init__(self, config: SumsConfig):
        super().__init__(config)
        self.letter = nn.Embedding(len(ALPHABET), config.width)
        self.place = nn.Parameter(0.3 * torch.randn(LENGTH, config.width))
        self._body(len(ALPHABET), LENGTH)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.letter(tokens) + self.place
