"""The exact step of LORO: along the tangent of the rank-r matrices, and back onto them (retraction)."""

import torch
from torch import Tensor


def riemannian_step(
    b: Tensor,  # (out, r)
    a: Tensor,  # (in, r)
    db: Tensor,  # (out, r)
    da: Tensor,  # (in, r)
    lr: float,
    notes: list[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """The rank-r matrix nearest to X - lr T, X = B Aᵀ, as balanced factors (BᵀB = AᵀA).

    T is the tangent direction at X for which db and da stand:

        T = U UᵀG + (I - U Uᵀ) GV Vᵀ,   B = U R_b,  A = V R_a,  GV = db R_a⁻¹,  UᵀG = R_b⁻ᵀ daᵀ

    With db = G A and da = Gᵀ B of one matrix G (out, in) this is the tangent projection of G. Adam's
    directions come from no single G: UᵀGV could then be read from db or from da. Here, as in LORO's
    code (its K0 = UᵀG V), it is read from da, a heuristic.

    Where a factor has lower rank than r to working precision, R⁻¹ is the pseudo-inverse, which takes
    the tangent at the range of the factor; ``notes`` (if given) then gets a sentence that says so.

    The bases come from one QR each of [U, GV] and [V, GᵀU], so they are orthonormal for any directions,
    also where GV - U UᵀGV has dependent columns or out < 2r. NaN where the SVD fails, as it does on
    what is not finite.
    """
    # 1) orthonormal bases of the old range and the direction together, (out, 2r) and (in, 2r)
    rank = b.shape[1]
    u, r_b, gu = _split(b, da, "B", notes)
    v, r_a, gv = _split(a, db, "A", notes)
    left, of_left = torch.linalg.qr(torch.cat((u, gv), 1))
    right, of_right = torch.linalg.qr(torch.cat((v, gu), 1))
    # 2) X - lr T in coordinates of these bases, (2r, 2r); from here on u, gv, v, gu are (2r, r)
    u, gv = of_left.split(rank, 1)
    v, gu = of_right.split(rank, 1)
    core = u @ (r_b @ r_a.T + lr * u.T @ gv) @ v.T - lr * (u @ gu.T + gv @ v.T)
    # 3) retraction: the nearest matrix of rank r, split evenly between the factors
    try:
        p, s, qt = torch.linalg.svd(core, full_matrices=False)
    except torch.linalg.LinAlgError:
        return torch.full_like(b, torch.nan), torch.full_like(a, torch.nan)
    root = s[:rank].sqrt()
    return left @ (p[:, :rank] * root), right @ (qt[:rank].T * root)


def _split(x: Tensor, d: Tensor, name: str, notes: list[str] | None) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, R, d R⁻¹) of x = Q R, all (rows, r) but R; see ``riemannian_step`` for x of lower rank."""
    q, r = torch.linalg.qr(x)
    pivots = r.diagonal().abs()
    tiny = x.shape[1] * torch.finfo(x.dtype).eps * pivots.max()
    if pivots.min() <= tiny < torch.inf:  # also of zeros; never of NaN
        inverse = torch.linalg.pinv(r)
        if notes is not None:
            notes.append(f"{name} has lower rank than r: pseudo-inverse")
        return q @ (r @ inverse), r, d @ inverse
    return q, r, torch.linalg.solve_triangular(r, d, upper=True, left=False)
