"""FGO's and GRPO's advantages against loops written from the formulas, closed forms and bad input."""

import inspect
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.fgo import Objective, fgo_advantages, grpo_advantages
from labkit.fgo.advantages import fgo_rewards, subgroups

NAN, INF = float("nan"), float("inf")


def signed_weights(correct, length, entropy, **settings):
    return fgo_rewards(Objective(**settings), *subgroups(correct, length), length, entropy)


def ratio(a, b, clamp):
    """a / b held in [1/clamp, clamp]; 0/0 is 1."""
    quotient = 1.0 if a == b == 0 else INF if b == 0 else a / b
    return min(max(quotient, 1 / clamp), clamp)


def reference(correct, length, entropy, alpha, beta, clamp=10.0, valid=None):
    """(weights, advantages) of ONE group, loops over plain numbers, from the paper's formulas."""
    size = len(length)
    rows = [
        i for i in range(size) if length[i] > 0 and not math.isnan(correct[i]) and (not valid or valid[i])
    ]
    weight, reward = [0.0] * size, [0.0] * size
    for sign in (1, -1):
        group = [i for i in rows if (correct[i] > 0) == (sign > 0)]
        if not group:
            continue
        mean_l = sum(length[i] for i in group) / len(group)
        mean_h = sum(entropy[i] for i in group) / len(group)
        score = {}
        for i in group:
            by_length = ratio(mean_l, length[i], clamp) if sign > 0 else ratio(length[i], mean_l, clamp)
            score[i] = by_length**alpha * ratio(mean_h, entropy[i], clamp) ** beta
        top = max(score.values())
        total = sum(math.exp(score[i] - top) for i in group)
        for i in group:
            weight[i] = math.exp(score[i] - top) / total
            reward[i] = sign * weight[i]
    mean = sum(reward[i] for i in rows) / max(len(rows), 1)
    return weight, [reward[i] - mean if i in rows else 0.0 for i in range(size)]


def table(*groups, dtype=torch.float64):
    return torch.tensor(groups, dtype=dtype)


lengths = st.sampled_from([0, 1, 2, 3, 17, 17, 500, 2048])
entropies = st.one_of(st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1.0, 50.0, 1e30]), st.floats(0, 100))
rewards = st.sampled_from([1.0, 1.0, -1.0, -1.0, 0.0, NAN])


@st.composite
def groups(draw, reward=rewards, length=lengths):
    """(correct, length, entropy), lists of one size: zeros, ties, NaN rewards and huge ratios included."""
    size = draw(st.integers(1, 9))
    return tuple(draw(st.lists(kind, min_size=size, max_size=size)) for kind in (reward, length, entropies))


exponents = st.sampled_from([0.0, 0.01, 0.5, 1.0, 2.0])
mixed = groups(st.sampled_from([1.0, -1.0]), st.sampled_from([1, 2, 17, 500])).filter(
    lambda g: len(set(g[0])) == 2
)
one_sided = groups(st.just(1.0), st.sampled_from([1, 2, 17, 500]))


@settings(max_examples=300, deadline=None)
@given(groups(), exponents, exponents)
def test_any_group_equals_the_loops_and_is_finite(group, alpha, beta):
    correct, length, entropy = map(table, group)
    result = fgo_advantages(correct, length, entropy, alpha=alpha, beta=beta)
    assert result.isfinite().all()
    _, expected = reference(*group, alpha, beta)
    expected = [0.0 if max(map(abs, expected)) <= 1e-6 else a for a in expected]
    torch.testing.assert_close(result, table(expected), atol=1e-9, rtol=0)


GROUPS, ROWS = 25, 8
NASTY = {  # a byte picks a value: zeros, ties, tiny and huge, unscorable rewards, rows that are taken out
    "correct": [1.0, 1.0, -1.0, -1.0, 0.0, NAN],
    "length": [0.0, 1.0, 30.0, 30.0, 31.0, 2000.0],
    "entropy": [0.0, 0.0, 1e-12, 3.0, 3.0, 40.0, 1e30],
    "valid": [1.0, 1.0, 1.0, 0.0],
}


@settings(max_examples=400, deadline=None)  # 400 tables of 25 groups: 10,000 groups
@given(st.binary(min_size=GROUPS * ROWS * 4, max_size=GROUPS * ROWS * 4), exponents, exponents)
def test_ten_thousand_nasty_groups_equal_the_loops_and_are_finite(raw, alpha, beta):
    bytes_ = torch.tensor(list(raw)).view(4, GROUPS, ROWS)
    picked = [
        torch.tensor(values, dtype=torch.float64)[index % len(values)]
        for values, index in zip(NASTY.values(), bytes_, strict=True)
    ]
    correct, length, entropy, valid = picked
    result = fgo_advantages(correct, length, entropy, alpha=alpha, beta=beta, valid=valid.bool())
    assert result.isfinite().all()
    assert result.sum(1).abs().max() < 1e-6
    for row, *group in zip(result.tolist(), *(table.tolist() for table in picked), strict=True):
        *three, v = group
        _, expected = reference(*three, alpha, beta, valid=v)
        assert max(abs(a - b) for a, b in zip(row, expected, strict=True)) < 2e-6


@settings(max_examples=200, deadline=None)
@given(mixed, exponents, exponents)
def test_mixed_group_has_mean_zero_and_average_advantage_one_over_k(group, alpha, beta):
    correct, length, entropy = map(table, group)
    advantage = fgo_advantages(correct, length, entropy, alpha=alpha, beta=beta)
    reward = signed_weights(correct, length, entropy, alpha=alpha, beta=beta)
    size, k = correct.numel(), int((correct > 0).sum())
    assert reward.sum().item() == pytest.approx(0, abs=1e-12)
    assert reward[correct > 0].sum().item() == pytest.approx(1)  # softmax weights
    assert reward[correct < 0].sum().item() == pytest.approx(-1)
    assert advantage[correct > 0].mean().item() == pytest.approx(1 / k)
    assert advantage[correct < 0].mean().item() == pytest.approx(-1 / (size - k))


@settings(max_examples=200, deadline=None)
@given(one_sided, st.sampled_from([1, -1]))
def test_one_sided_group_is_weight_minus_one_over_g(group, sign):
    correct, length, entropy = map(table, group)
    advantage = fgo_advantages(sign * correct, length, entropy, alpha=0.5)
    weight = signed_weights(sign * correct, length, entropy, alpha=0.5).abs()
    assert weight.sum().item() == pytest.approx(1)
    torch.testing.assert_close(advantage, sign * (weight - 1 / weight.numel()), atol=2e-6, rtol=0)


@settings(max_examples=200, deadline=None)
@given(groups(), st.randoms(use_true_random=False))
def test_order_of_responses_does_not_matter(group, random):
    order = list(range(len(group[0])))
    random.shuffle(order)
    plain = fgo_advantages(*map(table, group))
    shuffled = fgo_advantages(*(table([values[i] for i in order]) for values in group))
    torch.testing.assert_close(shuffled, plain[:, order], atol=1e-12, rtol=0)


def test_subgroup_of_one_weighs_one():
    reward = signed_weights(table([1, -1, -1]), table([9, 5, 7]), table([2, 1, 3]))
    assert reward[0, 0] == 1
    assert reward[0, 1:].sum().item() == pytest.approx(-1)
    assert fgo_advantages(table([1.0]), table([9]), table([2])).tolist() == [[0.0]]


def test_hand_computed_group():
    # Two correct of 10 and 30 tokens, equal entropy: ratios 2 and 2/3, weights softmax(2, 2/3).
    correct, length, entropy = table([1, 1, 0]), table([10, 30, 20]), table([4, 4, 9])
    reward = signed_weights(correct, length, entropy, alpha=1.0, beta=1.0)
    short = 1 / (1 + math.exp(2 / 3 - 2))
    assert reward.tolist()[0] == pytest.approx([short, 1 - short, -1.0])


def test_what_the_weights_favour():
    reward = signed_weights(table([1, 1, -1, -1]), table([10, 30, 10, 30]), table([4] * 4), alpha=1.0)
    assert reward[0, 0] > reward[0, 1] > 0 > reward[0, 2] > reward[0, 3]  # short right, long wrong
    reward = signed_weights(table([1, 1, -1, -1]), table([9] * 4), table([1, 3, 1, 3]), alpha=0.0)
    assert reward[0, 0] > reward[0, 1]  # among right ones: low entropy earns most
    assert reward[0, 2] < reward[0, 3]  # among wrong ones: low entropy (confidently wrong) costs most


def test_clamp_bounds_the_ratio_and_one_switches_it_off():
    correct, length = table([1, 1]), table([10, 10])
    extreme, capped = table([1e-9, 1.0]), table([0.05, 1.0])
    one_hot = signed_weights(correct, length, extreme, clamp=1000.0)
    clamped = signed_weights(correct, length, extreme, clamp=2.0)
    assert one_hot[0, 0].item() == pytest.approx(1, abs=1e-6)
    # ratios 0.5/1e-9 -> 2 and 0.5 -> 0.5
    assert clamped[0, 0].item() == pytest.approx(1 / (1 + math.exp(0.5 - 2)))
    assert signed_weights(correct, length, capped, clamp=1.0).tolist() == [[0.5, 0.5]]


def test_invalid_rows_have_no_say_and_no_advantage():
    correct, length, entropy = table([1, 1, -1]), table([10, 20, 15]), table([2, 4, 3])
    alone = fgo_advantages(correct, length, entropy, alpha=1.0)
    wide_correct = table([1, 1, -1, NAN, 1, 1])  # unscorable; masked as truncated; taken out by the caller
    wide_length, wide_entropy = table([10, 20, 15, 99, 0, 7]), table([2, 4, 3, 9, NAN, NAN])
    valid = torch.tensor([[True, True, True, True, True, False]])
    wide = fgo_advantages(wide_correct, wide_length, wide_entropy, alpha=1.0, valid=valid)
    torch.testing.assert_close(wide, torch.cat([alone, torch.zeros(1, 3, dtype=torch.float64)], 1))
    nothing = fgo_advantages(table([NAN, 1.0]), table([5, 0]), table([1, 1]))
    assert nothing.tolist() == [[0.0, 0.0]]


def test_identical_responses_give_exactly_zero():
    same = fgo_advantages(table([1] * 7), table([13] * 7), table([0.3] * 7), scale="std")
    assert same.tolist() == [[0.0] * 7]


def test_all_wrong_groups_on_request_give_zero():
    correct, length, entropy = table([-1, -1], [1, -1]), table([5, 50], [5, 50]), table([1, 9], [1, 9])
    plain = fgo_advantages(correct, length, entropy)
    guarded = fgo_advantages(correct, length, entropy, zero_all_wrong=True)
    assert plain[0, 0] < 0 < plain[0, 1]  # beta rewards the long wrong answer: the reason for the option
    assert guarded[0].tolist() == [0.0, 0.0]
    assert guarded[1].tolist() == plain[1].tolist()


def test_std_scale_divides_by_the_groups_deviation():
    group = table([1, 1, -1, -1]), table([10, 30, 10, 30]), table([4, 5, 6, 7])
    plain, scaled = fgo_advantages(*group), fgo_advantages(*group, scale="std")
    torch.testing.assert_close(scaled, plain / (signed_weights(*group).std() + 1e-4))


def test_bool_zero_one_and_plus_minus_one_mean_the_same():
    length, entropy = table([10, 20, 30]), table([1, 2, 3])
    expected = fgo_advantages(table([1, -1, 1]), length, entropy)
    for correct in (torch.tensor([[True, False, True]]), torch.tensor([[1, 0, 1]])):
        assert torch.equal(fgo_advantages(correct, length.long(), entropy), expected)


def test_half_precision_is_computed_in_float32_and_close_to_float64():
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(50, 8, generator=generator) < 0.5
    length = torch.randint(1, 200, (50, 8), generator=generator)
    entropy = (torch.rand(50, 8, generator=generator) * 30).bfloat16()
    low = fgo_advantages(correct, length, entropy)
    assert low.dtype == torch.float32
    high = fgo_advantages(correct, length, entropy.double())
    torch.testing.assert_close(low.double(), high, atol=1e-5, rtol=0)


def test_extreme_exponents_stay_finite_in_float32():
    group = torch.ones(1, 3), torch.tensor([[1, 50, 2000]]), torch.tensor([[0.0, 1.0, 60.0]])
    result = fgo_advantages(*group, alpha=10, beta=10, clamp=1000)
    assert result.isfinite().all()
    assert result[0, 0].item() == pytest.approx(2 / 3)


# GRPO


def test_grpo_equals_the_formula():
    reward = table([1, -1, -1, 1], [0.5, 0.5, 0.5, 0.5], [3, NAN, 1, 2])
    plain, scaled = grpo_advantages(reward, scale="none"), grpo_advantages(reward)
    assert plain.tolist() == [[1, -1, -1, 1], [0, 0, 0, 0], [1, 0, -1, 0]]
    assert scaled[0].tolist() == pytest.approx([s / (math.sqrt(4 / 3) + 1e-4) for s in (1, -1, -1, 1)])
    assert scaled[2].tolist() == pytest.approx([1 / 1.0001, 0, -1 / 1.0001, 0])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e4, 1e4), st.just(NAN)), min_size=1, max_size=9))
def test_grpo_is_finite_and_centred_over_scorable_rows(values):
    reward = table(values)
    for scale in ("none", "std"):
        advantage = grpo_advantages(reward, scale=scale)
        assert advantage.isfinite().all()
        assert advantage.sum().item() == pytest.approx(0, abs=1e-6)
        assert (advantage[reward.isnan()] == 0).all()
    assert grpo_advantages(reward).abs().max() <= math.sqrt(len(values))


def test_grpo_does_not_blow_up_rounding_noise():
    noise = table([0.1, 0.1 + 1e-9, 0.1 - 1e-9])
    assert grpo_advantages(noise).tolist() == [[0.0, 0.0, 0.0]]
    assert grpo_advantages(table([0.1, 0.1 + 1e-5])).abs().max() < 0.06  # damped, not +-0.7


# Bad input: one ValueError that names the argument


GOOD = {"correct": table([1, -1]), "length": table([3, 4]), "entropy": table([1, 2])}
BAD = [
    ({"correct": [[1, 0]]}, "correct must be a (Q, G) tensor with G >= 1; got 'list'"),
    ({"correct": torch.ones(2)}, "correct must be a (Q, G) tensor with G >= 1; got (2,)"),
    ({"correct": torch.ones(2, 0)}, "correct must be a (Q, G) tensor with G >= 1; got (2, 0)"),
    ({"length": table([3])}, "length must be a tensor of shape (1, 2); got (1, 1)"),
    ({"length": table([3, -1])}, "length must be finite and >= 0; got -1.0"),
    ({"length": table([3, NAN])}, "length must be finite and >= 0; got nan"),
    ({"entropy": table([1, 2], [1, 2])}, "entropy must be a tensor of shape (1, 2); got (2, 2)"),
    ({"entropy": table([1, NAN])}, "entropy must be finite and >= 0 on every valid row; got nan"),
    ({"entropy": table([1, -0.5])}, "entropy must be finite and >= 0 on every valid row; got -0.5"),
    ({"alpha": -0.1}, "alpha must be a number in [0, 10]; got -0.1"),
    ({"beta": NAN}, "beta must be a number in [0, 10]; got nan"),
    ({"beta": "1"}, "beta must be a number in [0, 10]; got '1'"),
    ({"clamp": 0.5}, "clamp must be a number in [1, 1000]; got 0.5"),
    ({"zero_all_wrong": "no"}, "zero_all_wrong must be one of True, False; got 'no'"),
    ({"scale": "batch"}, "scale must be one of 'none', 'std'; got 'batch'"),
    ({"valid": table([1, 1])}, "valid must be bool; got 'torch.float64'"),
    ({"valid": torch.tensor([True])}, "valid must be a tensor of shape (1, 2); got (1,)"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m[:40] for _, m in BAD])
def test_bad_input_is_one_error_that_names_the_argument(change, message):
    arguments = GOOD | change
    named = {k: v for k, v in arguments.items() if k not in GOOD}
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared below)
        fgo_advantages(*(arguments[k] for k in GOOD), **named)
    assert str(error.value) == message


def test_an_objective_refuses_bad_settings():
    with pytest.raises(ValueError, match="entropy must be one of 'sampled_sum', .*; got 'mean'"):
        Objective(entropy="mean")


def test_the_defaults_are_the_papers():
    defaults = {name: p.default for name, p in inspect.signature(fgo_advantages).parameters.items()}
    wanted = {"alpha": 0.01, "beta": 1.0, "clamp": 10.0, "scale": "none", "valid": None}
    assert {name: defaults[name] for name in wanted} == wanted
    assert list(defaults) == ["correct", "length", "entropy", *wanted, "zero_all_wrong"]


def test_grpo_refuses_bad_input():
    with pytest.raises(ValueError, match=r"reward must be a \(Q, G\) tensor"):
        grpo_advantages(torch.ones(3))
    with pytest.raises(ValueError, match=r"reward must be finite, or NaN where unscorable; got inf"):
        grpo_advantages(table([1, INF]))


def test_advantages_need_no_trl():
    code = "import sys; sys.modules['trl'] = None; import labkit.fgo as f; print(f.fgo_advantages.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fgo_advantages\n"
