"""Loro against dense linear algebra: projection, truncation, Adam, restarts, resuming."""

import copy

import pytest
import torch
from torch import nn

from labkit.elas import Loro, LowRankLinear
from labkit.elas.loro import cosine_restart, riemannian_step

F64 = torch.float64
SHAPES = [(20, 13, 4), (13, 20, 4), (9, 9, 9), (10, 6, 5), (7, 30, 1)]  # some with out or in < 2r


def pair(out, inner, rank):
    return torch.randn(out, rank, dtype=F64), torch.randn(inner, rank, dtype=F64)


def truncated(x, rank):
    u, s, vt = torch.linalg.svd(x)
    return u[:, :rank] * s[:rank] @ vt[:rank]


@pytest.mark.parametrize(("out", "inner", "rank"), SHAPES)
def test_exact_step_is_dense_projection_and_truncated_svd(out, inner, rank):
    b, a = pair(out, inner, rank)
    g = torch.randn(out, inner, dtype=F64)
    new_b, new_a = riemannian_step(b, a, g @ a, g.T @ b, lr=0.3)
    pu, pv = b @ torch.linalg.pinv(b), a @ torch.linalg.pinv(a)
    tangent = pu @ g + g @ pv - pu @ g @ pv
    torch.testing.assert_close(
        new_b @ new_a.T, truncated(b @ a.T - 0.3 * tangent, rank), rtol=0, atol=1e-10
    )
    torch.testing.assert_close(new_b.T @ new_b, new_a.T @ new_a, rtol=0, atol=1e-10)  # balanced


@pytest.mark.parametrize(("out", "inner", "rank"), SHAPES)
def test_exact_step_for_directions_of_no_common_gradient(out, inner, rank):
    """Adam's directions: the result is the best rank-r approximation of the documented X - lr T."""
    (b, a), (db, da) = pair(out, inner, rank), pair(out, inner, rank)
    new_b, new_a = riemannian_step(b, a, db, da, lr=0.1)
    (u, r_b), (v, r_a) = torch.linalg.qr(b), torch.linalg.qr(a)
    gv, utg = db @ r_a.inverse(), (da @ r_b.inverse()).T
    dense = b @ a.T - 0.1 * (u @ utg + gv @ v.T - u @ (utg @ v) @ v.T)
    torch.testing.assert_close(new_b @ new_a.T, truncated(dense, rank), rtol=0, atol=1e-9)


@pytest.mark.parametrize("which", ["none", "one", "same column"])
def test_exact_step_with_dependent_directions(which):
    b, a = pair(20, 13, 4)
    db, da = torch.zeros_like(b), torch.zeros_like(a)
    if which == "one":
        db[:, 2] = torch.randn(20, dtype=F64)
    if which == "same column":
        db[:], da[:] = torch.randn(20, 1, dtype=F64), torch.randn(13, 1, dtype=F64)
    new_b, new_a = riemannian_step(b, a, db, da, lr=0.1)
    (u, r_b), (v, r_a) = torch.linalg.qr(b), torch.linalg.qr(a)
    gv, utg = db @ r_a.inverse(), (da @ r_b.inverse()).T
    dense = b @ a.T - 0.1 * (u @ utg + gv @ v.T - u @ (utg @ v) @ v.T)
    torch.testing.assert_close(new_b @ new_a.T, truncated(dense, 4), rtol=0, atol=1e-9)


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
                    p.mul_(1 - lr * 0.1).sub_(rate * d[name])
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


def test_cosine_restart_schedule():
    factor = [cosine_restart(t, total=100, warmup=10, every=20) for t in range(101)]
    assert factor[0] == pytest.approx(0.1)
    assert factor[5] == pytest.approx(0.55)
    assert factor[10] == 1.0
    assert factor[100] == pytest.approx(0.0)  # the run ends on an exact step: a new ramp would begin
    assert factor[99] == pytest.approx(0.1, abs=1e-3)
    assert factor[20] == factor[40] == 0  # the step after an exact one
    assert factor[22] == pytest.approx(0.4 * cosine_restart(22, total=100, warmup=10, every=None))
    assert factor[39] == cosine_restart(39, total=100, warmup=10, every=None)


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
