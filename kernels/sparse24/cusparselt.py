"""Products with packed activations on NVIDIA's sparse tensor cores, and what to do where there are none.

What can fail falls back, for its shape alone and with one warning that says why: cached plan
(sparse24.plans) -> torch._cslt_sparse_mm -> unpack and an ordinary product. Out of memory is raised.
"""

import warnings
from functools import cache

import torch

from sparse24 import layouts, selfcheck, triton
from sparse24.launch import aligned, on_device_of
from sparse24.packed import Packed
from sparse24.plans import CUDA_TYPE, plan_for

EVERYWHERE = None
_broken: set[tuple] = set()  # (way, the operands' shapes or EVERYWHERE) that failed in this process


def multiply(packed: Packed, weight: torch.Tensor, unpack) -> torch.Tensor:
    """packed (..., K) in layout "cusparselt" times weight (N, K) transposed -> (..., N).

    ``unpack`` is the backend's own, for the last resort. N must be a multiple of 8.
    """
    values, metadata = layouts.together(packed.values, packed.metadata)  # a pickle may have parted them
    lead, n, k = packed.shape[:-1], weight.shape[0], 2 * values.shape[1]
    with on_device_of(values, metadata, weight):
        if k != weight.shape[1]:
            weight = torch.nn.functional.pad(weight, (0, k - weight.shape[1]))
        if weight.t().is_contiguous():
            weight = aligned(weight.t()).t()
        else:
            weight = aligned(weight)
        if n % 8:
            _warn_n(n)
            out = None
        else:
            out = _sparse(values, weight)
    if out is None:
        dense = unpack(values, metadata, packed.shape, packed.layout)
        return dense @ weight[:, : packed.shape[-1]].t()
    return out[: lead.numel()].view(*lead, n)


@cache
def _warn_n(n: int) -> None:
    warnings.warn(
        f"sparse24: the sparse GEMM takes a multiple of 8 output features, not {n}; using a dense product",
        RuntimeWarning,
        stacklevel=3,
    )


def _sparse(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
    """The product by the first way that works for these shapes; None if there is none."""
    shapes = (values.shape, weight.shape, weight.stride(), values.dtype, values.device)
    for way, product, instead in (
        ("plan", _by_plan, "torch._cslt_sparse_mm"),
        ("torch", _by_torch, "a dense product"),
    ):
        if (way, EVERYWHERE) in _broken or (way, shapes) in _broken:
            continue
        try:
            return product(values, weight)
        except (OSError, AttributeError, RuntimeError) as error:
            if selfcheck.out_of_memory(error):
                raise
            # A library or a function that is missing fails every shape.
            missing = isinstance(error, (OSError, AttributeError))
            # What fails in a graph capture may work outside: there it is not remembered.
            if not selfcheck.capturing(values.device):
                _broken.add((way, EVERYWHERE if missing else shapes))
            (rows, half), n = values.shape, weight.shape[0]
            where = (
                "all products" if missing else f"({rows}, {2 * half}) x ({2 * half}, {n}) {values.dtype}"
            )
            warnings.warn(f"sparse24: {error}; using {instead} for {where}", RuntimeWarning, stacklevel=3)
    return None


def _by_plan(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return plan_for(values, weight)(values, weight)


def _by_torch(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    rows, half = values.shape
    blob = layouts.whole(values).view(rows, half * 9 // 8)
    return torch._cslt_sparse_mm(blob, weight.t())


@torch.compiler.assume_constant_result  # a traced graph asks once, of the real card
def available(device: torch.device, dtype: torch.dtype) -> bool:
    """May activations be packed for cuSPARSELt here?  Compared with the library itself, once."""
    if dtype not in CUDA_TYPE or not torch.backends.cusparselt.is_available():
        return False
    return selfcheck.ok(
        ("cuSPARSELt's layout", device, dtype),
        lambda: _compare_with_library(device, dtype),
        instead="dense products",
    )


def _compare_with_library(device: torch.device, dtype: torch.dtype) -> None:
    """AssertionError if packing or a product with the packed form differs from the library's or torch's."""
    generator = torch.Generator().manual_seed(0)

    def integers(bound, *shape):  # their sums of products are exact in 16 bits
        drawn = torch.randint(-bound, bound + 1, shape, generator=generator, device="cpu")
        return drawn.to(device, dtype)

    with torch.cuda.device(device):
        # No zeros: with fewer than two other numbers in a group the library may keep any of them.
        dense = triton.prune(2 * integers(1, 128, 192) + 1)
        packed = Packed(*triton.pack(dense, layout="cusparselt"), dense.shape, "cusparselt")
        ours = layouts.whole(packed.values)
        theirs = torch._cslt_compress(dense).flatten()
        torch.testing.assert_close(ours.view(torch.int16), theirs.view(torch.int16), rtol=0, atol=0)
        weight = integers(1, 64, 192)
        for ordered in (weight, weight.t().contiguous().t()):
            product = multiply(packed, ordered, triton.unpack)
            torch.testing.assert_close(product, dense @ weight.t(), rtol=0, atol=0)


def layout_for(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str:
    """ "cusparselt" where its GEMM can be used and padding to tiles adds at most an eighth."""
    columns = shape[-1]
    rows = shape.numel() // columns if columns else 0
    cheap = rows and 8 * layouts.padded(rows) * layouts.padded(columns) <= 9 * rows * columns
    return "cusparselt" if cheap and available(device, dtype) else "rows"
