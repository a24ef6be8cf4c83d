"""The Triton backend as dispatch.py uses it: each kernel compared with the reference before its first use.

A specialisation is what Triton compiles on its own: a kernel, a dtype, flags, and of each size whether it
is 1 or a multiple of 16. Its case is a small tensor of the same kind.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from sparse24 import cusparselt, gemm, reference, selfcheck, triton
from sparse24.packed import Packed

# Relative difference allowed where a square root is rounded; everything else is equal bit for bit.
ROUNDING = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-5}


class Checked:
    """reference.py's functions by Triton, or by the reference where a kernel is wrong on this machine.

    ``strict``: a wrong kernel is a RuntimeError instead.
    """

    def __init__(self, strict: bool):
        self.strict = strict

    def _ok(self, kernel: str, shape: tuple[int, ...], like: torch.Tensor, *flags: Any) -> bool:
        case = kernel, like.device, like.dtype, shape, *flags
        return selfcheck.ok(case, partial(compare, *case), strict=self.strict)

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return (triton if self._ok("prune", _small(x.shape), x, True) else reference).mask(x)

    def prune(self, x: torch.Tensor) -> torch.Tensor:
        return (triton if self._ok("prune", _small(x.shape), x, False) else reference).prune(x)

    def pack(
        self, x: torch.Tensor, square: bool = False, layout: str = "rows"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        right = self._ok(f"pack_{layout}", _small(x.shape), x, square)
        return (triton if right else reference).pack(x, square, layout)

    def unpack(
        self, values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size, layout: str = "rows"
    ) -> torch.Tensor:
        right = self._ok("unpack", _small(shape), values, layout)
        return (triton if right else reference).unpack(values, metadata, shape, layout)

    def masked_grad(
        self,
        grad: torch.Tensor,
        metadata: torch.Tensor,
        values: torch.Tensor | None = None,
        layout: str = "rows",
        packed_out: torch.Tensor | None = None,
        in_place: bool = False,
    ) -> torch.Tensor:
        flags = layout, values is not None, packed_out is not None
        right = self._ok("masked_grad", _small(grad.shape), grad, *flags)
        run = (triton if right else reference).masked_grad
        return run(grad, metadata, values, layout, packed_out, in_place)

    def ste_grad(self, grad: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        shape = (4096,) if h.numel() % 16 == 0 else (4100,)
        return (triton if self._ok("ste_grad", shape, h) else reference).ste_grad(grad, h)

    def ste_backward(
        self, grad: torch.Tensor, h: torch.Tensor, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        right = self._ok("ste_backward", _small(h.shape), h)
        return (triton if right else reference).ste_backward(grad, h, in_place)

    def relu2_up(self, z: torch.Tensor, up: torch.Tensor, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``pack(z up^T, square=True)``; one fused kernel where it is faster than two."""
        if layout == "cusparselt" and gemm.wins(z, up):
            shape = (130, 144 if up.shape[1] % 16 == 0 else 136)
            if self._ok("gemm_pack", shape, z):
                return gemm.relu2_pack(z, up)
        return self.pack(z @ up.t(), True, layout)

    def multiply(self, packed: Packed, weight: torch.Tensor) -> torch.Tensor:
        """A W^T: on sparse tensor cores if the layout says so, else unpacked first."""
        if packed.layout == "cusparselt" and packed.values.is_cuda:
            return cusparselt.multiply(packed, weight, self.unpack)
        return self.unpack(packed.values, packed.metadata, packed.shape, packed.layout) @ weight.t()

    def layout_for(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str:
        """The layout to pack a tensor of this shape in, so that its products run fastest here."""
        return cusparselt.layout_for(shape, device, dtype) if device.type == "cuda" else "rows"


def _small(shape: torch.Size) -> tuple[int, int]:
    """A small (rows, columns) for which Triton compiles what it compiles for ``shape``."""
    rows, groups = triton.size(shape)
    rows = 1 if rows == 1 else 35 if rows % 16 else 32
    # Metadata is stored by eights of groups where it can be.
    groups = 1 if groups == 1 else 67 if groups % 8 else 72 if groups % 16 else 80
    return rows, 4 * groups


def compare(kernel: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], *flags) -> None:
    """AssertionError if ``kernel`` and the reference differ on a random tensor of ``shape``."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    flat = x.view(-1)
    flat[::7], flat[1::5], flat[3::11] = 0, 1, -1  # ties
    flat[16::97], flat[18::89], flat[21::83] = float("nan"), float("inf"), -float("inf")
    x = x.to(device, dtype)
    got, expected = (_CASES[kernel](ops, x, *flags) for ops in (triton, reference))
    near = ROUNDING[dtype] if kernel == "masked_grad" else 0
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=near, atol=0, equal_nan=True)


def _prune(ops, x, mask):
    return [ops.mask(x) if mask else ops.prune(x)]


def _pack(ops, x, square, layout):
    return ops.pack(x, square, layout)


def _unpack(ops, x, layout):
    return [ops.unpack(*reference.pack(x, False, layout), x.shape, layout)]


def _masked_grad(ops, x, layout, square, packed):
    values, metadata = reference.pack(x, square, layout)
    room = torch.zeros_like(values) if packed else None
    dense = ops.masked_grad(x.flip(0), metadata, values if square else None, layout, room, packed)
    return [dense, room] if packed else [dense]


def _ste_grad(ops, x):
    return [ops.ste_grad(x.flip(0), x)]


def _ste_backward(ops, x):
    return ops.ste_backward(x.flip(0), x)


def _gemm_pack(ops, x):
    z = x.nan_to_num(1, 1, 1).round().clamp(-2, 2)  # small integers: sums exact in any order
    up = z.repeat(3, 1)[:320].sign()
    z[1, 0] = float("nan")
    if ops is triton:
        return gemm.relu2_pack(z, up)
    return reference.pack((z.float() @ up.float().t()).to(x.dtype), True, "cusparselt")


_CASES: dict[str, Callable] = {
    "prune": _prune,
    "pack_rows": partial(_pack, layout="rows"),
    "pack_cusparselt": partial(_pack, layout="cusparselt"),
    "unpack": _unpack,
    "masked_grad": _masked_grad,
    "ste_grad": _ste_grad,
    "ste_backward": _ste_backward,
    "gemm_pack": _gemm_pack,
}
