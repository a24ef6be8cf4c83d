"""The public functions: check the arguments once, choose a backend, attach the gradient.

backend     "auto": Triton for float16/bfloat16 on a CUDA device of capability >= 8.0 (Ampere and
            newer), plain torch everywhere else.  "reference": plain torch, any device and dtype.
            "triton": the kernels, or ValueError where they cannot run
gradient    "ste": straight-through, the gradient also reaches the dropped values.
            "masked": the exact gradient (almost everywhere): dropped values get none
"""

import torch

from sparse24 import autograd, reference
from sparse24.packed import Packed


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def _operand(name: str, x: torch.Tensor) -> torch.Tensor:
    if not isinstance(x, torch.Tensor) or x.dtype not in reference.BITS:
        given = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a float16, bfloat16, float32 or float64 tensor; got {given}")
    if x.dim() == 0 or x.shape[-1] % 4:
        shape = tuple(x.shape)
        raise ValueError(f"{name} must have a last dimension that is a multiple of 4; got shape {shape}")
    return x


def _backend(backend: str, x: torch.Tensor):
    _choice("backend", backend, ("auto", "reference", "triton"))
    if backend == "triton":
        raise NotImplementedError("backend 'triton' is not built yet: use 'auto' or 'reference'")
    return reference


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


def _compress(name: str, x: torch.Tensor, square: bool, gradient: str, backend: str) -> Packed:
    _choice("gradient", gradient, ("ste", "masked"))
    ops = _backend(backend, _operand(name, x))
    values, metadata, link = autograd.Compress.apply(x, square, gradient, ops)
    return Packed(values, metadata, x.shape, link=link if link.requires_grad else None)


def compress(x: torch.Tensor, *, gradient: str = "ste", backend: str = "auto") -> Packed:
    """``sparsify`` and pack: (..., K) -> Packed of 9/16 of the bytes in 16-bit types.

    Gradients flow to ``x`` through ``decompress`` and ``matmul`` of the result (not through
    ``.values``).  ValueError as in ``sparsify``.
    """
    return _compress("x", x, False, gradient, backend)


def relu2_compress(h: torch.Tensor, *, gradient: str = "ste", backend: str = "auto") -> Packed:
    """``compress(relu(h)**2)`` in one pass: the ELAS activation (..., K), pruned and packed.

    The two largest of relu(h) stay.  masked keeps only the packed result for the backward pass
    (dh = 2 sqrt(value) d); ste must keep ``h`` itself, because dropped positive entries get gradient.
    ValueError naming ``h`` as in ``sparsify``.
    """
    return _compress("h", h, True, gradient, backend)


def decompress(packed: Packed, *, backend: str = "auto") -> torch.Tensor:
    """The dense tensor of ``packed``, zeros where values were dropped; inverse of ``compress``."""
    if not isinstance(packed, Packed):
        raise ValueError(f"packed must be a sparse24.Packed; got {type(packed).__name__}")
    return autograd.Decompress.apply(packed.link, packed, _backend(backend, packed.values))


def matmul(packed: Packed, weight: torch.Tensor, *, backend: str = "auto") -> torch.Tensor:
    """``decompress(packed) @ weight.T``: packed (..., K), weight (N, K) as in nn.Linear -> (..., N).

    Gradients for both operands; only the packed form is kept for the backward pass. Under autocast the
    weight is cast to the packed dtype.  ValueError if weight's shape, dtype or device do not fit.
    """
    if not isinstance(packed, Packed):
        raise ValueError(f"packed must be a sparse24.Packed; got {type(packed).__name__}")
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or weight.shape[1] != packed.shape[-1]:
        given = tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise ValueError(f"weight must be a tensor of shape (N, {packed.shape[-1]}); got {given}")
    if torch.is_autocast_enabled(packed.device.type):
        weight = weight.to(packed.dtype)
    if weight.dtype != packed.dtype or weight.device != packed.device:
        raise ValueError(
            f"weight must be {packed.dtype} on {packed.device} like packed; "
            f"got {weight.dtype} on {weight.device}"
        )
    with torch.autocast(packed.device.type, enabled=False):
        return autograd.Matmul.apply(packed.link, weight, packed, _backend(backend, packed.values))
