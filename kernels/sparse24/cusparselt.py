"""Products with packed activations on NVIDIA's sparse tensor cores, and what to do where there are none.

What can fail falls back, with one warning that says why: cached plan (sparse24.plans) ->
torch._cslt_sparse_mm -> unpack and an ordinary product.
"""

import warnings
from functools import cache

import torch

from sparse24 import layouts
from sparse24.packed import Packed
from sparse24.plans import CUDA_TYPE, plan_for

_broken: set[str] = set()  # ways that failed in this process: "plan", "torch"


def _give_up(way: str, error: Exception, instead: str) -> None:
    _broken.add(way)
    warnings.warn(f"sparse24: {error}; using {instead} from now on", RuntimeWarning, stacklevel=3)


def multiply(packed: Packed, weight: torch.Tensor, unpack) -> torch.Tensor:
    """packed (..., K) in layout "cusparselt" times weight (N, K) transposed -> (..., N).

    ``unpack`` is the backend's own, for the last resort.  N must be a multiple of 8.
    """
    values, n = packed.values, weight.shape[0]
    lead, k = packed.shape[:-1], 2 * values.shape[1]
    if k != weight.shape[1]:
        weight = torch.nn.functional.pad(weight, (0, k - weight.shape[1]))
    if not (weight.is_contiguous() or weight.t().is_contiguous()) or weight.data_ptr() % 16:
        weight = weight.clone(memory_format=torch.contiguous_format)
    out = None
    if n % 8:
        _warn_n(n)
    else:
        if values.is_cuda and values.device.index != torch.cuda.current_device():
            with torch.cuda.device(values.device):
                out = _sparse(values, weight)
        else:
            out = _sparse(values, weight)
    if out is None:
        dense = unpack(values, packed.metadata, packed.shape, packed.layout)
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
    if "plan" not in _broken:
        try:
            return plan_for(values, weight)(values, weight)
        except (OSError, AttributeError, RuntimeError) as error:
            _give_up("plan", error, "torch._cslt_sparse_mm")
    if "torch" not in _broken:
        try:
            rows, half = values.shape
            blob = values.as_strided((rows, half * 9 // 8), (half * 9 // 8, 1))
            return torch._cslt_sparse_mm(blob, weight.t())
        except (AttributeError, RuntimeError) as error:
            _give_up("torch", error, "dense products")
    return None


@cache
def available(device: torch.device, dtype: torch.dtype) -> bool:
    """May activations be packed for cuSPARSELt here?  Checks the layout against torch's, once."""
    if dtype not in CUDA_TYPE or not torch.backends.cusparselt.is_available():
        return False
    from sparse24 import triton

    with torch.cuda.device(device):
        dense = triton.prune(torch.randn(128, 192, device=device).to(dtype))
        ours, _ = triton.pack(dense, layout="cusparselt")
        ours = ours.as_strided((ours.numel() * 9 // 8,), (1,))
        try:
            theirs = torch._cslt_compress(dense)
        except (AttributeError, RuntimeError) as error:
            warnings.warn(f"sparse24: {error}; products will be dense", RuntimeWarning, stacklevel=2)
            return False
        same = torch.equal(ours.view(torch.int16), theirs.flatten().view(torch.int16))
    if not same:
        name = torch.cuda.get_device_name(device)
        warnings.warn(
            f"sparse24: cuSPARSELt packs differently on {name}; products will be dense",
            RuntimeWarning,
            stacklevel=2,
        )
    return same


def layout_for(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> str:
    """ "cusparselt" where its GEMM can be used and padding to tiles adds at most an eighth."""
    columns = shape[-1]
    rows = shape.numel() // columns if columns else 0
    cheap = rows and 8 * layouts.padded(rows) * layouts.padded(columns) <= 9 * rows * columns
    return "cusparselt" if cheap and available(device, dtype) else "rows"
