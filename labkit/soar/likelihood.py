"""How likely an answer is to a masked diffusion model: LLaDA's Monte Carlo estimate, or its exact value.

Of the L tokens of an answer x behind a visible prompt, l ~ U{1, ..., L} are masked, S, any l of them alike:

    log p(x | prompt) >= E [ L / l * sum over i in S of log p(x_i | prompt, the rest of x) ]

(LLaDA, arXiv 2502.09992, section 2.4, equation 6). The published code draws l in rounds of a batch, evenly
spaced around 1..L from a random start, so that a round covers short and long masks alike; so does this one,
in rounds of ROUND whatever the batch. Where all 2^L - 1 masks are no more than the draws asked for, each is
taken once with its weight instead: the same expectation without an error.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb, isfinite, nan
from typing import Any

import numpy as np
import torch

from labkit import checks
from tokenstats import token_stats

ROUND = 8  # draws that share one random start, the batch size of LLaDA's published commands

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt, perhaps none, and of an answer


@dataclass(frozen=True)
class Likelihood:
    """Estimate of the bound on log p(answer | prompt) in nats."""

    value: float
    stderr: float  # over independent rounds; 0: every mask was taken; NaN: a single draw


@dataclass(frozen=True)
class _Masks:
    """R ways to mask L tokens. Within a round the weighted sums add up to one unbiased estimate."""

    masked: np.ndarray  # (R, L) bool
    weight: np.ndarray  # (R,) fp64
    round: np.ndarray  # (R,) int
    exact: bool


@torch.no_grad()
def log_likelihoods(
    model: Any,
    pairs: Sequence[Pair],
    *,
    mc_num: int = 128,
    seed: int = 0,
    batch_size: int = 8,
    cfg_scale: float = 0.0,
) -> list[Likelihood]:
    """The likelihood of each answer behind its prompt.

    Args:
        model: With ``mask_id`` and ``logits_at``, as ``load_model`` returns it.
        pairs: N times the token ids of a prompt and of an answer.
        mc_num: Most masks drawn of each answer. Up to ``mc_num`` forwards of a row each.
        seed: What is drawn depends on it, the prompt and the answer, not on the batch.
        batch_size: Rows of one forward; longer pairs come first.
        cfg_scale: Classifier-free guidance, the prompt hidden in the second half; doubles the rows.

    ValueError names the argument that is wrong, or a model whose logits are NaN.
    """
    checks.integer("mc_num", mc_num, 1)
    checks.integer("batch_size", batch_size, 1)
    drawn = [_masks(prompt, answer, mc_num, seed) for prompt, answer in pairs]
    sums = [np.zeros(len(masks.weight)) for masks in drawn]
    order = sorted(range(len(pairs)), key=lambda n: -sum(map(len, pairs[n])))
    rows = [(number, row) for number in order for row in range(len(sums[number]))]
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        given = [(*pairs[number], drawn[number].masked[row]) for number, row in some]
        for (number, row), value in zip(some, _masked_sums(model, given, cfg_scale), strict=True):
            sums[number][row] = value
    return [_estimate(masks, found) for masks, found in zip(drawn, sums, strict=True)]


def _masks(prompt: Sequence[int], answer: Sequence[int], mc_num: int, seed: int) -> _Masks:
    length = len(answer)
    if 2**length - 1 <= mc_num:
        every = np.array(list(product((False, True), repeat=length)), bool).reshape(2**length, length)[1:]
        count = every.sum(1)
        weight = np.array([1 / (n * comb(length, n)) for n in count.tolist()])
        return _Masks(every, weight, np.zeros(len(every), int), exact=True)
    key = repr((seed, list(prompt), list(answer))).encode()
    rng = np.random.default_rng(list(hashlib.sha256(key).digest()))
    rounds = np.array_split(np.arange(mc_num), max(min(2, mc_num), mc_num // ROUND))
    spaced = [rng.integers(length) + np.arange(len(one)) * length // len(one) for one in rounds]
    count = np.concatenate(spaced) % length + 1  # (mc_num,) l of each draw
    place = rng.permuted(np.tile(np.arange(length), (mc_num, 1)), axis=1)
    sizes = [len(one) for one in rounds]
    which = np.repeat(np.arange(len(rounds)), sizes)
    return _Masks(place < count[:, None], length / count / np.repeat(sizes, sizes), which, exact=False)


def _masked_sums(
    model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int], np.ndarray]], cfg_scale: float
) -> list[float]:
    """Of (prompt, answer, which of its tokens are masked): the sum of their log-probabilities."""
    lengths = [len(prompt) + len(answer) for prompt, answer, _ in rows]
    width = max(int(masked.sum()) for *_, masked in rows)
    tokens = np.zeros((len(rows), max(lengths)), int)
    given = np.zeros(tokens.shape, bool)  # the prompt
    where, target = np.zeros((2, len(rows), width), int)
    for n, (prompt, answer, masked) in enumerate(rows):
        spots = np.flatnonzero(masked)
        tokens[n, : lengths[n]] = [*prompt, *np.where(masked, model.mask_id, answer)]
        given[n, : len(prompt)] = True
        where[n] = len(prompt) + spots[0]  # repeated where a row has fewer masks
        where[n, : len(spots)], target[n, : len(spots)] = len(prompt) + spots, np.array(answer)[spots]
    device = next(model.parameters()).device
    places = torch.from_numpy(where).to(device)
    padded = lengths if len(set(lengths)) > 1 else None
    logits = model.logits_at(torch.from_numpy(tokens).to(device), places, padded)
    if cfg_scale:
        hidden = torch.from_numpy(np.where(given, model.mask_id, tokens)).to(device)
        empty = model.logits_at(hidden, places, padded).float()
        logits = empty + (cfg_scale + 1) * (logits - empty)
    logprob = token_stats(logits, torch.from_numpy(target).to(device)).logprob.double().cpu().numpy()
    counted = np.arange(width) < np.array([masked.sum() for *_, masked in rows])[:, None]
    found = np.where(counted, logprob, 0.0).sum(1)
    if np.isnan(found).any():
        raise ValueError("model must give finite logits; got NaN at masked tokens of an answer")
    return found.tolist()


def _estimate(masks: _Masks, sums: np.ndarray) -> Likelihood:
    rounds = np.bincount(masks.round, masks.weight * sums, minlength=1)  # of an empty answer: 0
    stderr = float(rounds.std(ddof=1) / len(rounds) ** 0.5) if len(rounds) > 1 else nan
    return Likelihood(float(rounds.mean()), 0.0 if masks.exact else stderr)


def summary(found: Sequence[Likelihood]) -> dict[str, Any]:
    """For a results file: how many answers, how many of them exact, and the errors of all that have one."""
    if not found:
        return {}
    errors = [one.stderr for one in found if isfinite(one.stderr)]
    mean = sum(errors) / len(errors) if errors else None
    told = {"answers": len(found), "exact": errors.count(0.0)}
    return {"loglikelihood": told | {"mean_stderr": mean, "max_stderr": max(errors, default=None)}}
