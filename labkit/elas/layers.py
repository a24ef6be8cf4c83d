"""The two layers of ELAS: a low-rank linear map and ReLU² under a 2:4 mask.

LowRankLinear   y = (x A) Bᵀ, the layer LORO trains
Sparse24ReLU2   relu(x)², then the two largest of every four features; dense during the warm-up
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.checks import choice, fail, integer
from labkit.device import of_torch
from sparse24 import Packed, relu2_compress, sparsify

GRADIENTS = ("ste", "masked")


class LowRankLinear(nn.Module):
    """``y = (x A) Bᵀ`` without bias: an (out, in) matrix of rank r as two tall factors, both trained.

    "xavier" start: B ~ N(0, 2/(out + r)) and A ~ N(0, 2/(in + r)), drawn independently, so an entry of
    B Aᵀ has variance 4r/((out + r)(in + r)) (LORO, Mo et al. 2025).

    Args:
        in_features: width of x, the last dimension.
        out_features: width of y.
        rank: r, at most min(in_features, out_features).
        device: of the factors.
        dtype: of the factors.

    Attributes:
        weight_out: B, (out, r).
        weight_in: A, (in, r).

    Raises:
        ValueError: a size is not a positive integer, or the rank is too large.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, *, device=None, dtype=None):
        super().__init__()
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)
        self.rank = integer("rank", rank, 1, min(in_features, out_features))
        device = None if device is None else of_torch(device)
        self.weight_out = nn.Parameter(torch.empty(out_features, rank, device=device, dtype=dtype))  # B
        self.weight_in = nn.Parameter(torch.empty(in_features, rank, device=device, dtype=dtype))  # A
        self.reset_parameters()

    def reset_parameters(self, normal_=nn.init.normal_) -> None:
        """Draw both factors afresh; ``normal_(tensor, mean=, std=)`` may be replaced."""
        for weight in (self.weight_out, self.weight_in):
            normal_(weight, mean=0.0, std=math.sqrt(2 / sum(weight.shape)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x @ self.weight_in, self.weight_out)

    def dense_weight(self) -> Tensor:
        """B Aᵀ, (out, in): the matrix an ``nn.Linear`` of the same function would hold."""
        return self.weight_out @ self.weight_in.T

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"


class Sparse24ReLU2(nn.Module):
    """``relu(x)²`` and, once switched on, the 2:4 mask over the last dimension: the activation of ELAS.

    Args:
        gradient: what flows back through the mask: "ste" passes dL/dy on unchanged (straight-through),
            "masked" lets it through the kept entries only (the exact gradient).
        sparse: False: plain ReLU², no mask at any time (the LORO-ReLU² arm).
        warmup_steps: dense optimiser steps before the mask; count them with ``advance`` once per step;
            inside an ElasForCausalLM they count themselves.

    Raises:
        ValueError: an argument is none of these; the message names it.

    Whether the mask is on is decided by two buffers, ``mask_enabled`` and ``dense_steps_left``, and by
    nothing else (not by train/eval mode): a model that is saved and loaded evaluates as it did before,
    and so does one whose state was copied from another's in place. (Code of torch.compile takes such a copy
    up when ``sparse`` is next read outside of it.)
    A width that is no multiple of four is padded with zeros, so its last group has fewer members.
    """

    mask_enabled: Tensor  # () bool
    dense_steps_left: Tensor  # () int64
    _known: tuple[bool, int] | None  # both, as last read
    _on: bool | None  # whether the mask was on then
    _seen: list[tuple[int, int]]  # the buffers' versions then

    def __init__(self, gradient: str = "ste", *, sparse: bool = True, warmup_steps: int = 0):
        super().__init__()
        self.gradient = choice("gradient", gradient, GRADIENTS)
        self.start = (choice("sparse", sparse, (True, False)), integer("warmup_steps", warmup_steps, 0))
        self.register_buffer("mask_enabled", torch.empty((), dtype=torch.bool))
        self.register_buffer("dense_steps_left", torch.empty((), dtype=torch.int64))
        self.reset_switch()

    def reset_switch(self, constant_=nn.init.constant_) -> None:
        """Back to the start of the warm-up; ``constant_(tensor, value)`` may be replaced."""
        for buffer, value in zip((self.mask_enabled, self.dense_steps_left), self.start, strict=True):
            constant_(buffer, value)
        self._forget()

    @property
    def sparse(self) -> bool:
        """True if the mask is on now."""
        if torch.compiler.is_compiling():
            # guarded by torch.compile, whose code is made anew when the switch turns, and only then
            return self._values() == (True, 0) if self._on is None else self._on
        return self._switch() == (True, 0)

    @property
    def in_warmup(self) -> bool:
        """True while dense steps are left to count."""
        return self._switch()[1] > 0

    def set_sparse(self, sparse: bool) -> None:
        """Turn the mask on or off now and for good: no warm-up remains (post-hoc 2:4, ablations)."""
        self.mask_enabled.fill_(choice("sparse", sparse, (True, False)))
        self.dense_steps_left.zero_()
        self._read()

    def advance(self) -> None:
        """Count one optimiser step of the warm-up."""
        self.dense_steps_left.sub_(1).clamp_(min=0)
        self._read()

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> same shape, same dtype."""
        y = F.relu(x).square()
        if not self.sparse:
            return y
        return sparsify(pad_to_groups(y), gradient=self.gradient)[..., : x.shape[-1]]

    def packed(self, x: Tensor) -> Packed:
        """The masked activation in packed form (9/16 of the dense bf16 bytes), for ``sparse24.matmul``.

        RuntimeError while the mask is off: a dense activation has no packed form.
        """
        if not self.sparse:
            raise RuntimeError("packed() needs the mask on; it is off (warm-up, or sparse=False)")
        return relu2_compress(pad_to_groups(x), gradient=self.gradient)

    def extra_repr(self) -> str:
        return f"gradient={self.gradient!r}, sparse={self.start[0]}, warmup_steps={self.start[1]}"

    def _switch(self) -> tuple[bool, int]:
        """(mask_enabled, dense_steps_left), whoever wrote them last."""
        known = self._known
        # On a GPU each read waits, so buffers are read again only when they were written or replaced. On
        # a CPU always: a write through ``.data`` leaves no trace.
        if known is None or not self.mask_enabled.is_cuda or self._seen != self._versions():
            known = self._read()
        return known

    @torch.compiler.assume_constant_result
    def _values(self) -> tuple[bool, int]:
        return bool(self.mask_enabled), int(self.dense_steps_left)

    def _read(self) -> tuple[bool, int]:
        self._known = known = self._values()
        self._on = known == (True, 0)
        self._seen = self._versions()
        return known

    def _versions(self) -> list[tuple[int, int]]:
        """Changes with every write to the buffers; inference tensors, which keep no count, never do."""
        buffers = (self.mask_enabled, self.dense_steps_left)
        return [(id(b), -1 if b.is_inference() else b._version) for b in buffers]

    def _forget(self) -> None:
        self._known = self._on = None
        self._seen = []

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self._forget()
        if not self.mask_enabled.is_meta:
            self._read()


def pad_to_groups(x: Tensor) -> Tensor:
    """Zeros appended to the last dimension up to a multiple of four (x itself where none are needed)."""
    return F.pad(x, (0, -x.shape[-1] % 4)) if x.shape[-1] % 4 else x


def replace_linears(parent: nn.Module, rank: int) -> None:
    """Put a LowRankLinear of the same shape in the place of every nn.Linear that ``parent`` owns directly.

    Its rank is ``rank``, or the full one of a smaller matrix (grouped keys and values).
    ValueError if one of them has a bias, which the low-rank layer has not.
    """
    for name, child in list(parent.named_children()):
        if not isinstance(child, nn.Linear):
            continue
        if child.bias is not None:
            fail(f"{name}.bias", True, "False: low-rank layers have no bias")
        like = {"device": child.weight.device, "dtype": child.weight.dtype}
        sizes = child.in_features, child.out_features
        setattr(parent, name, LowRankLinear(*sizes, min(rank, *sizes), **like))
