"""The public functions: check the arguments once, choose a backend, attach the gradient.

backend     "auto": Triton for float16, bfloat16, float32 on a CUDA device of capability >= 8.0 (Ampere
            and newer), plain torch everywhere else. Each kernel is compared with the reference before
            its first use (sparse24.selfcheck); one that differs is reported and replaced by plain torch.
            "reference": plain torch, any device and dtype.
            "triton": the kernels, or ValueError where they cannot run, RuntimeError for one that differs
            LABKIT_KERNEL=reference in the environment makes "auto" mean "reference"
gradient    "ste": straight-through, the gradient also reaches the dropped values.
            "masked": the exact gradient (almost everywhere): dropped values get none
            A gradient cannot be differentiated again: RuntimeError
layout      of the packed form.  "auto": "cusparselt" on Hopper for 16-bit types, where cuSPARSELt is
            found, packs as expected and padding costs at most an eighth; "rows" everywhere else
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch._subclasses.fake_tensor import FakeTensor

from sparse24 import autograd, ffn, reference
from sparse24.backend import Backend
from sparse24.packed import Packed, whole


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def _operand(name: str, x: torch.Tensor) -> torch.Tensor:
    if not isinstance(x, torch.Tensor) or x.dtype not in reference.BITS:
        given = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a float16, bfloat16, float32 or float64 tensor; got {given}")
    if x.layout != torch.strided:
        raise ValueError(f"{name} must be a dense (strided) tensor; got layout {x.layout}")
    if x.dim() == 0 or x.shape[-1] % 4:
        shape = tuple(x.shape)
        raise ValueError(f"{name} must have a last dimension that is a multiple of 4; got shape {shape}")
    return x


def _backend(backend: str, x: torch.Tensor) -> Backend:
    """What computes: reference, or the checked Triton where it is asked for or worth it."""
    _choice("backend", backend, ("auto", "reference", "triton"))
    if backend == "auto":
        preferred = os.environ.get("LABKIT_KERNEL", "auto")
        _choice("LABKIT_KERNEL", preferred, ("auto", "reference"))
        backend = preferred if x.is_cuda else "reference"
    if backend == "reference":
        return reference
    refusal = _refusal(x.device, x.dtype)
    if refusal and backend == "auto":
        return reference
    if refusal:
        raise ValueError(f"backend must be 'auto' or 'reference' here; got 'triton', but {refusal}")
    traced = torch.compiler.is_compiling() or isinstance(x, FakeTensor)
    return _triton(strict=backend == "triton", traced=traced)


def _triton(strict: bool, traced: bool) -> Backend:
    from sparse24 import checked, operators  # late: need Triton

    return (operators.Operators if traced else checked.Checked)(strict)


def _refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton cannot take tensors like this; None if it can."""
    return _reason(device, dtype)


# A graph that is traced asks once and looks into nothing: torch.compiler.assume_constant_result, which
# would import the whole compiler here.
_refusal.__dict__["_dynamo_marked_constant"] = True


@cache
def _reason(device: torch.device, dtype: torch.dtype) -> str | None:
    if dtype == torch.float64:
        return "its kernels have no float64"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return None if capability >= (8, 0) else f"its kernels need capability 8.0, not {capability}"
    from sparse24 import triton

    if device.type != "cpu" or not triton.INTERPRETED:
        return f"the device is {device} and Triton's interpreter is off (TRITON_INTERPRET=1 before import)"
    if dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly"
    return None


def mask24(x: torch.Tensor, *, backend: str = "auto") -> torch.Tensor:
    """bool tensor like ``x`` (..., K): True for the two largest magnitudes of every four neighbours.

    Exactly two are True; ties keep the lowest index; NaN counts as the largest.
    ValueError if ``x`` is not floating or K % 4 != 0.  No gradient.
    """
    return _backend(backend, _operand("x", x)).mask(x.detach())


def sparsify(x: torch.Tensor, *, gradient: str = "ste", backend: str = "auto") -> torch.Tensor:
    """``x`` (..., K) with all but the two largest magnitudes of every four neighbours set to 0.

    Same shape and dtype (float16, bfloat16, float32, float64); any strides; empty is fine. Exactly two
    stay, ties keep the lowest index, NaN and inf stay as they are (NaN counts as the largest).
    ValueError if K % 4 != 0 or an argument is not one of the allowed words (see the module's top).
    """
    _choice("gradient", gradient, ("ste", "masked"))
    return autograd.Sparsify.apply(x, gradient, _backend(backend, _operand("x", x)))


def _compress(name: str, x: torch.Tensor, square: bool, gradient: str, layout: str, backend: str) -> Packed:
    _choice("gradient", gradient, ("ste", "masked"))
    ops = _backend(backend, _operand(name, x))
    layout = _layout(layout, x, x.shape, ops)
    values, metadata, link = autograd.Compress.apply(x, square, gradient, layout, ops)
    return Packed(values, metadata, x.shape, layout, link if link.requires_grad else None)


def _layout(layout: str, x: torch.Tensor, shape: torch.Size, ops: Backend) -> str:
    _choice("layout", layout, ("auto", "rows", "cusparselt"))
    if layout == "auto":
        return ops.layout_for(shape, x.device, x.dtype)
    if layout == "cusparselt" and x.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"layout must be 'auto' or 'rows' for {x.dtype}; got 'cusparselt' (16-bit only)")
    return layout


def compress(
    x: torch.Tensor, *, gradient: str = "ste", layout: str = "auto", backend: str = "auto"
) -> Packed:
    """``sparsify`` and pack: (..., K) -> Packed of 9/16 of the bytes in 16-bit types.

    Gradients flow to ``x`` through ``decompress`` and ``matmul`` of the result (not through
    ``.values``). ValueError as in ``sparsify``.
    """
    return _compress("x", x, False, gradient, layout, backend)


def relu2_compress(
    h: torch.Tensor, *, gradient: str = "ste", layout: str = "auto", backend: str = "auto"
) -> Packed:
    """``compress(relu(h)**2)`` in one pass: the ELAS activation (..., K), pruned and packed.

    The two largest of relu(h) stay.  masked keeps only the packed result for the backward pass
    (dh = 2 sqrt(value) d); ste must keep ``h`` itself, because dropped positive entries get gradient.
    On a CPU this is plain torch; on Ampere and newer one Triton kernel that reads h once.
    ValueError naming ``h`` as in ``sparsify``.
    """
    return _compress("h", h, True, gradient, layout, backend)


def decompress(packed: Packed, *, backend: str = "auto") -> torch.Tensor:
    """The dense tensor of ``packed``, zeros where values were dropped; inverse of ``compress``."""
    whole(packed)
    return autograd.Decompress.apply(packed.link, packed, _backend(backend, packed.values))


def matmul(packed: Packed, weight: torch.Tensor, *, backend: str = "auto") -> torch.Tensor:
    """``decompress(packed) @ weight.T``: packed (..., K), weight (N, K) as in nn.Linear -> (..., N).

    Gradients for both operands; only the packed form is kept for the backward pass. Under autocast both
    are cast as nn.Linear casts. In layout "cusparselt" the product runs on sparse tensor cores:
    the first call of a shape searches its algorithm (tens of milliseconds), so make one before capturing
    a CUDA graph. In layout "rows" it unpacks and multiplies densely.
    ValueError if weight's shape, dtype or device do not fit.
    """
    packed = _cast_packed(whole(packed))
    ops = _backend(backend, packed.values)
    weight = _weight("weight", weight, packed.shape[-1], packed)
    if not torch.is_grad_enabled() or (packed.link is None and not weight.requires_grad):
        with autograd.no_autocast(packed.device.type):
            return ops.multiply(packed, weight)
    with autograd.no_autocast(packed.device.type):
        return autograd.Matmul.apply(packed.link, weight, packed, ops)


def relu2_ffn(
    z: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    *,
    gradient: str = "masked",
    backend: str = "auto",
) -> torch.Tensor:
    """``S24(relu(z @ up.T)**2) @ down.T`` as one function: z (..., K), up (F, K), down (N, F) -> (..., N).

    The ELAS feed-forward, or its middle when up and down are low-rank (z = x A_up, then B_down).
    For the backward pass masked keeps z and the packed activation, ste z and z @ up.T; without gradients
    nothing is kept and both are one.
    Under autocast all three are cast as nn.Linear casts.
    ValueError if F % 4 != 0, or if shapes, dtypes or devices do not fit.
    """
    _choice("gradient", gradient, ("ste", "masked"))
    if not isinstance(z, torch.Tensor) or z.dtype not in reference.BITS or z.dim() == 0:
        given = (
            f"{z.dtype} {tuple(z.shape)} on {z.device}" if isinstance(z, torch.Tensor) else type(z).__name__
        )
        raise ValueError(f"z must be a floating tensor of shape (..., K); got {given}")
    z = _cast(z)
    up = _weight("up", up, z.shape[-1], z)
    down = _weight("down", down, up.shape[0], z)
    if up.shape[0] % 4:
        raise ValueError(f"up must have a multiple of 4 rows; got shape {tuple(up.shape)}")
    ops = _backend(backend, z)
    flat = z.reshape(z.shape[:-1].numel(), z.shape[-1])  # of K = 0 too
    layout = ops.layout_for(torch.Size((flat.shape[0], up.shape[0])), z.device, z.dtype)
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (flat, up, down))):
        gradient = "masked"  # the faster forward pass
    with autograd.no_autocast(z.device.type):
        y = ffn.Relu2FFN.apply(flat, up, down, gradient, layout, ops)
    return y.view(*z.shape[:-1], down.shape[0])


def _cast(x: torch.Tensor) -> torch.Tensor:
    """``x`` as nn.Linear takes it: under autocast in its dtype, unless it is float64."""
    kind = x.device.type
    if autograd.autocasts(kind) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(kind))
    return x


def _cast_packed(packed: Packed) -> Packed:
    """As ``_cast``; the gradient arrives at the link in the link's dtype: autograd sees to that."""
    values = _cast(packed.values)
    if values is packed.values:
        return packed
    return Packed(values, packed.metadata, packed.shape, packed.layout, packed.link)


def _weight(name: str, weight: torch.Tensor, columns: int, like: torch.Tensor | Packed) -> torch.Tensor:
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or weight.shape[1] != columns:
        given = tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise ValueError(f"{name} must be a tensor of shape (N, {columns}); got {given}")
    if autograd.autocasts(like.device.type):
        weight = weight.to(like.dtype)
    if weight.dtype != like.dtype or weight.device != like.device:
        raise ValueError(
            f"{name} must be {like.dtype} on {like.device} like the activation; "
            f"got {weight.dtype} on {weight.device}"
        )
    return weight
