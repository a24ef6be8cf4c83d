"""generate: text in, text out, with the tokenizer and chat template of the checkpoint itself."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, takewhile
from typing import Any

import numpy as np
from jinja2 import TemplateError

from labkit import checks
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.soar.search import decode
from labkit.traces import BeamTrace

Question = str | Sequence[Mapping[str, Any]]  # text, or chat messages
GEN_LENGTH = 128
MASK = "░"  # a mask in a text that is not finished
NEEDED = "decode", "get_added_vocab", "chat_template"  # of a tokenizer
QUESTION = "text, or chat messages [{'role': 'user', 'content': 'text'}, ...]"


@dataclass(frozen=True)
class Generation:
    """What ``generate`` made of one question.

    text           the answer, without what ended it and without special tokens
    finish_reason  "stop": an end-of-text token or a stop string; "length": all of gen_length is text
    trace          the decode of this question; its ``meta`` holds the question, the text, the stop strings
                   and ``token_texts``, by which the beam tree names tokens
    seconds        wall-clock time of the decode that this question was part of
    """

    text: str
    finish_reason: str
    trace: BeamTrace
    seconds: float


def generate(
    model: Any,
    question: Question,
    strategy: str = "soar",
    *,
    stop: str | Sequence[str] = (),
    gen_length: int | None = None,
    tokenizer: Any = None,
    watch: Callable[[str], None] | None = None,
    **options: Any,
) -> Generation:
    """Answer one question with a masked diffusion language model.

    Args:
        model: What ``load_model`` returns for a checkpoint's folder, "lab/gsm" or "lab/sums"; with
            ``tokenizer`` anything that ``decode`` takes.
        question: Text, or chat messages, each a mapping with ``role`` and ``content``. Where the tokenizer
            has a chat template, text is a user's message; otherwise it is the prompt as it stands.
        strategy: One of those of ``decode``.
        stop: One or several strings; the answer ends before the first of them. An added token such as
            "<|eot_id|>" may be one. What would stand behind is not decoded, as behind an end-of-text token.
        gen_length: Tokens to generate. None: 128; for "lab/sums" what its fixed length leaves.
        tokenizer: None: the model's own.
        watch: Called after each forward with the best beam's text so far, ``░`` for each mask.
        options: The other keywords of ``decode``: block_length, beam, threshold, temperature, ...

    Raises:
        ValueError: names the argument that is wrong and what is allowed.
    """
    tell = (lambda _, text: watch(text)) if callable(watch) else watch
    return generate_batch(
        model, [question], strategy, stop=stop, gen_length=gen_length, tokenizer=tokenizer, watch=tell,
        **options,
    )[0]  # fmt: skip


def generate_batch(
    model: Any,
    questions: Sequence[Question],
    strategy: str = "soar",
    *,
    stop: str | Sequence[str] = (),
    gen_length: int | None = None,
    tokenizer: Any = None,
    watch: Callable[[int, str], None] | None = None,
    **options: Any,
) -> list[Generation]:
    """``generate`` for several questions in one ``decode``; ``watch`` is given their number and text."""
    if tokenizer is None and (tokenizer := getattr(model, "tokenizer", None)) is None:
        checks.fail(
            "model", type(model).__name__,
            "one that reads text (a LLaDA, Dream or SDAR folder, lab/gsm, ...), or come with a tokenizer",
        )  # fmt: skip
    if not (callable(tokenizer) and all(hasattr(tokenizer, name) for name in NEEDED)):
        checks.fail("tokenizer", type(tokenizer).__name__, f"callable, with {', '.join(NEEDED)}")
    if watch is not None and not callable(watch):
        checks.fail("watch", type(watch).__name__, "callable or None")
    stops, ends = stop_strings(stop), eos_ids(model)
    if isinstance(questions, (str, bytes)) or not isinstance(questions, Sequence) or not questions:
        checks.fail("questions", questions, f"a list of questions, each {QUESTION}")
    prompts = [encode(tokenizer, question) for question in questions]
    if gen_length is None:
        gen_length = getattr(tokenizer, "gen_length", GEN_LENGTH)
    checks.integer("gen_length", gen_length, 1)
    mask_id = options.get("mask_id", getattr(model, "mask_id", None))
    for question, prompt in zip(questions, prompts, strict=True):
        if mask_id in prompt:
            checks.fail("question", question, f"without the model's mask, token {mask_id}")

    @lru_cache  # a beam's text is often what it was a step before
    def stopped(tokens: tuple[int, ...]) -> bool:
        return read(tokenizer, tokens, ends, stops)[1] == "stop"

    def told(numbers: np.ndarray, rows: np.ndarray) -> None:
        for number, row in zip(numbers.tolist(), rows, strict=True):
            start = len(prompts[number])
            assert watch is not None
            watch(number, unfinished(tokenizer, row[start : start + gen_length].tolist(), ends, mask_id))

    begun = time.perf_counter()
    trace = decode(
        model, prompts, strategy, gen_length=gen_length, stop=stopped if stops else None,
        watch=None if watch is None else told, **options,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    answers = []
    for number, question in enumerate(questions):
        one, start = trace.of_prompt(number), len(prompts[number])
        tokens = one.sequences[0, start : start + gen_length].tolist()
        text, reason = read(tokenizer, tokens, ends, stops)
        asked = question if isinstance(question, str) else [dict(message) for message in question]
        about = {"question": asked, "text": text, "stop": stops, "token_texts": _texts(tokenizer, one)}
        answers.append(Generation(text, reason, replace(one, meta=one.meta | about), seconds))
    return answers


def encode(tokenizer: Any, question: Question) -> list[int]:
    """The prompt's token ids: by the chat template where there is one, else of the text as it stands."""
    if isinstance(question, str):
        if not question.strip():
            checks.fail("question", question, "text that is not blank")
        if not checks.whole(question):  # of bytes on the command line that are not UTF-8
            checks.fail("question", question, "text of whole characters")
        if not tokenizer.chat_template:
            return list(tokenizer(question)["input_ids"])
        question = [{"role": "user", "content": question}]
    if not isinstance(question, Sequence) or not question or not all(map(_is_message, question)):
        checks.fail("question", question, QUESTION)
    if not tokenizer.chat_template:
        checks.fail("question", "chat messages", "text: the model's tokenizer has no chat template")
    try:
        found = tokenizer.apply_chat_template(list(question), add_generation_prompt=True, return_dict=True)
    except TemplateError as error:
        raise ValueError(f"question must suit the model's chat template, which says: {error}") from error
    return list(found["input_ids"])


def _is_message(given: Any) -> bool:
    keys = "role", "content"
    return isinstance(given, Mapping) and all(isinstance(given.get(key), str) for key in keys)


def stop_strings(stop: Any) -> list[str]:
    """``stop`` as a list. ValueError unless it is a string or several, none of them empty."""
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(one, str) and one for one in stops):
        checks.fail("stop", stop, "a string or a list of strings, none of them empty")
    return list(stops)


def read(
    tokenizer: Any, tokens: Sequence[int], ends: Sequence[int], stops: Sequence[str] = ()
) -> tuple[str, str]:
    """(text, "stop" or "length") of generated ``tokens``: up to an id of ``ends``, cut before any stop."""
    # Added tokens vanish from the text, so a stop string that is one is found by its id.
    added = tokenizer.get_added_vocab()
    ids = {*ends, *(added[stop] for stop in stops if stop in added)}
    kept = list(takewhile(lambda token: token not in ids, tokens))
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    cut = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    return text[:cut], "stop" if len(kept) < len(tokens) or cut < len(text) else "length"


def unfinished(tokenizer: Any, tokens: Sequence[int], ends: Sequence[int], mask_id: int | None) -> str:
    """The text of ``tokens`` up to an id of ``ends``, MASK for each mask among them."""
    kept = takewhile(lambda token: token not in ends, tokens)
    parts = []
    for masked, run in groupby(kept, lambda token: token == mask_id):
        here = list(run)
        parts.append(MASK * len(here) if masked else str(tokenizer.decode(here, skip_special_tokens=True)))
    return "".join(parts)


def _texts(tokenizer: Any, trace: BeamTrace) -> dict[str, str]:
    arrays = trace.sequences, trace.beam_tokens, trace.beam_prediction, trace.cand_tokens
    known = np.unique(np.concatenate([np.unique(array) for array in arrays]))
    return {str(token): str(tokenizer.decode([token])) for token in known[known >= 0].tolist()}
