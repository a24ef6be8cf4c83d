"""The Triton backend: one read of the logits for all four numbers, one more for their gradient.

Every launch happens on the device of its tensors. Logits need no alignment: Triton compiles another
kernel for rows that do not begin at multiples of 16 bytes.
"""

from contextlib import nullcontext
from functools import cache, wraps

import torch
import triton
from torch.autograd import Function

from tokenstats.kernels import CHUNK, LOG2E, gradient, join, lanes, short
from tokenstats.reference import TokenStats

INTERPRETED = not isinstance(join, triton.JITFunction)
SHORT, TILE = 512, 2048  # columns of a short row; numbers a program takes of them
LANES = 256  # times CHUNK columns at once; with 4 warps 93 % of the H100's copy bandwidth


_HERE = nullcontext()


def _on_device_of(x: torch.Tensor):
    """Context in which the device of ``x`` is the current one; free where it is already."""
    if not x.is_cuda or (torch.cuda.is_initialized() and torch.cuda.current_device() == x.device.index):
        return _HERE
    return torch.cuda.device(x.device)


def short_tile(vocabulary: int) -> tuple[int, int]:
    """(columns, rows) of one program where a row fits into it."""
    width = triton.next_power_of_2(vocabulary)
    return width, max(1, TILE // width)


@cache
def _splits(rows: int, vocabulary: int, device: torch.device) -> tuple[int, int]:
    """(parts of a row, columns of a part): as many programs as run at once, no second wave; whole tiles."""
    tiles = triton.cdiv(vocabulary, LANES * CHUNK.value)
    wanted = 1
    if device.type == "cuda":
        wanted = 16 * torch.cuda.get_device_properties(device).multi_processor_count // rows
    per_part = triton.cdiv(tiles, max(1, min(wanted, tiles)))
    return triton.cdiv(tiles, per_part), per_part * LANES * CHUNK.value


def _forward(
    x: torch.Tensor, tokens: torch.Tensor | None, temperature: float, parts: tuple[int, int] | None = None
) -> list[torch.Tensor]:
    """argmax, confidence, logprob, entropy, log2 Z of the rows of x (N, V); ``parts`` as of ``_splits``."""
    rows, vocabulary = x.shape
    scale = LOG2E.value / temperature
    argmax = torch.empty(rows, dtype=torch.int64, device=x.device)
    chosen = argmax if tokens is None else tokens
    if vocabulary <= SHORT:
        numbers = torch.empty(4, rows, dtype=torch.float32, device=x.device).unbind()
        width, many = short_tile(vocabulary)
        with _on_device_of(x):
            short[(triton.cdiv(rows, many),)](
                x, chosen, argmax, *numbers, rows, vocabulary, x.stride(0), scale,
                TOKENS=tokens is not None, ROWS=many, WIDTH=width, num_warps=4,
                # With fused multiply-adds each lane rounds a row's sum its own way, and which of them
                # is stored is a race.
                enable_fp_fusion=False,
            )  # fmt: skip
        return [argmax, *numbers]
    splits, part = parts or _splits(rows, vocabulary, x.device)
    # One allocation for all: at few rows the host, not the GPU, sets the time.
    room = torch.empty(4 * rows * (1 + splits), dtype=torch.float32, device=x.device)
    *numbers, partial = room.split([rows] * 4 + [4 * rows * splits])
    with _on_device_of(x):
        lanes[(rows, splits)](x, partial, vocabulary, x.stride(0), part, scale, LANES=LANES, num_warps=4)
        join[(rows,)](
            x, chosen, partial, argmax, *numbers, vocabulary, x.stride(0), splits, scale,
            TOKENS=tokens is not None, SPLITS=triton.next_power_of_2(splits), SCAN=4096, num_warps=1,
        )  # fmt: skip
    return [argmax, *numbers]


class _Final(Function):
    """A gradient that must not be differentiated again."""

    @staticmethod
    def forward(ctx, grad):
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "token_stats by Triton has first derivatives only: backpropagating through a gradient "
            '(create_graph=True) needs backend="reference"'
        )


def _first_order(backward):
    """A ``backward`` that refuses to be differentiated.

    torch's once_differentiable refuses only where the incoming gradient has a graph. A constant one, as
    of ``entropy.sum()``, it lets through as if the result did not depend on the logits.
    """

    @wraps(backward)
    def wrapper(ctx, *grads):
        with torch.no_grad():
            found, *rest = backward(ctx, *grads)
        return (_Final.apply(found.requires_grad_()) if torch.is_grad_enabled() else found, *rest)

    return wrapper


class _TokenStats(Function):
    @staticmethod
    def forward(ctx, x, tokens, temperature, parts):
        argmax, confidence, logprob, entropy, log2z = _forward(x, tokens, temperature, parts)
        chosen = argmax if tokens is None else tokens
        ctx.save_for_backward(x, argmax, chosen, confidence, entropy, log2z)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(argmax)
        return argmax, confidence, logprob, entropy

    @staticmethod
    @_first_order
    def backward(ctx, _argmax, *grads):
        return _gradient(ctx.saved_tensors, ctx.temperature, grads), None, None, None


def _gradient(saved, temperature, grads) -> torch.Tensor:
    x, *numbers = saved
    x = x if x.stride(1) == 1 else x.contiguous()  # a saved-tensor hook may have changed the strides
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    block = 4096
    with _on_device_of(x):
        gradient[(x.shape[0], triton.cdiv(x.shape[1], block))](
            x, out, *numbers, *(grad.contiguous() for grad in grads),
            x.shape[1], x.stride(0), 1 / temperature, BLOCK=block, num_warps=8,
        )  # fmt: skip
    return out


def token_stats_backward(
    x: torch.Tensor,
    tokens: torch.Tensor | None,
    temperature: float,
    grads: list[torch.Tensor],
    parts: tuple[int, int] | None = None,
) -> torch.Tensor:
    """As in reference.py: reads the logits once more for what the forward pass knew."""
    x = x if x.stride(1) == 1 else x.contiguous()
    argmax, confidence, _, entropy, log2z = _forward(x, tokens, temperature, parts)
    chosen = argmax if tokens is None else tokens
    return _gradient((x, argmax, chosen, confidence, entropy, log2z), temperature, grads)


def token_stats(
    x: torch.Tensor,
    tokens: torch.Tensor | None = None,
    temperature: float = 1.0,
    parts: tuple[int, int] | None = None,
) -> TokenStats:
    """As in reference.py for (N, V) of float16, bfloat16, float32, N >= 1; rows may be strided.

    ``parts``: (parts of a row, columns of a part) instead of what suits the device.
    """
    x = x if x.stride(1) == 1 else x.contiguous()
    tokens = None if tokens is None else tokens.contiguous()
    if torch.is_grad_enabled() and x.requires_grad:
        return TokenStats(*_TokenStats.apply(x, tokens, temperature, parts))
    return TokenStats(*_forward(x, tokens, temperature, parts)[:4])
