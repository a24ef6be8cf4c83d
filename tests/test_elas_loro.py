"""Loro step by step: Adam, exact steps, restarts, what is not finite, resuming, LORO's schedule."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from labkit.elas import Loro, LowRankLinear
from labkit.elas.riemannian import riemannian_step
from labkit.elas.schedule import cosine_restart

F64 = torch.float64


class Net(nn.Module):
    def __init__(self, dtype=F64):
        super().__init__()
        self.low = LowRankLinear(12, 10, rank=3, dtype=dtype)
        self.head = nn.Linear(10, 4, dtype=dtype)

    def forward(self, x):
        return self.head(self.low(x).relu())


def train(net, optimizer, steps, start=0):
    dtype = net.head.weight.dtype
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 12, generator=generator).to(dtype)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def test_steps_are_adam_scaled_then_exact_then_restarted():
    """Five steps with K = 3, replayed with dense formulas written out here."""
    net, lr, (b1, b2), eps = Net(), 0.05, (0.9, 0.999), 1e-6
    replay = copy.deepcopy(net)
    optimizer = Loro.for_model(net, hidden_size=6, lr=lr, exact_every=3, weight_decay=0.1)
    moments = {n: [torch.zeros_like(p), torch.zeros_like(p)] for n, p in replay.named_parameters()}
    for step in range(5):
        train(net, optimizer, 1, start=step)
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step)).double()
        replay.zero_grad()
        replay(x).square().mean().backward()
        s = step % 3 + 1
        rate = lr * (1 - b2**s) ** 0.5 / (1 - b1**s)
        d = {}
        for name, p in replay.named_parameters():
            m, v = moments[name]
            m = b1 * m + (1 - b1) * p.grad
            v = b2 * v + (1 - b2) * p.grad**2
            moments[name], d[name] = [m, v], m / (v.sqrt() + eps)
        if s == 3:
            moments = {name: [torch.zeros_like(m), torch.zeros_like(v)] for name, (m, v) in moments.items()}
        with torch.no_grad():
            for name, p in replay.named_parameters():
                if name.startswith("head"):
                    p.sub_(rate * d[name]).mul_(1 - lr * 0.1)
                elif s != 3:
                    p.sub_(rate * 3 / 6 * d[name])
            if s == 3:
                low = replay.low
                new = riemannian_step(
                    low.weight_out, low.weight_in, d["low.weight_out"], d["low.weight_in"], rate
                )
                low.weight_out.copy_(new[0])
                low.weight_in.copy_(new[1])
        for (name, p), q in zip(net.named_parameters(), replay.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-12, msg=f"step {step}: {name}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F64], ids=str)
@pytest.mark.parametrize("cut", [2, 3, 5])  # before, at and after an exact step
def test_resumes_bit_exactly(tmp_path, dtype, cut):
    whole = Net(dtype)
    halves = copy.deepcopy(whole)
    train(whole, Loro.for_model(whole, 12, lr=0.02, exact_every=3), 8)
    first = Loro.for_model(halves, 12, lr=0.02, exact_every=3)
    train(halves, first, cut)
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = Loro.for_model(halves, 12, lr=0.5, exact_every=7)  # all of it comes from the file
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(halves, second, 8 - cut, start=cut)
    for (name, p), q in zip(whole.named_parameters(), halves.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert p.dtype == dtype
        assert p.isfinite().all()


def test_without_exact_steps_it_is_adam():
    net, lr = nn.Linear(5, 3, dtype=F64), 0.01
    twin = copy.deepcopy(net)
    ours = Loro(net.parameters(), lr=lr, exact_every=None, eps=0.0)
    adam = torch.optim.Adam(twin.parameters(), lr=lr, eps=0.0)
    x = torch.randn(7, 5, dtype=F64)
    for model, optimizer in ((net, ours), (twin, adam)):
        for _ in range(10):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(net.weight, twin.weight, rtol=0, atol=1e-12)


def test_it_learns_a_low_rank_matrix():
    target = torch.randn(16, 2) @ torch.randn(2, 16)
    layer = LowRankLinear(16, 16, rank=2)
    optimizer = Loro.for_model(layer, 16, lr=0.05, exact_every=20)

    def error() -> float:
        return ((layer.dense_weight() - target).norm() / target.norm()).item()

    before = error()
    for _ in range(400):
        optimizer.zero_grad()
        (layer.dense_weight() - target).square().mean().backward()
        optimizer.step()
    assert error() < 0.05 < 0.5 < before


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("spoiled", "layer"),
    [("low.weight_out", "low"), ("low.weight_in", "low"), ("head.weight", "head.weight")],
)
def test_an_exact_step_that_is_not_finite_moves_nothing(value, spoiled, layer):
    net = Net(torch.float32)
    optimizer = Loro.for_model(net, hidden_size=12, lr=0.02, exact_every=3)
    train(net, optimizer, 2)
    before = copy.deepcopy(net.state_dict())
    for name, p in net.named_parameters():
        p.grad = torch.randn_like(p)
        if name == spoiled:
            p.grad[0, 0] = value
    optimizer.step()
    for name, p in net.state_dict().items():
        assert torch.equal(p, before[name]), name
    expected = [{"step": 3, "where": layer, "what": "not finite: no parameter moved"}]
    assert optimizer.findings == expected
    train(net, optimizer, 4)  # the restart has cleared the moments: training goes on
    assert all(p.isfinite().all() for p in net.parameters())
    assert not torch.equal(net.low.weight_out, before["low.weight_out"])
    assert optimizer.findings == expected


def test_a_lost_rank_is_a_finding_that_a_state_dict_carries():
    net = Net()
    with torch.no_grad():
        net.low.weight_in[:, 1] = net.low.weight_in[:, 0]
    optimizer = Loro.for_model(net, 12, lr=0.02, exact_every=1)
    train(net, optimizer, 2)  # the first step restores the rank
    expected = [{"step": 1, "where": "low", "what": "A has lower rank than r: pseudo-inverse"}]
    assert optimizer.findings == expected
    other = Loro.for_model(net, 12)
    other.load_state_dict(optimizer.state_dict())
    assert other.findings == expected


def test_zero_gradients_on_an_exact_step_keep_the_product():
    net = Net()
    optimizer = Loro.for_model(net, 12, lr=0.02, exact_every=1)
    product = net.low.dense_weight().detach().clone()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(net.low.dense_weight(), product, rtol=0, atol=1e-12)
    assert optimizer.findings == []


def test_cosine_restart_is_loros_schedule_of_its_60m_run():
    """Factors that LORO's own scheduler gives: 10,000 steps, warm-up 1,000, K = 500, adjusted by -1,000."""
    printed = {499: 0.5341, 500: 0.0, 501: 0.107, 504: 0.4279, 505: 0.5393, 1000: 0.9729, 1500: 0.0,
               5007: 0.774, 9999: 0.1272}  # fmt: skip
    for step, factor in printed.items():
        found = cosine_restart(step, total=10000, warmup=1000, every=500)
        assert found == pytest.approx(factor, abs=5e-4 if step == 5007 else 5e-5), step


@pytest.mark.parametrize(
    ("total", "warmup", "every"),
    [(10000, 1000, 500), (20000, 2000, 500), (100, 10, 20), (100, 30, 10), (90, 0, 30)],
)
def test_cosine_restart_step_by_step(total, warmup, every):
    """The whole schedule written out as arrays: the curve without restarts, then a ramp over each."""
    angle = np.pi / (total - warmup)
    late = (1 + np.cos(angle * (np.arange(warmup, total + 1) - 2 * warmup))) / 2
    expected = np.concatenate((np.linspace(0.1, late[0], warmup + 1)[:-1], 0.1 + 0.9 * late))
    curve = expected.copy()
    for restart in range(every, total + 1, every):
        if restart != warmup:
            ramp = np.linspace(1e-6, curve[restart], 6)[:5]
            expected[restart : restart + 5] = ramp[: total + 1 - restart]
    found = [cosine_restart(t, total=total, warmup=warmup, every=every) for t in range(total + 1)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    found = [cosine_restart(t, total=total, warmup=warmup, every=None) for t in range(total + 1)]
    np.testing.assert_allclose(found, curve, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("total", "warmup"), [(40, 20), (21, 20), (20, 20), (10, 20), (1, 0)])
def test_a_run_shorter_than_three_warm_ups_still_climbs(total, warmup):
    factors = [cosine_restart(t, total=total, warmup=warmup, every=None) for t in range(total + 1)]
    assert all(0.1 <= factor <= 1 for factor in factors)
    assert factors == sorted(factors) or max(factors[warmup:]) > 0.99 > factors[-1]


@pytest.mark.parametrize("every", range(1, 8))
def test_a_short_period_still_reaches_the_curve(every):
    ends = range(2 * every - 1, 40, every)
    found = [cosine_restart(t, total=40, warmup=0, every=every) for t in ends]
    assert found == [cosine_restart(t, total=40, warmup=0, every=None) for t in ends]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be a number >= 0; got -1.0"),
        ({"exact_every": 0}, "exact_every must be an integer >= 1; got 0"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\); got"),
        ({"betas": 0.9}, r"betas must be two numbers in \[0, 1\); got 0.9"),
        ({"betas": (0.9,)}, r"betas must be two numbers in \[0, 1\); got \(0.9,\)"),
        ({"eps": float("nan")}, "eps must be a number >= 0; got nan"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Loro(nn.Linear(2, 2).parameters(), **options)


def test_a_pair_group_needs_pairs():
    b, a, other = (nn.Parameter(torch.zeros(5, r)) for r in (2, 2, 3))
    for params in ([b], [b, other], [b, nn.Parameter(torch.zeros(2))]):
        with pytest.raises(ValueError, match="params must be pairs of matrices"):
            Loro([{"params": params, "hidden_size": 5}])
    Loro([{"params": [b, a], "hidden_size": 5}])
