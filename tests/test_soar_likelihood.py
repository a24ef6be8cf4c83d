"""The Monte Carlo likelihood against sums over all masks, written here from the formula."""

from itertools import combinations
from math import comb, isnan

import numpy as np
import pytest
import torch
from test_soar_models import LLADA, llada_tensors, write

from labkit.soar import load_model
from labkit.soar.likelihood import log_likelihoods, summary

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write(tmp_path_factory.mktemp("m") / "llada", LLADA, llada_tensors()))


def log_p(model, prompt, answer, masked):
    """log p of each masked token of ``answer``, by one forward of the whole row."""
    row = [*prompt, *(model.mask_id if i in masked else token for i, token in enumerate(answer))]
    said = model(torch.tensor([row]))[0, len(prompt) :].double().log_softmax(-1)
    return {i: said[i, answer[i]].item() for i in masked}


def expectation(model, prompt, answer):
    """Mean over l = 1..L and over all masks of l tokens of L / l times their sum: no shortcut."""
    size = len(answer)
    return sum(
        size / n * sum(log_p(model, prompt, answer, some).values()) / comb(size, n) / size
        for n in range(1, size + 1)
        for some in combinations(range(size), n)
    )


@pytest.mark.parametrize("answer", [[7], [7, 2], [2, 7], [8, 8, 9]])
def test_few_tokens_are_scored_exactly(model, answer):
    (found,) = log_likelihoods(model, [(PROMPT, answer)], mc_num=7)
    assert found.value == pytest.approx(expectation(model, PROMPT, answer), abs=1e-5)
    assert found.stderr == 0


def test_one_token_is_its_log_probability_and_two_are_the_mean_of_both_orders(model):
    one = log_likelihoods(model, [(PROMPT, [7])], mc_num=1)[0].value
    assert one == pytest.approx(log_p(model, PROMPT, [7], [0])[0], abs=1e-5)
    both = log_p(model, PROMPT, [7, 2], [0, 1])
    alone = [log_p(model, PROMPT, [7, 2], [i])[i] for i in (0, 1)]
    chain = [both[0] + alone[1], both[1] + alone[0]]  # first token first, and last first
    found = log_likelihoods(model, [(PROMPT, [7, 2])])[0].value
    assert found == pytest.approx(np.mean(chain), abs=1e-5)


def test_many_draws_come_within_their_standard_error_of_the_exact_value(model):
    answer = [7, 2, 9, 4, 6, 1]
    exact = expectation(model, PROMPT, answer)
    seeds = [log_likelihoods(model, [(PROMPT, answer)], mc_num=48, seed=seed)[0] for seed in range(60)]
    values, errors = np.array([(one.value, one.stderr) for one in seeds]).T
    spread = values.std(ddof=1)
    assert abs(values.mean() - exact) < 4 * spread / len(seeds) ** 0.5
    # The error that is told is the one that is made (0.96 over 400 seeds).
    assert 0.75 < np.sqrt((errors**2).mean()) / spread < 1.3


def test_draws_cover_every_number_of_masks_alike(model):
    """A round of 8 over an answer of 8 tokens has each l once: only which tokens are masked is chance."""
    seen = []
    logits_at = model.logits_at
    try:
        model.logits_at = lambda tokens, *rest: seen.extend(tokens.tolist()) or logits_at(tokens, *rest)
        log_likelihoods(model, [(PROMPT, list(range(1, 9)))], mc_num=16, batch_size=3)
    finally:
        del model.logits_at
    counts = [row.count(model.mask_id) for row in seen]
    assert sorted(counts[:8]) == sorted(counts[8:]) == list(range(1, 9))
    assert all(row[: len(PROMPT)] == PROMPT for row in seen)


def test_neither_batch_nor_neighbours_change_a_value_and_the_seed_does(model):
    pairs = [(PROMPT, [7, 2, 9, 4, 6]), ([1], [3, 3]), (PROMPT * 2, [5, 6, 7, 8, 9, 1]), ([], [4, 2])]
    together = log_likelihoods(model, pairs, mc_num=16, batch_size=7)
    for pair, found in zip(pairs, together, strict=True):
        (alone,) = log_likelihoods(model, [pair], mc_num=16, batch_size=1)
        assert alone.value == pytest.approx(found.value, abs=1e-4)
        assert alone.stderr == pytest.approx(found.stderr, abs=1e-4)
    other = log_likelihoods(model, pairs, mc_num=16, seed=1)
    assert other[0].value != pytest.approx(together[0].value, abs=1e-3)
    assert other[1].value == pytest.approx(together[1].value, abs=1e-4)  # exact


def test_guidance_compares_with_a_hidden_prompt(model):
    def logits(prompt):
        return model(torch.tensor([[*prompt, model.mask_id]]))[0, -1].double()

    given, empty = logits(PROMPT), logits([model.mask_id] * len(PROMPT))
    wanted = (empty + 3 * (given - empty)).log_softmax(-1)[7].item()
    (found,) = log_likelihoods(model, [(PROMPT, [7])], cfg_scale=2.0)
    assert found.value == pytest.approx(wanted, abs=1e-4)


def test_edges_and_what_is_refused(model, monkeypatch):
    none, single = log_likelihoods(model, [(PROMPT, []), (PROMPT, [1, 2])], mc_num=1)
    assert (none.value, none.stderr) == (0.0, 0.0)
    assert isnan(single.stderr)
    assert summary([]) == {}
    told = summary([none, single])["loglikelihood"]
    assert told == {"answers": 2, "exact": 1, "mean_stderr": 0.0, "max_stderr": 0.0}
    with pytest.raises(ValueError, match="mc_num must be an integer >= 1; got 0"):
        log_likelihoods(model, [(PROMPT, [1])], mc_num=0)
    monkeypatch.setattr(
        model, "logits_at", lambda tokens, where, _: torch.full((*where.shape, 40), torch.nan)
    )
    with pytest.raises(ValueError, match="finite logits; got NaN"):
        log_likelihoods(model, [(PROMPT, [1])])
