"""token_stats: closed forms, edge rows, gradients, the kernels against the reference, error messages."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenstats import TokenStats, reference, token_stats

triton = pytest.importorskip("tokenstats.triton")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
needs_kernels = pytest.mark.skipif(
    not GPU and not triton.INTERPRETED, reason="needs a GPU or TRITON_INTERPRET=1"
)
NAN, INF = float("nan"), float("inf")
DTYPES = [torch.float16, torch.float32, *([torch.bfloat16] if GPU else [])]
SHAPES = [(1, 1), (999, 10), (63, 7), (130, 512), (3, 513), (3, 2049), (2, 50257)]
SHAPES += [(1000, 126464), (7, 152064)] if GPU else []
BACKENDS = ["reference", pytest.param("triton", marks=needs_kernels)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_forms(backend):
    logits = torch.tensor(
        [[0.0, 0, 0, 0], [math.log(3), 0, -INF, -INF], [5, -INF, -INF, -INF]], device=DEVICE
    )
    stats = token_stats(logits, backend=backend)
    assert stats.argmax.tolist() == [0, 0, 0]
    assert stats.argmax.dtype == torch.int64
    torch.testing.assert_close(stats.confidence.tolist(), [0.25, 0.75, 1.0])
    torch.testing.assert_close(stats.logprob.tolist(), [math.log(0.25), math.log(0.75), 0.0])
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(stats.entropy.tolist(), [math.log(4), quarter, 0.0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30), st.floats(0.1, 10))
def test_bounds(row, temperature):
    stats = token_stats(torch.tensor(row), temperature=temperature)
    assert 1 / len(row) - 1e-5 <= stats.confidence <= 1 + 1e-6
    assert -1e-5 <= stats.entropy <= math.log(len(row)) + 1e-5
    assert stats.logprob == pytest.approx(math.log(stats.confidence), abs=1e-5)
    assert stats.argmax == row.index(max(row))


@needs_kernels
@pytest.mark.parametrize("width", [3, 600])  # a short row and one in parts
def test_a_temperature_near_zero_leaves_the_argmax(width):
    logits = torch.zeros(2, width, device=DEVICE)
    logits[:, 1] = 1.0
    logits.requires_grad_()
    stats = token_stats(logits, temperature=1e-40, backend="triton")
    assert stats.argmax.tolist() == [1, 1]
    assert [value.tolist() for value in stats[1:]] == [[1, 1], [0, 0], [0, 0]]
    stats.entropy.sum().backward()
    assert not logits.grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [4, 600])
def test_a_temperature_that_float32_does_not_hold_is_a_limit_not_nan(width, backend):
    logits = torch.full((1, width), -INF, device=DEVICE)
    logits[0, :3] = torch.tensor([0.0, 1.0, 2.0])
    logits.requires_grad_()
    for cold in (1e-50, 5e-324):  # all on the largest
        stats = token_stats(logits, temperature=cold, backend=backend)
        assert [value.item() for value in stats] == [2, 1, 0, 0]
        (grad,) = torch.autograd.grad(stats.entropy.sum(), logits)
        assert not grad.any()
    for hot in (1e39, 1e300):  # three alike
        numbers = [value.item() for value in token_stats(logits, temperature=hot, backend=backend)]
        assert numbers == pytest.approx([2, 1 / 3, -math.log(3), math.log(3)], rel=1e-6)


def test_any_finite_number_is_a_temperature():
    logits = torch.tensor([[0.0, math.log(3)]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, of a comparison that overflows
        half = token_stats(logits, temperature=np.float32(0.5))
    assert half.confidence.item() == pytest.approx(9 / 10)
    for bad in (10**400, Fraction(1, 10**400)):
        with pytest.raises(ValueError, match="temperature must be a finite number > 0; got"):
            token_stats(logits, temperature=bad)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int16])
def test_tokens_of_any_integer_dtype(dtype):
    logits = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])
    told = token_stats(logits, torch.tensor([1, 1]).to(dtype)).logprob
    assert told.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
    with pytest.raises(ValueError, match="tokens must lie between 0 and 1; got values from 0 to 2"):
        token_stats(logits, torch.tensor([0, 2]).to(dtype))


def test_temperature_is_a_division():
    logits = torch.randn(4, 9)
    for a, b in zip(token_stats(logits, temperature=2.5), token_stats(logits / 2.5), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [301, 3001])  # a row whole and in parts
def test_edge_rows(backend, width):
    logits = torch.randn(6, width, device=DEVICE)
    logits[0, [200, 100]] = NAN
    logits[1, [77, 200]] = INF
    logits[2] = -INF
    logits[3, [5, 250]] = 9.0  # a tie
    logits[4] = -3e38
    stats = token_stats(logits, backend=backend)
    assert stats.argmax.tolist() == [100, 77, 0, 5, 0, logits[5].argmax().item()]
    for value in stats[1:]:
        assert value.isnan().tolist() == [True, True, True, False, False, False]
    assert stats.confidence[4].item() == pytest.approx(1 / width)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_and_strides(backend):
    logits = torch.randn(2, 3, 5, 17, device=DEVICE)
    tokens = torch.randint(0, 17, (2, 3, 5), device=DEVICE)
    expected = reference.token_stats(logits, tokens)
    assert all(value.shape == (2, 3, 5) for value in expected)
    strided = torch.stack((logits, logits), -1)[..., 0]  # last stride 2
    sliced = torch.cat((logits, logits), -1)[..., :17]  # rows apart
    for x in (logits, strided, sliced):
        for a, b in zip(token_stats(x, tokens, backend=backend), expected, strict=True):
            torch.testing.assert_close(a, b)
    one = token_stats(logits[0, 0, 0], tokens[0, 0, 0], backend=backend)
    assert one.entropy.shape == ()
    assert token_stats(logits[:0], backend=backend).argmax.shape == (0, 3, 5)


@needs_kernels
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1),
        (999, 10),
        (63, 7),
        (130, 512),
        (3, 513),
        (3, 2049),
        (2, 50257),
        *([(1000, 126464), (7, 152064)] if GPU else []),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_equal_the_reference(dtype, shape, temperature):
    logits = (torch.randn(shape, device=DEVICE) * 4).to(dtype)
    logits[0, 1::3] = -INF
    tokens = torch.randint(0, shape[1], shape[:1], device=DEVICE)
    for chosen in (None, tokens):
        got = token_stats(logits, chosen, temperature, backend="triton")
        expected = reference.token_stats(logits.double(), chosen, temperature)
        assert torch.equal(got.argmax, expected.argmax)
        for a, b in zip(got[1:], expected[1:], strict=True):
            torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=3e-5)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernel_gradients_equal_the_reference(dtype):
    logits = torch.randn(5, 5000, device=DEVICE).mul(3).to(dtype)
    logits[0, 1::3] = -INF
    logits.requires_grad_()
    tokens = torch.tensor([0, 1, 2500, 4095, 4999], device=DEVICE)  # row 0 is finite at 0
    weights = torch.randn(3, 5, device=DEVICE)
    grads = []
    for backend in ("reference", "triton"):
        stats = token_stats(logits, tokens, 0.7, backend=backend)
        total = sum((weight * value).sum() for weight, value in zip(weights, stats[1:], strict=True))
        grads.append(torch.autograd.grad(total, logits)[0].double())
    eps = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-4}[dtype]
    assert (grads[1] - grads[0]).norm() / grads[0].norm() < eps


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_no_rows_keep_their_gradient(backend):
    logits = torch.empty(0, 5, device=DEVICE, requires_grad=True)
    token_stats(logits, backend=backend).entropy.sum().backward()
    assert logits.grad.shape == (0, 5)


def test_reference_gradients_are_exact():
    logits = torch.randn(3, 6, dtype=torch.float64)
    logits[0, 2] = -INF  # its gradient must be 0, not NaN
    tokens = torch.tensor([0, 5, 1])
    logits.requires_grad_()
    stats = token_stats(logits, tokens)
    (grad,) = torch.autograd.grad((stats.confidence + stats.logprob + stats.entropy).sum(), logits)
    assert grad.isfinite().all()
    assert grad[0, 2] == 0
    finite = logits.detach()[1:].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_stats(x, tokens[1:])[1:], (finite,))


@pytest.mark.gpu
def test_token_stats_replays_in_a_graph():
    for width in (64, 50257):
        logits = torch.randn(300, width, device=DEVICE, dtype=torch.bfloat16)
        expected = token_stats(logits)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = token_stats(logits)
        for value in found:
            value.zero_()
        graph.replay()
        assert all(map(torch.equal, found, expected))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 16, 257, 5000])
@pytest.mark.parametrize("width", [1, 2, 5, 16, 31, 100, 256, 512, 513, 2048, 32000, 50257, 126464])
def test_every_tile_equals_the_reference(width, rows, dtype):
    rows = min(rows, 2**26 // width)
    logits = (torch.randn(rows, width, device=DEVICE) * 4).to(dtype)
    expected = reference.token_stats(logits.double())
    got = token_stats(logits, backend="triton")
    assert torch.equal(got.argmax, expected.argmax)
    for a, b in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=3e-5)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("width", [100, 5000])
def test_logits_on_a_device_that_is_not_the_current_one(width):
    logits = torch.randn(7, width).to("cuda:1").requires_grad_()
    stats = token_stats(logits)
    (grad,) = torch.autograd.grad(stats.entropy.sum(), logits)
    (truth,) = torch.autograd.grad(token_stats(logits, backend="reference").entropy.sum(), logits)
    torch.testing.assert_close(grad, truth)
    assert torch.cuda.current_device() == 0


X = torch.randn(2, 5)
BAD = {
    "logits must be a floating tensor; got torch.int64": lambda: token_stats(X.long()),
    "logits must have shape \\(..., V\\) with V >= 1": lambda: token_stats(X[:, :0]),
    "temperature must be a finite number > 0; got 0": lambda: token_stats(X, temperature=0),
    "temperature must be a number > 0; got 'hot'": lambda: token_stats(X, temperature="hot"),
    "tokens must be an integer tensor": lambda: token_stats(X, torch.ones(2)),
    "tokens must have shape \\(2,\\)": lambda: token_stats(X, torch.ones(3, dtype=torch.long)),
    "tokens must have shape \\(2,\\) on cpu; got .* on meta": lambda: token_stats(
        X, torch.ones(2, dtype=torch.long, device="meta")
    ),
    "tokens must lie between 0 and 4; got values from 0 to 5": lambda: token_stats(X, torch.tensor([0, 5])),
    "backend must be one of 'auto', 'reference', 'triton'": lambda: token_stats(X, backend="cuda"),
    "backend must be 'auto' or 'reference' here": lambda: token_stats(X.double(), backend="triton"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_names_the_argument(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_result_is_a_named_tuple():
    assert TokenStats._fields == ("argmax", "confidence", "logprob", "entropy")
