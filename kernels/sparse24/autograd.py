"""Gradients of the operations for any backend; ``ops`` is one with reference.py's functions."""

from contextlib import AbstractContextManager, nullcontext
from functools import wraps

import torch
from torch.autograd import Function


def autocasts(device: str) -> bool:
    """Is autocast on for this kind of device?  Of "meta" torch itself cannot tell."""
    return device != "meta" and torch.is_autocast_enabled(device)


def no_autocast(device: str) -> AbstractContextManager:
    """Inside, products keep the dtypes they are given; free where autocast is off already."""
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()


class _Final(Function):
    """A gradient that must not be differentiated again."""

    @staticmethod
    def forward(ctx, grad):
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "sparse24 has first derivatives only: to backpropagate through a gradient "
            "(create_graph=True) compute x * mask24(x) and dense products instead"
        )


def first_order(backward):
    """A ``backward`` that computes in the dtypes it is given and refuses to be differentiated.

    torch's once_differentiable refuses only where the incoming gradient has a graph. A constant one, as
    of ``y.sum()``, it lets through as if the result did not depend on the inputs.
    """

    @wraps(backward)
    def wrapper(ctx, *grads):
        device = next((grad.device.type for grad in grads if grad is not None), "cpu")
        with torch.no_grad(), no_autocast(device):
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        return tuple(g if g is None else _Final.apply(g.detach().requires_grad_()) for g in found)

    return wrapper


def link_for(x: torch.Tensor) -> torch.Tensor:
    """One element, shaped like ``x``: carries x's gradient through autograd, holds no data."""
    return x.new_zeros(()).expand(x.shape)


class Move(Function):
    """A link to another device or dtype, one element there too; its gradient comes back as ours was."""

    @staticmethod
    def forward(ctx, link, device, dtype):
        ctx.home = link.device, link.dtype
        return torch.zeros((), device=device, dtype=dtype).expand(link.shape)

    @staticmethod
    def backward(ctx, grad):
        return grad.to(*ctx.home), None, None


class Sparsify(Function):
    """x -> x with 2 of 4 kept.  ste: dx = dy.  masked: dx = dy where kept (saves 1 bit a value)."""

    @staticmethod
    def forward(ctx, x, gradient, ops):
        ctx.ops, ctx.masked = ops, gradient == "masked"
        if not ctx.masked:
            return ops.prune(x)
        values, metadata = ops.pack(x)
        ctx.save_for_backward(metadata)
        return ops.unpack(values, metadata, x.shape)

    @staticmethod
    @first_order
    def backward(ctx, grad):
        if ctx.masked:
            grad = ctx.ops.masked_grad(grad, *ctx.saved_tensors)
        return grad, None, None


class Compress(Function):
    """x (or h, with ``square``) -> values, metadata, link. What backward keeps:

    plain, ste     nothing                  dx = d(dense)
    plain, masked  metadata                 dx = d(dense) where kept
    relu2, masked  values and metadata      dh = 2 relu(h) d(dense) where kept, relu(h) = sqrt(value)
    relu2, ste     h                        dh = 2 relu(h) d(dense), dropped entries too
    """

    @staticmethod
    def forward(ctx, x, square, gradient, layout, ops):
        values, metadata = ops.pack(x, square, layout)
        ctx.ops, ctx.square, ctx.masked, ctx.layout = ops, square, gradient == "masked", layout
        if ctx.masked:
            ctx.save_for_backward(metadata, values if square else None)
        elif square:
            ctx.save_for_backward(x)
        ctx.mark_non_differentiable(values, metadata)
        return values, metadata, link_for(x)

    @staticmethod
    @first_order
    def backward(ctx, _values, _metadata, grad):
        if ctx.masked:
            grad = ctx.ops.masked_grad(grad, *ctx.saved_tensors, ctx.layout)
        elif ctx.square:
            grad = ctx.ops.ste_grad(grad, *ctx.saved_tensors)
        return grad, None, None, None, None


class Decompress(Function):
    """packed -> dense. The gradient of the dense tensor goes to the link unchanged, to any order."""

    @staticmethod
    def forward(ctx, link, packed, ops):
        return ops.unpack(packed.values, packed.metadata, packed.shape, packed.layout)

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None


class Matmul(Function):
    """y = A W^T for packed A (..., K) and W (N, K).  dA = dy W (dense), dW = dy^T A.

    Keeps A packed; dW unpacks it for the moment of the product, because 2:4 along K is not 2:4
    along the tokens over which dW sums.
    """

    @staticmethod
    def forward(ctx, link, weight, packed, ops):
        ctx.ops, ctx.shape, ctx.layout = ops, packed.shape, packed.layout
        saved = (packed.values, packed.metadata) if ctx.needs_input_grad[1] else (None, None)
        ctx.save_for_backward(*saved, weight if ctx.needs_input_grad[0] else None)
        return ops.multiply(packed, weight)

    @staticmethod
    @first_order
    def backward(ctx, grad):
        values, metadata, weight = ctx.saved_tensors
        d_link = d_weight = None
        if ctx.needs_input_grad[0]:
            d_link = grad @ weight
        if ctx.needs_input_grad[1]:
            dense = ctx.ops.unpack(values, metadata, ctx.shape, ctx.layout)
            if grad.dim() == 1:  # flatten has no -2 there
                grad, dense = grad[None], dense[None]
            d_weight = grad.flatten(0, -2).t() @ dense.flatten(0, -2)
        return d_link, d_weight, None, None
