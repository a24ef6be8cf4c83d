"""Gradients of token_stats: small temperatures, logits at the edge of float32, second derivatives."""

import pytest
import torch

from tokenstats import reference, token_stats

triton = pytest.importorskip("tokenstats.triton")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
INF = float("inf")
needs_kernels = pytest.mark.skipif(
    not GPU and not triton.INTERPRETED, reason="needs a GPU or TRITON_INTERPRET=1"
)
BACKENDS = ["reference", pytest.param("triton", marks=needs_kernels)]


def hard_logits(width, size):
    """Rows of ``size``: random, with -inf, one-hot, two equal maxima."""
    logits = torch.randn(5, width, device=DEVICE).clamp(-3, 3) * size
    if width > 1:
        logits[1, 1::3] = -INF
        logits[2] = -INF
        logits[2, width // 2] = size  # one-hot
        logits[3, [0, -1]] = 3.3 * size
    return logits


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [0.01, 0.7])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e37])
@pytest.mark.parametrize("width", [1, 40, 512, 513, 5000])
def test_gradients_are_those_of_float64(width, size, temperature, backend):
    logits = hard_logits(width, size)
    weights = torch.randn(3, 5, device=DEVICE)
    for tokens in (None, torch.tensor([0, 0, width // 2, width - 1, width // 3], device=DEVICE)):
        found = []
        for x, run in ((logits, backend), (logits.double(), "reference")):
            x = x.clone().requires_grad_()
            stats = token_stats(x, tokens, temperature, backend=run)
            # Of rows, not of their sum: a log-probability may be -inf at 1e37.
            grads = torch.autograd.grad(stats[1:], x, [w.to(stats.entropy.dtype) for w in weights])
            found.append((grads[0].double(), stats))
        (grad, stats), (truth, expected) = found
        assert grad.isfinite().all()
        assert (grad - truth).norm() <= 1e-5 * truth.norm()
        assert torch.equal(stats.argmax, expected.argmax)
        for value, right in zip(stats[1:], expected[1:], strict=True):
            assert not value.isnan().any()
            if size < 1e37:
                torch.testing.assert_close(value.double(), right, rtol=2e-5, atol=3e-5)


@pytest.mark.parametrize("width", [1, 40, 600])
@pytest.mark.parametrize("given", [False, True])
def test_the_closed_form_is_autograd_s(width, given):
    x = hard_logits(width, 3.0).double().requires_grad_()
    tokens = torch.tensor([0, 0, width // 2, width - 1, width // 3], device=DEVICE) if given else None
    grads = list(torch.randn(3, 5, device=DEVICE, dtype=torch.float64))
    (right,) = torch.autograd.grad(token_stats(x, tokens, 0.7)[1:], x, grads)
    found = reference.token_stats_backward(x.detach(), tokens, 0.7, grads)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)


@needs_kernels
@pytest.mark.parametrize("width", [40, 3000])
def test_a_second_derivative_is_refused(width):
    logits = torch.randn(3, width, device=DEVICE, requires_grad=True)
    total = token_stats(logits, backend="triton").entropy.sum()
    (grad,) = torch.autograd.grad(total, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        (grad.square().sum() + logits.square().sum()).backward()


@needs_kernels
@pytest.mark.parametrize("width", [64, 3008])
def test_logits_off_16_bytes_and_grads_that_a_hook_has_copied(width):
    flat = torch.randn(5 * width + 1, device=DEVICE)
    logits, aligned = flat[1:].view(5, width), flat[1:].clone().view(5, width)
    grads = []
    for x in (logits, aligned):
        x = x.detach().requires_grad_()
        with torch.autograd.graph.save_on_cpu():
            stats = token_stats(x, backend="triton")
        grads.append(torch.autograd.grad(stats.entropy.sum() + stats.logprob.sum(), x)[0])
    torch.testing.assert_close(*grads)
