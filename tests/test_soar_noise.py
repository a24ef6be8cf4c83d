"""The noise of a sample: Gumbel, a function of seed, prompt, draw and place alone, and fast."""

import math

import numpy as np
import pytest
import torch

from labkit.soar import decode
from labkit.soar.noise import AT_ONCE, PromptNoise, gumbel
from labkit.soar.prompts import lay_out

CPU = torch.device("cpu")


def noise(prompts, seed=0):
    return PromptNoise(lay_out(prompts, 9, 8), seed)


def random_keys(count):
    source = torch.Generator().manual_seed(0)
    return torch.randint(-(2**31), 2**31 - 1, (count, 2), dtype=torch.int32, generator=source)


def test_the_numbers_are_gumbel_and_independent():
    numbers = gumbel(random_keys(256), 2048).double()
    count = numbers.numel()
    error = math.pi / math.sqrt(6 * count)
    assert abs(numbers.mean() - 0.5772156649) < 4 * error
    uniform = (-(-numbers).exp()).exp()
    cells = torch.histc(uniform.float(), 128, 0, 1)
    assert ((cells - count / 128) ** 2 / (count / 128)).sum() < 127 + 4 * math.sqrt(2 * 127)
    centred = (uniform - 0.5) * math.sqrt(12)
    for other in (centred.roll(1, 0), centred.roll(1, 1), centred.roll(2, 1), centred.roll(64, 1)):
        assert abs((centred * other).mean()) < 4 / math.sqrt(count)


def test_large_numbers_are_as_frequent_as_they_should_be_and_all_are_finite():
    numbers = gumbel(random_keys(64), 126464)
    assert numbers.isfinite().all()
    for least in (8.0, 11.0, 13.0):  # share of numbers above x: 1 - exp(-exp(-x))
        expected = -math.expm1(-math.exp(-least)) * numbers.numel()
        assert abs((numbers > least).sum() - expected) < 4 * math.sqrt(expected)


def test_a_row_has_the_same_noise_alone_and_among_others():
    prompts = [[1], [2, 3], [4]]
    many, alone = noise(prompts), noise([prompts[1]])
    first = many(np.array([0, 1, 1, 2]), 5, 17, CPU)
    second = many(np.array([2, 1]), 3, 17, CPU)
    one, two, three = alone(np.array([0, 0]), 2, 17, CPU), alone(np.array([0]), 3, 17, CPU), first[1:3]
    assert torch.equal(one, three[:, :2])
    assert torch.equal(two[0], second[1])
    everything = torch.cat([first.flatten(), second.flatten()])
    assert len(everything.unique()) > 0.99 * len(everything)


def test_copies_of_a_prompt_and_other_seeds_draw_other_noise():
    copies = noise([[1], [1]])(np.array([0, 1]), 4, 50, CPU)
    assert (copies[0] != copies[1]).all()
    other = noise([[1], [1]], seed=1)(np.array([0, 1]), 4, 50, CPU)
    assert (copies != other).float().mean() > 0.99


def test_pieces_that_fit_a_cache_do_not_change_the_numbers_at_lladas_vocabulary(monkeypatch):
    in_pieces = noise([[1]])(np.array([0]), 32, 126464, CPU)
    monkeypatch.setitem(AT_ONCE, "cpu", 32 * 126464)
    assert in_pieces.equal(noise([[1]])(np.array([0]), 32, 126464, CPU))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_but_for_rounding():
    keys = random_keys(64)
    torch.testing.assert_close(gumbel(keys.cuda(), 5000).cpu(), gumbel(keys, 5000), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["greedy", "soar"])
def test_a_hot_decode_does_not_depend_on_what_else_is_decoded(strategy):
    logits = torch.randn(30, 12, generator=torch.Generator().manual_seed(1))

    def model(tokens):  # of each row alone: position and the token on its left
        return logits[torch.arange(tokens.shape[1])] + logits[tokens.roll(1, 1)]

    prompts = [[1, 2], [3], [4, 5, 6, 7], [1, 2]]
    given = {
        "mask_id": 0,
        "gen_length": 8,
        "temperature": 1.0,
        "seed": 3,
        "threshold": 0.5,
        "record": False,
    }
    many = decode(model, prompts, strategy, **given)
    few = decode(model, prompts, strategy, batch_size=2, **given)
    assert (many.sequences == few.sequences).all()
    for prompt, row in zip(prompts[:3], many.sequences[:3], strict=True):
        alone = decode(model, [prompt], strategy, **given)
        assert alone.sequences[0].tolist() == row[: len(prompt) + 8].tolist()
    assert (many.sequences[0] != many.sequences[3]).any()


@pytest.mark.parametrize("temperature", [1e-45, 1e-320, 1e300])
def test_a_temperature_beyond_fp32_is_greedy_or_all_noise(temperature):
    logits = torch.tensor([0.0, 3.0, 5.0, 9.0, 8.0])  # 0 is the mask; 3 is the likeliest

    def model(tokens):
        return logits.expand(*tokens.shape, 5).clone()

    found = decode(model, [[1]], "greedy", mask_id=0, gen_length=40, temperature=temperature, seed=0)
    kinds = set(found.sequences[0, 1:].tolist())
    assert kinds == {3} if temperature < 1 else {3} < kinds <= {1, 2, 3, 4}
