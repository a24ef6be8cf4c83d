"""Loro: Adam on the factors of low-rank layers, with an exact Riemannian step every K (Mo et al. 2025).

In between, B and A move like ordinary parameters at rate lr * r/h. Every K-th step the pair moves along
the tangent of the rank-r manifold and is retracted by a truncated SVD, then all Adam states restart.
All other parameters get AdamW at rate lr. The learning-rate schedule that goes with it stands in
schedule.py. Source: LORO (Mo et al., ICLR 2025), Algorithm 2, and its published code.
"""

import math
from collections.abc import Iterable
from itertools import compress
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from labkit.checks import fail, integer, number
from labkit.elas.layers import LowRankLinear
from labkit.elas.riemannian import riemannian_step

BROKEN = "not finite: no parameter moved"
MOST_FINDINGS = 100


class Loro(Optimizer):
    """Optimiser over groups of which those with ``hidden_size`` = h hold low-rank pairs B, A, B, A, ...

    Approximate steps of the pairs are scaled by r/h. An exact step whose result is not finite moves no
    parameter, see ``findings``. States have the parameter's own dtype; arithmetic is float32 or wider. The
    step count lives in ``param_groups``, so a state dict resumes bit-exactly.

    Args:
        params: parameters, or groups as in torch; ``Loro.for_model`` makes them for a model.
        lr: step size of regular parameters and of exact steps.
        exact_every: K: steps K, 2K, 3K, ... (counting from 1) are exact and end with the restart; None: no
            exact steps and no restarts.
        betas: Adam's.
        eps: Adam's, added to sqrt(v) before bias correction, as LORO does.
        weight_decay: decoupled, after the step, on regular parameters only; LORO's code would also decay
            the factors between exact steps, but its runs have 0.

    Raises:
        ValueError: names the argument at fault.
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
        if not isinstance(betas, (tuple, list)) or len(betas) != 2 or 1 in betas:
            fail("betas", betas, "two numbers in [0, 1)")
        for beta in betas:
            number("betas", beta, 0, 1)
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
        if not isinstance(model, nn.Module):
            fail("model", type(model).__name__, "a torch module")
        pairs = [
            (f"{name}.{factor}".lstrip("."), getattr(layer, factor))
            for name, layer in model.named_modules() if isinstance(layer, LowRankLinear)
            for factor in ("weight_out", "weight_in")
        ]  # fmt: skip
        taken = {id(p) for _, p in pairs}
        regular = [(name, p) for name, p in model.named_parameters() if id(p) not in taken]
        groups: list[dict[str, Any]] = [{"params": regular}] if regular else []
        if pairs:
            if hidden_size is None:
                config: Any = model.config
                hidden_size = config.hidden_size
            groups.append({"params": pairs, "hidden_size": hidden_size})
        return cls(groups, **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step on all parameters; exact for low-rank pairs when K divides the count."""
        loss, due = None, []
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            every = group["exact_every"]
            since_restart = (group["steps"] % every if every else group["steps"]) + 1
            group["steps"] += 1
            beta1, beta2 = group["betas"]
            lr = group["lr"] * math.sqrt(1 - beta2**since_restart) / (1 - beta1**since_restart)
            if since_restart == every:
                due.append((group, lr))
            else:
                self._adam_step(group, lr)
        if due:
            self._exact_step(due)
        return loss

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What went wrong on exact steps: {step, where: layers, what}; a state dict carries them."""
        return self.param_groups[0].setdefault("findings", [])

    def _adam_step(self, group: dict[str, Any], lr: float) -> None:
        _, params = _trained(group)
        directions = self._directions(params, group)
        if group["hidden_size"] is None:
            self._move(params, directions, lr, 1 - group["lr"] * group["weight_decay"])
            return
        for rank in {p.shape[1] for p in params}:
            chosen = [i for i, p in enumerate(params) if p.shape[1] == rank]
            scale = lr * rank / group["hidden_size"]
            self._move([params[i] for i in chosen], [directions[i] for i in chosen], scale)

    def _exact_step(self, due: list[tuple[dict[str, Any], float]]) -> None:
        """The K-th step of each (group, lr): everything is computed before anything is written."""
        # 1) the new values
        moves: list[tuple[str, Tensor, Tensor]] = []  # layer, parameter, its new value
        found: dict[str, list[str]] = {}  # what: layers
        for group, lr in due:
            names, params = _trained(group)
            directions = [_whole(d) for d in self._directions(params, group)]
            wide = [_whole(p).to(d.dtype) for p, d in zip(params, directions, strict=True)]
            if group["hidden_size"] is None:
                decay = 1 - group["lr"] * group["weight_decay"]
                new = [decay * (p - lr * d) for p, d in zip(wide, directions, strict=True)]
                moves += zip(names, params, new, strict=True)
                continue
            for i in range(0, len(params), 2):
                layer, notes = names[i].removesuffix(".weight_out"), list[str]()
                pair = riemannian_step(wide[i], wide[i + 1], directions[i], directions[i + 1], lr, notes)
                moves += zip((layer, layer), params[i : i + 2], pair, strict=True)
                for note in notes:
                    found.setdefault(note, []).append(layer)
        # 2) all of them are written, or none where one is not finite
        broken = dict.fromkeys(layer for layer, _, value in moves if not value.isfinite().all())
        found = {BROKEN: list(broken)} if broken else found
        for _, p, value in [] if broken else moves:
            p.copy_(_sharded_like(p, value))
        for what, layers in found.items():
            if len(self.findings) < MOST_FINDINGS:
                where = layers[0] + f" and {len(layers) - 1} more" * (len(layers) > 1)
                self.findings.append({"step": due[0][0]["steps"], "where": where, "what": what})
        # 3) the restart
        for p in (p for group, _ in due for p in group["params"]):
            for moment in self.state[p].values():
                moment.zero_()

    @staticmethod
    def _move(params: list[Tensor], directions: list[Tensor], rate: float, decay: float = 1.0) -> None:
        """p <- decay (p - rate d), in the directions' dtype."""
        if not params:
            return
        wide = [p.to(d.dtype) for p, d in zip(params, directions, strict=True)]  # p itself if it is wide
        torch._foreach_add_(wide, directions, alpha=-rate)
        if decay != 1:
            torch._foreach_mul_(wide, decay)
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
        grads = [p.grad.to(t) for p, t in zip(params, types, strict=True) if p.grad is not None]
        m, v = ([s[k].to(t) for s, t in zip(states, types, strict=True)] for k in "mv")
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)
        _copy_narrow([s["m"] for s in states], m)
        _copy_narrow([s["v"] for s in states], v)
        roots = torch._foreach_sqrt(v)
        torch._foreach_add_(roots, group["eps"])
        return list(torch._foreach_div(m, roots))


def _whole(x: Tensor) -> Tensor:
    """x itself, or all of a tensor that FSDP2 has spread over processes: QR and SVD need every row."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def _sharded_like(p: Tensor, value: Tensor) -> Tensor:
    """``value`` spread over the processes as ``p`` is."""
    return distribute_tensor(value, p.device_mesh, p.placements) if isinstance(p, DTensor) else value


def _copy_narrow(kept: list[Tensor], wide: list[Tensor]) -> None:
    """Write float32 results back to parameters or states of a narrower type (nothing to do for others)."""
    for target, value in zip(kept, wide, strict=True):
        if target is not value:
            target.copy_(value)


def _trained(group: dict[str, Any]) -> tuple[list[str], list[Tensor]]:
    """Names and parameters of the group that have a gradient; of a pair both or none."""
    params = group["params"]
    names = group.get("param_names") or [str(i) for i in range(len(params))]
    size = 1 if group["hidden_size"] is None else 2
    ready = [all(p.grad is not None for p in params[i - i % size :][:size]) for i in range(len(params))]
    return list(compress(names, ready)), list(compress(params, ready))
