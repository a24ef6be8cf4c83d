"""The Triton backend: reference.py's functions as one kernel launch each.

Runs on CUDA devices of capability >= 8.0, and on any machine in Triton's interpreter
(TRITON_INTERPRET=1 before Triton is imported): slow, for tests; not bfloat16, which it gets wrong.
float16, bfloat16, float32; inputs that are not contiguous or not 8-byte aligned are copied first.
"""

import torch
import triton

from sparse24 import cusparselt, gemm, kernels, layouts
from sparse24.packed import Packed

INTERPRETED = not isinstance(kernels.unpack, triton.JITFunction)
# Rows x groups of one program; the interpreter pays by the program, the GPU by the register.
BM, BG = (64, 256) if INTERPRETED else (8, 64)


def _words(x: torch.Tensor) -> torch.Tensor:
    """The storage of ``x`` as int64 words, copied if strided or misaligned."""
    x = x.contiguous()
    return (x.clone() if x.data_ptr() % 8 else x).view(torch.int64)


def _size(shape: torch.Size) -> tuple[int, int]:
    """(rows T, groups per row G) of a dense shape."""
    groups = shape[-1] // 4
    return (shape.numel() // shape[-1] if groups else 0), groups


def _grid(rows: int, groups: int) -> tuple[int]:
    return (triton.cdiv(rows, BM) * triton.cdiv(groups, BG),)


def _kind(dtype: torch.dtype) -> dict:
    return {"WIDE": dtype == torch.float32, "BF16": dtype == torch.bfloat16}


def _pairs(values: torch.Tensor) -> torch.Tensor:
    """Kept pairs as integers: int32 for 16-bit values, int64 for float32."""
    return values.view(torch.int64 if values.dtype == torch.float32 else torch.int32)


def pack(x: torch.Tensor, square: bool = False, layout: str = "rows") -> tuple[torch.Tensor, torch.Tensor]:
    rows, groups = _size(x.shape)
    if layout == "cusparselt":
        values, metadata = layouts.buffer(rows, 4 * groups, x.dtype, x.device)
        if values.numel():
            padded = values.shape[1] // 2
            grid = (values.shape[0] // 32 * triton.cdiv(padded, BG),)
            kernels.pack_cusparselt[grid](
                _words(x), _pairs(values), metadata.view(torch.int32), rows, groups, padded,
                SQUARE=square, BF16=x.dtype == torch.bfloat16, ASM=not INTERPRETED, BH=16, BG=BG,
            )  # fmt: skip
        return values, metadata
    values = x.new_empty(*x.shape[:-1], 2 * groups)
    metadata = x.new_empty(*x.shape[:-1], -(-groups // 2), dtype=torch.uint8)
    if values.numel():
        per = 2 if groups % 8 else 8
        kernels.pack_rows[_grid(rows, groups)](
            _words(x), _pairs(values), metadata if per == 2 else metadata.view(torch.int32), rows, groups,
            SQUARE=square, ASM=not INTERPRETED, PER=per, BM=BM, BG=BG, **_kind(x.dtype),
        )  # fmt: skip
    return values, metadata


def _stored_groups(values: torch.Tensor) -> int:
    return values.shape[-1] // 2


def unpack(
    values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size, layout: str = "rows"
) -> torch.Tensor:
    out = values.new_empty(shape)
    rows, groups = _size(shape)
    if out.numel():
        kernels.unpack[_grid(rows, groups)](
            _pairs(values), metadata, out.view(torch.int64), rows, groups, _stored_groups(values),
            WIDE=values.dtype == torch.float32, CUSPARSELT=layout == "cusparselt", BM=BM, BG=BG,
        )  # fmt: skip
    return out


def multiply(packed: Packed, weight: torch.Tensor) -> torch.Tensor:
    """A W^T: on sparse tensor cores if the layout says so, else unpacked first."""
    if packed.layout == "cusparselt" and packed.values.is_cuda:
        return cusparselt.multiply(packed, weight, unpack)
    return unpack(packed.values, packed.metadata, packed.shape, packed.layout) @ weight.t()


def layout_for(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str:
    """The layout to pack a tensor of this shape in, so that its products run fastest here."""
    return cusparselt.layout_for(shape, device, dtype) if device.type == "cuda" else "rows"


def relu2_up(z: torch.Tensor, up: torch.Tensor, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``pack(z up^T, square=True)``; one fused kernel where it is faster than two."""
    if layout == "cusparselt" and gemm.wins(z, up):
        return gemm.relu2_pack(z, up)
    return pack(z @ up.t(), True, layout)


def _prune(x: torch.Tensor, out: torch.Tensor, word: torch.dtype, mask: bool) -> torch.Tensor:
    rows, groups = _size(x.shape)
    if out.numel():
        kernels.prune[_grid(rows, groups)](
            _words(x), out.view(word), rows, groups,
            MASK=mask, ASM=not INTERPRETED, BM=BM, BG=BG, **_kind(x.dtype),
        )  # fmt: skip
    return out


def prune(x: torch.Tensor) -> torch.Tensor:
    return _prune(x, x.new_empty(x.shape), torch.int64, mask=False)


def mask(x: torch.Tensor) -> torch.Tensor:
    return _prune(x, x.new_empty(x.shape, dtype=torch.bool), torch.int32, mask=True)


def masked_grad(
    grad: torch.Tensor,
    metadata: torch.Tensor,
    values: torch.Tensor | None = None,
    layout: str = "rows",
    packed_out: torch.Tensor | None = None,
    in_place: bool = False,
) -> torch.Tensor:
    """As in reference.py; ``packed_out`` (like ``values``) also receives the packed gradient."""
    rows, groups = _size(grad.shape)
    words = _words(grad)
    out = words.view(grad.dtype) if in_place else grad.new_empty(grad.shape)
    if out.numel():
        pairs = words if values is None else _pairs(values)
        stored = layouts.padded(4 * groups) // 4 if layout == "cusparselt" else groups
        kernels.masked_grad[_grid(rows, groups)](
            words, pairs, metadata, out.view(torch.int64),
            words if packed_out is None else _pairs(packed_out), rows, groups, stored,
            SQUARE=values is not None, PACK=packed_out is not None, CUSPARSELT=layout == "cusparselt",
            BM=BM, BG=BG, **_kind(grad.dtype),
        )  # fmt: skip
    return out


def packed_like(
    values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for other kept values at the same positions, for layout "cusparselt".

    The values are uninitialised, but 0 in padding columns; the metadata is a copy, because the GEMM
    finds it behind the values.
    """
    new_values, new_metadata = layouts.buffer(
        values.shape[0], 2 * values.shape[1], values.dtype, values.device
    )
    new_values[:, shape[-1] // 2 :] = 0
    new_metadata.copy_(metadata)
    return new_values, new_metadata


def ste_grad(grad: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    grad, h = grad.contiguous(), h.contiguous()
    out = torch.empty_like(grad)
    if out.numel():
        block = 65536 if INTERPRETED else 2048
        kernels.ste_grad[(triton.cdiv(out.numel(), block),)](grad, h, out, out.numel(), BLOCK=block)
    return out
