"""Questions put to every copy of a fleet, and what the answers say: accuracy, length, entropy by place.

grade    which texts answer right
places   where the entropy of responses sits
Exam     a sampler with fixed buffers that asks any list of questions
"""

import numpy as np
import torch

from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.sampler import Responses, Sampler, decode, encode
from labkit.fgo.measures import summarise
from labkit.fgo.tasks import CHARACTERS, is_correct

SEPARATOR, EQUALS, CHECK = (CHARACTERS.index(char) for char in ";=c")


def grade(texts: list[list[str]], answers: list[list[str]]) -> np.ndarray:
    """bool (R, B): which texts answer right."""
    return np.array(
        [
            [is_correct(text, answer) for text, answer in zip(line, right, strict=True)]
            for line, right in zip(texts, answers, strict=True)
        ]
    )


def places(responses: Responses) -> dict[str, np.ndarray]:
    """Where a response's uncertainty sits, means per copy, (R,) each.

    entropy_choice  nats per token right after a ``;``, where the model chooses: check, go on, or answer
    entropy_result  nats per token between ``=`` and ``;``, where it computes
    choice_share    share of the tokens that are such choices
    checks          ``c`` lines per response
    """
    ids, mask = responses.ids, responses.mask
    written = mask[..., :-1]  # what stands before each token of the response, itself of the response
    after = ids[..., :-1]
    inside = mask[..., 1:]
    separator, equals = (after == SEPARATOR) & written, (after == EQUALS) & written
    choice = separator & inside
    result = (equals.cumsum(2) > separator.cumsum(2)) & inside
    entropy = responses.entropy[..., 1:]
    tokens = mask.sum((1, 2)).clamp(min=1)
    found = {
        "entropy_choice": (entropy * choice).sum((1, 2)) / choice.sum((1, 2)).clamp(min=1),
        "entropy_result": (entropy * result).sum((1, 2)) / result.sum((1, 2)).clamp(min=1),
        "choice_share": choice.sum((1, 2)) / tokens,
        "checks": ((ids == CHECK) & mask).sum((1, 2)) / ids.shape[1],
    }
    return {name: value.double().cpu().numpy() for name, value in found.items()}


class Exam:
    """``rows`` questions at a time for every copy of a fleet, one response each."""

    def __init__(self, fleet: Fleet, rows: int, prompt: int, max_tokens: int):
        self.fleet = fleet
        self.sampler = Sampler(fleet, rows, prompt, max_tokens)

    def __call__(
        self, questions: list[dict[str, str]], *, greedy: bool = False, seed: int = 0, keep: int = 0
    ) -> tuple[list[dict[str, float]], list[list[dict]]]:
        """(numbers, samples) per copy; the count of questions is a multiple of the sampler's rows.

        seed  of the draws: the same seed draws the same for a copy at any time; torch's random state is
              left as it was
        keep  samples to hand back: the first responses, with prompt, text, correct, length, entropy
        """
        rows, parts = self.sampler.rows, []
        devices = [self.fleet.device] if self.fleet.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for start in range(0, len(questions), rows):
                part = questions[start : start + rows]
                ids, length = (t.to(self.fleet.device) for t in encode([row["prompt"] for row in part]))
                copies = self.fleet.copies
                responses = self.sampler(
                    ids.expand(copies, -1, -1), length.expand(copies, -1), greedy=greedy, seed=seed + start
                )
                parts.append(self._read(part, responses))
        numbers, samples = [], []
        for copy in range(self.fleet.copies):
            columns = {k: np.concatenate([p[k][copy] for p in parts]) for k in parts[0] if k != "places"}
            texts = columns.pop("texts")
            found = summarise(**{k: v[:, None] for k, v in columns.items()})
            found |= {k: float(np.mean([p["places"][k][copy] for p in parts])) for k in parts[0]["places"]}
            numbers.append(found)
            samples.append([
                {"prompt": row["prompt"], "text": str(texts[i]), "correct": bool(columns["correct"][i]),
                 "length": int(columns["length"][i]), "entropy": round(float(columns["sampled"][i]), 3)}
                for i, row in enumerate(questions[:keep])
            ])  # fmt: skip
        return numbers, samples

    def _read(self, questions: list[dict[str, str]], responses: Responses) -> dict:
        texts, entropies = decode(responses), responses.entropies
        return {
            "texts": np.array(texts, dtype=object),
            "correct": grade(texts, [[row["answer"] for row in questions]] * len(texts)),
            "length": responses.length.cpu().numpy(),
            "sampled": entropies["sampled_sum"].double().cpu().numpy(),
            "full": entropies["full_sum"].double().cpu().numpy(),
            "places": places(responses),
        }
