"""A causal LM on questions with answers: responses in batches, judged, with the paper's measures.

respond   prompts -> Responses, ``samples`` to each
examine   those judged by a reward function -> Examination: accuracy, length, ACT with intervals
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from labkit import checks
from labkit.fgo.measures import Interval, with_intervals
from labkit.fgo.policy import end_tokens
from labkit.options import help_field
from labkit.progress import Progress, bar
from labkit.rows import Rows


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. ValueError names a setting that is out of its bounds."""

    samples: int = help_field("responses to each question; accuracy is avg@samples", 1)
    temperature: float = help_field("of sampling; 0: greedy", 0.0)
    top_p: float = help_field("of nucleus sampling, up to 1", 1.0)
    max_tokens: int = help_field("a response is cut there and counts as it stands", 2048)
    batch_size: int = help_field("responses generated together", 16)
    seed: int = help_field("of the draws", 0)

    def __post_init__(self):
        for name in ("samples", "max_tokens", "batch_size"):
            checks.integer(name, getattr(self, name), 1)
        checks.number("temperature", self.temperature, 0, 10)
        checks.number("top_p", self.top_p, 1e-6, 1)
        if self.samples > 1 and self.temperature == 0:
            checks.fail(
                "temperature", 0, f"above 0 for {self.samples} samples, which would all be the same"
            )


@dataclass(frozen=True)
class Responses:
    """What was written to Q questions, G responses each, in the questions' order."""

    texts: list[list[str]]
    length: np.ndarray  # int (Q, G) tokens, the end token included
    truncated: np.ndarray  # bool (Q, G)


@torch.no_grad()
def respond(
    model: PreTrainedModel, tokenizer: Any, rows: Rows, sampling: Sampling, progress: Progress = True
) -> Responses:
    """Responses to each row's ``prompt``, a text or a conversation; torch's random state is kept."""
    chat = partial(tokenizer.apply_chat_template, add_generation_prompt=True, return_dict=True)
    asked = [(tokenizer if isinstance(row["prompt"], str) else chat)(row["prompt"]) for row in rows]
    prompts = [one["input_ids"] for one in asked for _ in range(sampling.samples)]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # the longest first: memory
    ends = end_tokens(model, tokenizer)
    texts, length, cut = [""] * len(prompts), np.zeros(len(prompts), int), np.zeros(len(prompts), bool)
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), bar(progress, total=len(prompts), desc="answers") as told:
        torch.manual_seed(sampling.seed)
        for start in range(0, len(order), sampling.batch_size):
            part = order[start : start + sampling.batch_size]
            for i, ids in zip(
                part, _generate(model, [prompts[i] for i in part], ends, sampling), strict=True
            ):
                ended = [place for place, token in enumerate(ids) if token in ends]
                cut[i], length[i] = not ended, ended[0] + 1 if ended else len(ids)
                texts[i] = tokenizer.decode(ids[: length[i]], skip_special_tokens=True)
            told.update(len(part))
    shape = (len(rows), sampling.samples)
    grouped = [texts[i : i + shape[1]] for i in range(0, len(texts), shape[1])]
    return Responses(grouped, length.reshape(shape), cut.reshape(shape))


def _generate(model, prompts: list[list[int]], ends: list[int], sampling: Sampling) -> list[list[int]]:
    """What follows each prompt: with its end token, and whatever pads it behind that."""
    width = max(map(len, prompts))
    pad = ends[0] if ends else 0
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    warm = sampling.temperature > 0
    # in fp32 logits / 1e-40 are all infinite
    heat = max(sampling.temperature, 1e-30)
    drawn = {"temperature": heat, "top_p": sampling.top_p, "top_k": 0} if warm else {}
    whole = model.generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=warm, **drawn,
        max_new_tokens=sampling.max_tokens, eos_token_id=ends or None, pad_token_id=pad,
    )  # fmt: skip
    return whole[:, width:].tolist()


@dataclass(frozen=True)
class Examination:
    """Judged responses: measures {accuracy, length, act} over the questions and each response's verdict."""

    measures: dict[str, Interval]
    correct: np.ndarray  # float (Q, G): 1 right, 0 wrong, NaN unscorable
    truncated: float  # share of the responses


def examine(rows: Rows, responses: Responses, reward: Callable[..., Any]) -> Examination:
    """Judge ``responses`` to ``rows``: right is above 0, as FGOTrainer has it. reward: TRL's signature."""
    samples = responses.length.shape[1]
    columns = {name: [row.get(name) for row in rows for _ in range(samples)] for name in rows[0]}
    texts = [text for group in responses.texts for text in group]
    prompts = columns.pop("prompt")
    given = reward(prompts=prompts, completions=texts, **columns)
    judged = np.array([np.nan if value is None else value for value in given], float)
    correct = np.where(np.isnan(judged), np.nan, judged > 0).reshape(responses.length.shape)
    measures = with_intervals(correct, responses.length)
    return Examination(measures, correct, float(responses.truncated.mean()))
