"""LORO's exact step against dense linear algebra and against its specification."""

import pytest
import torch

from labkit.elas.riemannian import riemannian_step

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


def specified(b, a, db, da, lr, k0_from="da"):
    """B Aᵀ after LORO's exact step with its 2r x 2r core, step by step as its specification has it."""
    rank = b.shape[1]
    (u, r_b), (v, r_a) = torch.linalg.qr(b), torch.linalg.qr(a)
    gv, utg = db @ r_a.inverse(), r_b.inverse().T @ da.T
    k0 = utg @ v if k0_from == "da" else u.T @ gv
    q1, k1 = torch.linalg.qr((utg - utg @ v @ v.T).T)
    q2, k2 = torch.linalg.qr(gv - u @ u.T @ gv)
    core = torch.zeros(rank + len(k2), rank + len(k1), dtype=F64)
    core[:rank, :rank] = r_b @ r_a.T - lr * k0
    core[:rank, rank:], core[rank:, :rank] = -lr * k1.T, -lr * k2
    return torch.cat((u, q2), 1) @ truncated(core, rank) @ torch.cat((v, q1), 1).T


@pytest.mark.parametrize("directions", ["gradient", "Adam's"])
@pytest.mark.parametrize(("out", "inner", "rank"), SHAPES)
def test_exact_step_is_the_one_specified(out, inner, rank, directions):
    b, a = pair(out, inner, rank)
    g = torch.randn(out, inner, dtype=F64)
    db, da = g @ a, g.T @ b
    if directions == "Adam's":  # after a restart near sign(gradient): of no common G
        db, da = db.sign(), da.sign()
    new_b, new_a = riemannian_step(b, a, db, da, lr=0.1)
    step = (new_b @ new_a.T - b @ a.T).norm()
    expected = specified(b, a, db, da, 0.1)
    torch.testing.assert_close(new_b @ new_a.T, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(new_b.T @ new_b, new_a.T @ new_a, rtol=0, atol=1e-9)
    other = specified(b, a, db, da, 0.1, k0_from="db")
    assert ((other - expected).norm() > 0.05 * step) == (directions == "Adam's")  # else both read the same


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
    dense = b @ a.T - 0.1 * (u @ utg + (gv - u @ u.T @ gv) @ v.T)
    torch.testing.assert_close(new_b @ new_a.T, truncated(dense, 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize("lost", ["B is zero", "dead column of B", "two equal columns of A", "both"])
def test_exact_step_where_a_factor_has_lost_rank(lost):
    """The tangent is taken at the factor's range: dense projectors by SVD say the same."""
    b, a = pair(20, 13, 4)
    if lost == "B is zero":
        b.zero_()
    if lost in ("dead column of B", "both"):
        b[:, 1] = 0
    if lost in ("two equal columns of A", "both"):
        a[:, 3] = a[:, 0]
    g, notes = torch.randn(20, 13, dtype=F64), []
    new_b, new_a = riemannian_step(b, a, g @ a, g.T @ b, 0.1, notes)
    pu, pv = b @ torch.linalg.pinv(b), a @ torch.linalg.pinv(a)
    dense = b @ a.T - 0.1 * (pu @ g + g @ pv - pu @ g @ pv)
    torch.testing.assert_close(new_b @ new_a.T, truncated(dense, 4), rtol=0, atol=1e-9)
    assert [note[0] for note in notes] == {"both": ["B", "A"]}.get(lost, [lost[-1] if "A" in lost else "B"])
