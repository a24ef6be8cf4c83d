"""Prompts of very different lengths: a batch is padded to its own longest one, and to no other."""

import numpy as np
import pytest
import torch
from test_soar_models import DREAM, LLADA, dream_native, llada_tensors, write

from labkit.soar import decode, load_model
from labkit.soar.models.caches import Cached
from labkit.soar.models.diffusion_lm import DiffusionLM

GEN = 4
SHORT, LONG = [[i, i + 1, i + 2] for i in range(1, 9)], [[i % 30 + 1 for i in range(60)]]
MIXED = SHORT[:3] + LONG + SHORT[3:]


@pytest.fixture(params=["llada", "dream"])
def model(request, tmp_path):
    longer = {"max_sequence_length": 80}
    if request.param == "llada":
        return load_model(write(tmp_path / "m", LLADA | longer, llada_tensors()))
    longer = {"max_position_embeddings": 80}
    return load_model(write(tmp_path / "m", DREAM | longer, dict(dream_native().state_dict())))


def spied(model, monkeypatch):
    """(rows, positions) of every forward through the layers from now on."""
    seen, hidden = [], DiffusionLM.hidden

    def spy(self, tokens, *rest, **more):
        seen.append(tuple(tokens.shape))
        return hidden(self, tokens, *rest, **more)

    monkeypatch.setattr(DiffusionLM, "hidden", spy)
    return seen


def test_a_long_prompt_costs_the_short_ones_nothing(model, monkeypatch):
    seen = spied(model, monkeypatch)
    decode(model, MIXED, "greedy", gen_length=GEN, batch_size=4, eos_early_stop=False, record=False)
    assert seen == [(4, 3 + GEN)] * 2 * GEN + [(1, 60 + GEN)] * GEN


def test_prompts_that_wait_enter_by_length(model, monkeypatch):
    seen = spied(model, monkeypatch)
    prompts = [[1] * length for length in (9, 3, 7, 5, 8, 4)]
    decode(model, prompts, "greedy", gen_length=GEN, batch_size=2, eos_early_stop=False, record=False)
    assert [length for _, length in seen[::GEN]] == [4 + GEN, 7 + GEN, 9 + GEN]


@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "pbs", "soar"])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_answers_come_in_the_callers_order_and_are_those_of_each_prompt_alone(model, strategy, batch_size):
    given = {"gen_length": GEN, "block_length": 2, "threshold": 0.3}
    many = decode(model, MIXED, strategy, batch_size=batch_size, **given)
    assert many.prompt_length.tolist() == [len(prompt) for prompt in MIXED]
    for p, prompt in enumerate(MIXED):
        alone = decode(model, [prompt], strategy, **given)
        length = len(prompt) + GEN
        assert many.sequences[p, :length].tolist() == alone.sequences[0].tolist()
        assert (many.sequences[p, length:] == -1).all()
        assert (many.calls[p], many.rows[p]) == (alone.calls[0], alone.rows[0])


def test_padding_beyond_the_longest_row_changes_no_logit(model):
    tokens = torch.randint(1, 38, (2, 9))
    padded = torch.cat([tokens, torch.zeros(2, 20, dtype=torch.long)], 1)
    assert torch.equal(model(padded, [9, 6])[:, :9], model(tokens, [9, 6]))
    assert torch.equal(model(padded, [9, 9])[:, :9], model(tokens))
    assert model(padded, [9, 6]).shape == (2, 29, 40)


@pytest.mark.parametrize("cache", ["approximate-prefix", "approximate-dual"])
def test_a_cache_computes_no_padding_either(model, cache):
    given = {"gen_length": GEN, "block_length": 2, "eos_early_stop": False, "record": False}

    def run(prompts):
        cached = Cached(model, cache)
        return decode(cached, prompts, "greedy", batch_size=4, **given).sequences, cached.computed

    mixed, computed = run(MIXED)
    short, few = run(SHORT)
    long, many = run(LONG)
    assert computed == few + many
    np.testing.assert_array_equal(mixed[3], long[0])
    np.testing.assert_array_equal(np.delete(mixed, 3, 0)[:, : 3 + GEN], short)


def test_a_kept_slot_serves_rows_of_any_length(model):
    # The same start state alone, where nothing is behind it, and next to a longer row.
    row, longer = [1, 2, 3, 39, 39, 39], [4] * 10 + [39] * 3
    half = [1, 2, 3, 7, 39, 39]
    cached = Cached(model, "approximate-dual")

    def ask(*rows):
        tokens = torch.zeros(len(rows), 20, dtype=torch.long)
        for i, tokens_of in enumerate(rows):
            tokens[i, : len(tokens_of)] = torch.tensor(tokens_of)
        where = torch.tensor([range(len(r) - 3, len(r)) for r in rows])
        return cached.logits_at(tokens, where, [len(r) for r in rows])

    ask(row)
    alone = ask(half)
    beside = ask(half, longer)
    assert beside.isfinite().all()
    torch.testing.assert_close(beside[:1], alone, atol=1e-5, rtol=1e-5)
