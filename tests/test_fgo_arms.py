"""The rivals' formulas by hand, and what they change in a training step."""

import pytest
import torch

from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import build_char_model
from labkit.studies.fgo import arms
from labkit.studies.fgo.arms import ARMS, FAMILIES, Arm
from labkit.studies.fgo.lockstep import CopiesAdamW, policy_step


def batch(correct, length, **more):
    """(1, Q, G) each, of tables (Q, G)."""
    tables = {"correct": torch.tensor(correct, dtype=torch.bool), "length": torch.tensor(length)}
    return {name: value[None] for name, value in (tables | more).items()}


def judged(arm, correct, length, limit=100):
    return arms.judge(batch(correct, length), [arm], limit)[0].tolist()


def test_every_family_is_tuned_on_an_arm_of_its_own():
    assert {arm.family for arm in ARMS.values()} == set(FAMILIES)
    assert all(ARMS[name].family == family for family, name in FAMILIES.items())


def test_the_soft_punishment_begins_a_buffer_before_the_limit():
    found = arms.soft_overlong(torch.tensor([70, 80, 90, 100]), limit=100, buffer=20)
    assert found.tolist() == [0, 0, -0.5, -1]


def test_dapo_divides_by_the_standard_deviation_and_leaves_out_groups_that_agree():
    arm = Arm("DAPO", "dapo", {"buffer": 0.2})
    mixed, agreed = judged(arm, [[1, 1, 0, 0], [1, 1, 1, 1]], [[50, 90, 50, 50], [50, 90, 95, 100]])
    # rewards 1, 1 - 0.5, -1, -1: mean -0.125, standard deviation sqrt(1.0625)
    assert mixed == pytest.approx([d / 1.0625**0.5 for d in (1.125, 0.625, -0.875, -0.875)], rel=2e-4)
    assert agreed == [0, 0, 0, 0]


def test_the_linear_penalty_grows_with_the_share_that_is_right():
    arm = Arm("linear penalty", "linear", {"coef": 0.25})
    half, none, whole = judged(
        arm,
        [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
        [[10, 20, 40, 20], [10, 20, 30, 40], [10, 20, 30, 40]],
    )
    rewards = [1 - 0.03125, 1 - 0.0625, -0.125, -0.0625]
    assert half == pytest.approx([reward - 0.4296875 for reward in rewards])
    assert none == [0, 0, 0, 0]  # a question that nobody solves is not shortened
    assert whole == pytest.approx([0.25 * (0.625 - share) for share in (0.25, 0.5, 0.75, 1)])


def test_shorter_better_aims_at_the_shortest_right_answer_else_at_the_mean():
    found = arms.shorter_better(
        torch.tensor([[1, 1, 0], [0, 0, 0]]), torch.tensor([[10, 16, 30], [10, 20, 30]]), beta=0.1
    )
    assert found[0].tolist() == pytest.approx([2, 1.4, -2])
    assert found[1].tolist() == pytest.approx([-1, 0, -1])


def test_grpo_and_dr_grpo_differ_by_the_standard_deviation():
    correct, length = [[1, 0, 0, 0]], [[5, 5, 5, 5]]
    assert judged(ARMS["GRPO"], correct, length)[0] == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=2e-4)
    assert judged(ARMS["Dr. GRPO"], correct, length)[0] == pytest.approx([1.5, -0.5, -0.5, -0.5])
    many = judged(ARMS["Dr. GRPO"], [[1, 0] * 4], [[5] * 8])[0]
    assert many == [1, -1] * 4
    assert judged(ARMS["GRPO"], [[1, 0] * 4], [[5] * 8])[0] == pytest.approx(
        [(7 / 8) ** 0.5, -((7 / 8) ** 0.5)] * 4, rel=2e-4
    )


def test_the_weight_of_a_token():
    length, advantages = torch.tensor([[2, 3], [5, 10]]), torch.tensor([[1.0, -1], [0, 0]])
    weigh = {
        loss: arms.loss_weights(loss, length, advantages, 16).tolist()
        for loss in ("token", "kept", "response", "constant")
    }
    assert weigh["token"] == [[0.05, 0.05], [0.05, 0.05]]
    assert weigh["kept"] == [[0.2, 0.2], [0, 0]]
    assert weigh["response"] == [[1 / 8, 1 / 12], [1 / 20, 1 / 40]]
    assert weigh["constant"] == [[1 / 64, 1 / 64], [1 / 64, 1 / 64]]


def test_the_entropy_bonus_rises_below_its_target_and_is_paid_only_there():
    entropy = torch.tensor([0.1, 0.2, 0.3, 0.1], dtype=torch.double)
    target = torch.tensor([0.2, 0.2, 0.2, torch.nan], dtype=torch.double)
    bonus, after = arms.control(torch.tensor([0.5, 0.5, 0.5, 0.0], dtype=torch.double), entropy, target)
    assert bonus.tolist() == [0.5, 0.5, 0, 0]
    assert after.tolist() == pytest.approx([0.505, 0.495, 0.495, 0])
    ends = arms.control(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 9.0]), torch.tensor([1.0, 1.0]))[1]
    assert ends.tolist() == [1, 0]


def small():
    torch.manual_seed(0)
    return build_char_model(hidden=16, layers=1, heads=2)


def responses(copies, rows):
    ids = torch.randint(3, 19, (copies, rows, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[..., 4:] = True
    return ids, mask


def test_the_bonus_is_the_gradient_of_the_mean_entropy():
    model, (ids, mask) = small(), responses(1, 4)
    fleet = Fleet(model, 1)
    descent = torch.optim.SGD(fleet.weights.values(), 1.0)
    loss, _ = policy_step(
        fleet, descent, ids, mask, torch.zeros(1, 4), bonus=torch.tensor([0.3]), chunks=2, max_grad_norm=1e9
    )
    logp = model(input_ids=ids[0]).logits[:, 3:-1].log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1).mean()
    entropy.backward()
    assert loss.item() == pytest.approx(-0.3 * entropy.item(), rel=1e-5)
    for name, value in model.named_parameters():
        torch.testing.assert_close(fleet.weights[name][0], value + 0.3 * value.grad, atol=1e-5, rtol=1e-4)


def test_every_copy_has_its_own_learning_rate():
    ids, mask = responses(2, 6)
    pull = torch.randn(2, 6, generator=torch.Generator().manual_seed(2)) / 10
    both, alone = Fleet(small(), 2), Fleet(small(), 1)
    for fleet, part, optimizer in (
        (both, slice(0, 2), CopiesAdamW(both.weights.values(), torch.tensor([1e-2, 0.25e-2]))),
        (alone, slice(1, 2), torch.optim.AdamW(alone.weights.values(), 0.25e-2, weight_decay=0.0)),
    ):
        for _ in range(3):
            policy_step(fleet, optimizer, ids[part], mask[part], pull[part])
    for name, value in alone.weights.items():
        torch.testing.assert_close(both.weights[name][1], value[0], atol=1e-5, rtol=1e-4)


def test_responses_that_teach_nothing_change_nothing():
    (ids, mask), fleets = responses(1, 6), [Fleet(small(), 1), Fleet(small(), 1)]
    pull = torch.tensor([[0.0, 1, 0, -1, 0, 0]]) / 30
    for fleet, rows in zip(fleets, (slice(0, 6), slice(1, 4)), strict=True):
        descent = torch.optim.SGD(fleet.weights.values(), 1.0)
        policy_step(fleet, descent, ids[:, rows], mask[:, rows], pull[:, rows], chunks=2)
    for name, value in fleets[0].weights.items():
        torch.testing.assert_close(value, fleets[1].weights[name], atol=1e-6, rtol=1e-5)
