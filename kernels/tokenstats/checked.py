"""token_stats by Triton, its kernels compared with the reference before their first use.

A specialisation is what Triton compiles on its own: kernel, dtype, tile sizes, flags, and of each size
whether it is 1 or a multiple of 16. Its case is a few rows of the same width.
"""

from functools import partial

import torch
from triton import next_power_of_2

from tokenstats import reference, selfcheck, triton

TEMPERATURE = 0.7
# Relative error allowed in a gradient: that of its dtype, and of the sums.
ROUNDING = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}


def token_stats(
    x: torch.Tensor, tokens: torch.Tensor | None, temperature: float, strict: bool
) -> reference.TokenStats:
    """As in reference.py, of (N, V): by Triton, unless a kernel this needs is wrong on this machine.

    ``strict``: a wrong kernel is a RuntimeError instead.
    """
    if not x.numel():  # nothing to launch; the reference keeps the link to autograd
        return reference.token_stats(x, tokens, temperature)
    right = _right(x, tokens, torch.is_grad_enabled() and x.requires_grad, strict)
    return (triton if right else reference).token_stats(x, tokens, temperature)


def token_stats_backward(
    x: torch.Tensor,
    tokens: torch.Tensor | None,
    temperature: float,
    grads: list[torch.Tensor],
    strict: bool,
) -> torch.Tensor:
    """As in reference.py, and ``token_stats`` above."""
    right = x.numel() > 0 and _right(x, tokens, True, strict)
    return (triton if right else reference).token_stats_backward(x, tokens, temperature, grads)


def _right(x: torch.Tensor, tokens: torch.Tensor | None, gradient: bool, strict: bool) -> bool:
    cases = cases_of(x, tokens, gradient)
    return all(selfcheck.ok(case, partial(compare, *case), strict=strict) for case in cases)


def cases_of(x: torch.Tensor, tokens: torch.Tensor | None, gradient: bool) -> list[tuple]:
    """(kernels, device, dtype, rows, columns, row stride, offset, parts, with tokens?) of small copies."""
    rows, vocabulary = x.shape
    stride = x.stride(0) if x.stride(1) == 1 else vocabulary
    if vocabulary <= triton.SHORT:
        name, parts, (width, many) = "short", None, triton.short_tile(vocabulary)
        rows = 1 if rows == 1 else 2 * max(many, 16) + (5 if rows % 16 else 0)  # more than a program's
        columns = _alike(vocabulary, width)
    else:
        splits, _ = triton._splits(rows, vocabulary, x.device)
        splits, tile = _alike(splits, next_power_of_2(splits)), triton.LANES * triton.CHUNK.value
        name, parts = "lanes + join", (splits, -(-vocabulary // (tile * splits)) * tile)
        rows, columns = 3, vocabulary
    row = columns
    if (columns % 16 == 0) != (stride % 16 == 0):
        row = -(-columns // 16) * 16 + (1 if stride % 16 else 0)
    offset = 0 if x.data_ptr() % 16 == 0 else 1
    sizes = columns, row, offset, parts, tokens is not None
    cases = [(name, x.device, x.dtype, rows, *sizes)]
    if gradient:  # its kernel takes the rows one by one: a few will do
        cases.append(("gradient", x.device, x.dtype, min(rows, 5), *sizes))
    return cases


def _alike(size: int, power: int) -> int:
    """The largest size up to ``power`` (of two) for which Triton compiles what it does for ``size``."""
    return 1 if size == 1 else power if size % 16 == 0 else max(power - 1, 2)


def compare(name, device, dtype, rows, columns, row, offset, parts, with_tokens) -> None:
    """AssertionError if the kernels and the float64 reference differ on random (rows, columns) logits."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(rows * row + offset, generator=generator, device="cpu", dtype=torch.float32) * 4
    if columns > 1:
        numbers[offset + row // 2 :: 3] = -float("inf")
    x = numbers.to(device, dtype)[offset:].view(rows, row)[:, :columns]
    drawn = torch.randint(0, columns, (rows,), generator=generator, device="cpu").to(device)
    tokens = drawn if with_tokens else None
    if name == "gradient":
        grads = torch.randn(3, rows, generator=generator, device="cpu", dtype=torch.float32).to(device)
        ours = triton.token_stats_backward(x, tokens, TEMPERATURE, list(grads), parts).double()
        theirs = reference.token_stats_backward(x.double(), tokens, TEMPERATURE, list(grads.double()))
        error, size = (ours - theirs).norm().item(), theirs.norm().item()
        if not error <= ROUNDING[dtype] * size + 1e-6:  # one column: both are 0
            raise AssertionError(f"off by {error:.2e} of {size:.2e}, allowed {ROUNDING[dtype]:.0e}")
        return
    got = triton.token_stats(x, tokens, TEMPERATURE, parts)
    expected = reference.token_stats(x.double(), tokens, TEMPERATURE)
    torch.testing.assert_close(got.argmax, expected.argmax)
    for ours, theirs in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=3e-5)
