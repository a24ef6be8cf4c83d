"""The Triton backend: reference.py's functions as one kernel launch each, on their tensors' device.

Runs on CUDA devices of capability >= 8.0, and on any machine in Triton's interpreter
(TRITON_INTERPRET=1 before Triton is imported): slow, for tests; not bfloat16, which it gets wrong.
float16, bfloat16, float32; inputs that are not contiguous or not 16-byte aligned are copied first.
What calls these compares them with the reference first: sparse24.checked.
"""

import torch
import triton

from sparse24 import kernels, layouts
from sparse24.launch import aligned, on_device_of

INTERPRETED = not isinstance(kernels.unpack, triton.JITFunction)
# Rows x groups of one program; the interpreter pays by the program, the GPU by the register.
BM, BG = (64, 256) if INTERPRETED else (8, 64)


def _words(x: torch.Tensor) -> torch.Tensor:
    """The storage of ``x`` as int64 words, copied if strided or misaligned."""
    return aligned(x).view(torch.int64)


def size(shape: torch.Size) -> tuple[int, int]:
    """(rows T, groups per row G) of a dense shape."""
    groups = shape[-1] // 4
    return shape[:-1].numel(), groups


def _grid(rows: int, groups: int) -> tuple[int]:
    return (triton.cdiv(rows, BM) * triton.cdiv(groups, BG),)


def _kind(dtype: torch.dtype) -> dict:
    return {"WIDE": dtype == torch.float32, "BF16": dtype == torch.bfloat16}


def _pairs(values: torch.Tensor) -> torch.Tensor:
    """Kept pairs as integers: int32 for 16-bit values, int64 for float32."""
    return values.view(torch.int64 if values.dtype == torch.float32 else torch.int32)


def pack(x: torch.Tensor, square: bool = False, layout: str = "rows") -> tuple[torch.Tensor, torch.Tensor]:
    rows, groups = size(x.shape)
    if layout == "cusparselt":
        values, metadata = layouts.buffer(rows, 4 * groups, x.dtype, x.device)
        if values.numel():
            padded = values.shape[1] // 2
            grid = (values.shape[0] // 32 * triton.cdiv(padded, BG),)
            with on_device_of(x):
                kernels.pack_cusparselt[grid](
                    _words(x), _pairs(values), metadata.view(torch.int32), rows, groups, padded,
                    SQUARE=square, BF16=x.dtype == torch.bfloat16, ASM=not INTERPRETED, BH=16, BG=BG,
                )  # fmt: skip
        return values, metadata
    values = x.new_empty(*x.shape[:-1], 2 * groups)
    metadata = x.new_empty(*x.shape[:-1], -(-groups // 2), dtype=torch.uint8)
    if values.numel():
        per = 2 if groups % 8 else 8
        stored = metadata if per == 2 else metadata.view(torch.int32)
        with on_device_of(x):
            kernels.pack_rows[_grid(rows, groups)](
                _words(x), _pairs(values), stored, rows, groups,
                SQUARE=square, ASM=not INTERPRETED, PER=per, BM=BM, BG=BG, **_kind(x.dtype),
            )  # fmt: skip
    return values, metadata


def unpack(
    values: torch.Tensor, metadata: torch.Tensor, shape: torch.Size, layout: str = "rows"
) -> torch.Tensor:
    out = values.new_empty(shape)
    rows, groups = size(shape)
    if out.numel():
        with on_device_of(values, metadata):
            kernels.unpack[_grid(rows, groups)](
                _pairs(aligned(values)), aligned(metadata), out.view(torch.int64), rows, groups,
                values.shape[-1] // 2,
                WIDE=values.dtype == torch.float32, CUSPARSELT=layout == "cusparselt", BM=BM, BG=BG,
            )  # fmt: skip
    return out


def _prune(x: torch.Tensor, out: torch.Tensor, word: torch.dtype, mask: bool) -> torch.Tensor:
    rows, groups = size(x.shape)
    if out.numel():
        with on_device_of(x):
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
    """As in reference.py; ``packed_out`` for 16-bit types, the only ones of that layout."""
    rows, groups = size(grad.shape)
    words = _words(grad)
    out = words.view(grad.dtype) if in_place else grad.new_empty(grad.shape)
    if out.numel():
        pairs = words if values is None else _pairs(aligned(values))
        packed = words if packed_out is None else _pairs(packed_out)
        stored = layouts.padded(4 * groups) // 4 if layout == "cusparselt" else groups
        with on_device_of(grad, metadata, pairs):
            kernels.masked_grad[_grid(rows, groups)](
                words, pairs, aligned(metadata), out.view(torch.int64), packed, rows, groups, stored,
                SQUARE=values is not None, PACK=packed_out is not None, CUSPARSELT=layout == "cusparselt",
                BM=BM, BG=BG, **_kind(grad.dtype),
            )  # fmt: skip
    return out


def ste_grad(grad: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    grad, h = aligned(grad), aligned(h)
    out = torch.empty_like(grad)
    if out.numel():
        block = 65536 if INTERPRETED else 2048
        with on_device_of(grad, h):
            kernels.ste_grad[(triton.cdiv(out.numel(), block),)](grad, h, out, out.numel(), BLOCK=block)
    return out


def ste_backward(
    grad: torch.Tensor, h: torch.Tensor, in_place: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, groups = size(h.shape)
    words = _words(grad)
    out = words.view(grad.dtype) if in_place else grad.new_empty(grad.shape)
    pruned = h.new_empty(h.shape)
    if out.numel():
        with on_device_of(grad, h):
            kernels.ste_backward[_grid(rows, groups)](
                words, _words(h), out.view(torch.int64), pruned.view(torch.int64), rows, groups,
                ASM=not INTERPRETED, BM=BM, BG=BG, **_kind(h.dtype),
            )  # fmt: skip
    return out, pruned
