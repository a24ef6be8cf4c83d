"""Loro: Adam on the factors of low-rank layers, with an exact Riemannian step every K (Mo et al. 2025).

In between, B and A move like ordinary parameters at rate lr * r/h. Every K-th step the pair moves along
the tangent of the rank-r manifold and is retracted by a truncated SVD, then all Adam states restart.
All other parameters get AdamW at rate lr. ``cosine_restart`` is the learning-rate schedule that goes
with it. Source: LORO (Mo et al., ICLR 2025), Algorithm 2.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from labkit.checks import fail, integer, number
from labkit.elas.layers import LowRankLinear


class Loro(Optimizer):
    """Optimiser over groups of which those with ``hidden_size`` hold low-rank pairs B, A, B, A, ...

    params          parameters, or groups as in torch; ``Loro.for_model`` makes them for a model
    lr              step size of regular parameters and of exact steps
    exact_every     K: steps K, 2K, 3K, ... (counting from 1) are exact and end with the restart;
                    None: no exact steps and no restarts
    betas, eps      Adam's; eps is added to sqrt(v) before bias correction, as LORO does
    weight_decay    decoupled, on regular parameters only

    A group key ``hidden_size`` = h marks low-rank pairs; their approximate steps are scaled by r/h.
    States have the parameter's own dtype; arithmetic is float32 or wider. The step count lives in
    ``param_groups``, so a state dict resumes bit-exactly. ValueError names the argument at fault.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        *,
        exact_every: int | None = 500,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        number("lr", lr, 0)
        if exact_every is not None:
            integer("exact_every", exact_every, 1)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            fail("betas", betas, "two numbers in [0, 1)")
        for beta in betas:
            if number("betas", beta, 0, 1) == 1:
                fail("betas", betas, "two numbers in [0, 1)")
        number("eps", eps, 0)
        number("weight_decay", weight_decay, 0)
        defaults = {
            "lr": lr, "exact_every": exact_every, "betas": betas, "eps": eps,
            "weight_decay": weight_decay, "hidden_size": None, "steps": 0,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["hidden_size"] is None:
            return
        integer("hidden_size", group["hidden_size"], 1)
        shapes = [tuple(p.shape) for p in group["params"]]
        if len(shapes) % 2 or any(len(shape) != 2 for shape in shapes):
            fail("params", shapes, "pairs of matrices B (out, r), A (in, r) in a group with hidden_size")
        for b, a in zip(shapes[::2], shapes[1::2], strict=True):
            if b[1] != a[1]:
                fail("params", (b, a), "pairs of matrices of one rank in a group with hidden_size")

    @classmethod
    def for_model(cls, model: nn.Module, hidden_size: int | None = None, **options: Any) -> Self:
        """Every LowRankLinear of ``model`` as a pair, everything else as regular parameters.

        hidden_size   h of the step scale r/h (default: ``model.config.hidden_size``)
        """
        layers = [m for m in model.modules() if isinstance(m, LowRankLinear)]
        pairs = [p for layer in layers for p in (layer.weight_out, layer.weight_in)]
        taken = set(map(id, pairs))
        groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if id(p) not in taken]}]
        if pairs:
            groups.append({"params": pairs, "hidden_size": hidden_size or model.config.hidden_size})
        return cls(groups, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None):
        """One step on all parameters; exact for low-rank pairs when K divides the count."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            every = group["exact_every"]
            since_restart = (group["steps"] % every if every else group["steps"]) + 1
            group["steps"] += 1
            exact = since_restart == every
            beta1, beta2 = group["betas"]
            lr = group["lr"] * math.sqrt(1 - beta2**since_restart) / (1 - beta1**since_restart)
            if group["hidden_size"] is None:
                self._step_regular(group, lr)
            else:
                self._step_pairs(group, lr, exact)
            if exact:
                for p in group["params"]:
                    for moment in self.state[p].values():
                        moment.zero_()
        return loss

    def _step_regular(self, group: dict[str, Any], lr: float) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        decay = 1 - group["lr"] * group["weight_decay"]
        self._move(params, self._directions(params, group), lr, decay)

    def _step_pairs(self, group: dict[str, Any], lr: float, exact: bool) -> None:
        pairs = zip(group["params"][::2], group["params"][1::2], strict=True)
        pairs = [pair for pair in pairs if all(p.grad is not None for p in pair)]
        params = [p for pair in pairs for p in pair]
        directions = self._directions(params, group)
        if exact:
            moves = zip(pairs, directions[::2], directions[1::2], strict=True)
            for (b, a), db, da in moves:
                for p, new in zip(
                    (b, a), riemannian_step(b.to(db.dtype), a.to(da.dtype), db, da, lr), strict=True
                ):
                    p.copy_(new)
            return
        for rank in {p.shape[1] for p in params}:
            chosen = [i for i, p in enumerate(params) if p.shape[1] == rank]
            scale = lr * rank / group["hidden_size"]
            self._move([params[i] for i in chosen], [directions[i] for i in chosen], scale)

    @staticmethod
    def _move(params: list[Tensor], directions: list[Tensor], rate: float, decay: float = 1.0) -> None:
        """p <- decay p - rate d, in the directions' dtype."""
        if not params:
            return
        wide = [p.to(d.dtype) for p, d in zip(params, directions, strict=True)]  # p itself if it is wide
        if decay != 1:
            torch._foreach_mul_(wide, decay)
        torch._foreach_add_(wide, directions, alpha=-rate)
        _copy_narrow(params, wide)

    def _directions(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Update the moments; return m / (sqrt(v) + eps) of each parameter in float32 or wider."""
        if not params:
            return []
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if not state:
                state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
        types = [torch.promote_types(p.dtype, torch.float32) for p in params]
        beta1, beta2 = group["betas"]
        grads = [p.grad.to(t) for p, t in zip(params, types, strict=True)]
        m, v = ([s[k].to(t) for s, t in zip(states, types, strict=True)] for k in "mv")
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)
        _copy_narrow([s["m"] for s in states], m)
        _copy_narrow([s["v"] for s in states], v)
        roots = torch._foreach_sqrt(v)
        torch._foreach_add_(roots, group["eps"])
        return torch._foreach_div(m, roots)


def _copy_narrow(kept: list[Tensor], wide: list[Tensor]) -> None:
    """Write float32 results back to parameters or states of a narrower type (nothing to do for others)."""
    for target, value in zip(kept, wide, strict=True):
        if target is not value:
            target.copy_(value)


def riemannian_step(b: Tensor, a: Tensor, db: Tensor, da: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """The rank-r matrix nearest to X - lr T, X = B Aᵀ, as balanced factors (BᵀB = AᵀA).

    b, db (out, r) and a, da (in, r); T is the tangent direction at X for which db and da stand:

        T = U UᵀG + GV Vᵀ - U (UᵀGV) Vᵀ,   B = U R_b,  A = V R_a,  GV = db R_a⁻¹,  GᵀU = da R_b⁻¹

    With db = G A and da = Gᵀ B of one matrix G (out, in) this is the tangent projection of G. For
    directions that no single G produces (Adam's), UᵀGV is read from da, as LORO does.

    The bases come from one QR each of [U, GV] and [V, GᵀU], so they are orthonormal for any directions,
    also where GV - U UᵀGV has dependent columns or out < 2r.
    """
    rank = b.shape[1]
    (u, r_b), (v, r_a) = torch.linalg.qr(b), torch.linalg.qr(a)
    gv = torch.linalg.solve_triangular(r_a, db, upper=True, left=False)
    gu = torch.linalg.solve_triangular(r_b, da, upper=True, left=False)
    left, of_left = torch.linalg.qr(torch.cat((u, gv), 1))
    right, of_right = torch.linalg.qr(torch.cat((v, gu), 1))
    # from here on everything in coordinates of the bases `left` and `right`, (2r, r)
    u, gv = of_left.split(rank, 1)
    v, gu = of_right.split(rank, 1)
    core = u @ (r_b @ r_a.T + lr * gu.T @ v) @ v.T - lr * (u @ gu.T + gv @ v.T)
    p, s, qt = torch.linalg.svd(core, full_matrices=False)
    root = s[:rank].sqrt()
    return left @ (p[:, :rank] * root), right @ (qt[:rank].T * root)


def cosine_restart(
    step: int,
    *,
    total: int,
    warmup: int,
    every: int | None,
    rewarm: int = 5,
    floor: float = 0.1,
) -> float:
    """Factor on the learning rate at ``step`` (from 0): warm-up, cosine, and a short ramp per restart.

    floor -> 1 linearly over ``warmup`` steps, a cosine back to ``floor`` at ``total``; once the
    warm-up is over, the ``rewarm`` steps after each exact step climb from 0 to that curve: fewer where
    ``every`` is as short, so that the last step of a period is on the curve (none for every=1).
    """
    if step < warmup:
        return floor + (1 - floor) * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    curve = floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
    if every is None:
        return curve
    rewarm = min(rewarm, every - 1)
    if step < every or step % every >= rewarm:
        return curve
    return curve * (step % every) / rewarm
