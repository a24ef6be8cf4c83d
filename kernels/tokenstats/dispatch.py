"""The public function: check the arguments once, choose a backend."""

import math
import os
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from numbers import Real

import torch
from torch._subclasses.fake_tensor import FakeTensor

from tokenstats import reference

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COLDEST = torch.finfo(torch.float32).tiny  # float32 sums: 1 over a lower temperature is no float32


def token_stats(
    logits: torch.Tensor,
    tokens: torch.Tensor | None = None,
    temperature: float = 1.0,
    *,
    backend: str = "auto",
) -> reference.TokenStats:
    """What softmax(logits / temperature) says of each row, in one read of the logits.

    logits       (..., V) float16, bfloat16, float32 or float64; -inf entries have probability 0
    tokens       integers of shape (...) in [0, V): whose log-probability to give; None: the argmax
    temperature  > 0
    backend      "auto": Triton for float16/bfloat16/float32 on a CUDA device of capability >= 8.0,
                 plain torch everywhere else. Each kernel is compared with the reference before its
                 first use (tokenstats.selfcheck); one that differs is reported and replaced.
                 "reference": plain torch. "triton": the kernels, or ValueError where they cannot run,
                 RuntimeError for one that differs.
                 LABKIT_KERNEL=reference in the environment makes "auto" mean "reference"

    Returns TokenStats(argmax int64, confidence, logprob, entropy), each of shape (...): probability of
    the argmax (lowest index among ties), log-probability of ``tokens`` and entropy in nats, summed in
    float32 (float64 for float64 logits). Rows with NaN or +inf give NaN. Differentiable in confidence,
    logprob and entropy: by Triton once (a second time is a RuntimeError), by the reference twice.
    ValueError names the argument that does not fit; on CUDA the range of ``tokens`` is not checked (that
    would wait for the device).
    """
    if not isinstance(logits, torch.Tensor) or logits.dtype not in FLOATS:
        given = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"logits must be a floating tensor; got {given}")
    if logits.layout != torch.strided:
        raise ValueError(f"logits must be dense; got {logits.layout}")
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (..., V) with V >= 1; got {tuple(logits.shape)}")
    if isinstance(temperature, bool) or not isinstance(temperature, Real):
        raise ValueError(f"temperature must be a number > 0; got {temperature!r}")
    heat = _float(temperature)
    if not 0 < heat < math.inf:
        raise ValueError(f"temperature must be a finite number > 0; got {temperature!r}")
    if logits.dtype != torch.float64:
        heat = min(max(heat, COLDEST), 1 / COLDEST)
    if tokens is not None:
        tokens = _checked(tokens, logits)
    run = _backend(backend, logits)
    rows = logits.reshape(-1, logits.shape[-1])
    stats = run(rows, None if tokens is None else tokens.reshape(-1), heat)
    return reference.TokenStats(*(value.view(logits.shape[:-1]) for value in stats))


def _float(number: Real) -> float:
    try:
        return float(number)
    except OverflowError:  # a whole number beyond the floats
        return math.inf


def _backend(backend: str, logits: torch.Tensor) -> Callable[..., reference.TokenStats]:
    """What computes: the reference, or the checked Triton where it is asked for or worth it."""
    if not isinstance(backend, str) or backend not in ("auto", "reference", "triton"):
        raise ValueError(f"backend must be one of 'auto', 'reference', 'triton'; got {backend!r}")
    if backend == "auto":
        preferred = os.environ.get("LABKIT_KERNEL", "auto")
        if preferred not in ("auto", "reference"):
            raise ValueError(f"LABKIT_KERNEL must be one of 'auto', 'reference'; got {preferred!r}")
        backend = preferred if logits.is_cuda else "reference"
    if backend == "reference":
        return reference.token_stats
    refusal = _refusal(logits.device, logits.dtype)
    if refusal and backend == "auto":
        return reference.token_stats
    if refusal:
        raise ValueError(f"backend must be 'auto' or 'reference' here; got 'triton', but {refusal}")
    from tokenstats import checked, operators  # late: need Triton

    traced = torch.compiler.is_compiling() or isinstance(logits, FakeTensor)
    return partial(operators.statistics if traced else checked.token_stats, strict=backend == "triton")


def _refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton cannot take such logits; None if it can."""
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
    from tokenstats import triton

    if device.type != "cpu" or not triton.INTERPRETED:
        return f"logits are on {device} and Triton's interpreter is off (TRITON_INTERPRET=1)"
    if dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly"
    return None


def _checked(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    rows, vocabulary = logits.shape[:-1], logits.shape[-1]
    whole = isinstance(tokens, torch.Tensor) and not (tokens.is_floating_point() or tokens.is_complex())
    if not whole or tokens.dtype == torch.bool:
        given = tokens.dtype if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"tokens must be an integer tensor; got {given}")
    if tokens.shape != rows or tokens.device != logits.device:
        raise ValueError(
            f"tokens must have shape {tuple(rows)} on {logits.device}; "
            f"got {tuple(tokens.shape)} on {tokens.device}"
        )
    traced = torch.compiler.is_compiling() or isinstance(tokens, FakeTensor)
    tokens = tokens.long()  # torch has no min of uint16, uint32 and uint64
    if traced or tokens.device.type != "cpu":  # there are no values, or the device has to be waited for
        return tokens
    if tokens.numel() and not (tokens.min() >= 0 and tokens.max() < vocabulary):
        raise ValueError(
            f"tokens must lie between 0 and {vocabulary - 1}; "
            f"got values from {tokens.min().item()} to {tokens.max().item()}"
        )
    return tokens
