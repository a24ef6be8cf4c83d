"""sparse24's kernels against the reference: on the GPU, or through Triton's interpreter without one."""

import warnings

import pytest
import torch

pytest.importorskip("triton")
from sparse24 import (
    Packed,
    compress,
    cusparselt,
    gemm,
    layouts,
    matmul,
    reference,
    relu2_compress,
    relu2_ffn,
)
from sparse24 import triton as kernels

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
if not GPU and not kernels.INTERPRETED:
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

# The interpreter computes bfloat16 wrongly (checked below), so it is tested on a GPU only.
DTYPES = [torch.float16, torch.float32, *([torch.bfloat16] if GPU else [])]
SHAPES = [(1, 2064), (63, 20), (5, 7, 264), (64, 64), (130, 68)]
SHAPES += (
    [(1000, 2064), (1000, 3072), (63, 5504), (1000, 8192)] if GPU else [(3, 3072), (2, 5504), (1, 8192)]
)
SIXTEEN = [dtype for dtype in DTYPES if dtype != torch.float32]
EPS = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def _poison_new_tensors():
    """Whatever a kernel forgets to write is NaN (or 255)."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def hard(shape, dtype):
    """Random with ties, zeros, an all-zero row, NaN of both signs and inf."""
    x = torch.randn(shape, device=DEVICE).to(dtype)
    flat = x.view(-1)
    flat[::7], flat[1::5], flat[3::11] = 0, 1, -1
    flat[16:24] = torch.tensor([NAN, 1, -NAN, 2, INF, -INF, NAN, 3], dtype=dtype)
    if len(x) > 1:
        x[-1] = 0
    return x


NAN, INF = float("nan"), float("inf")


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_operation_equals_the_reference(shape, dtype):
    x = hard(shape, dtype)
    same(kernels.mask(x), reference.mask(x))
    same(kernels.prune(x), reference.prune(x))
    grad = torch.randn(shape, device=DEVICE).to(dtype)
    for layout in ("rows",) if dtype == torch.float32 else ("rows", "cusparselt"):
        for square in (False, True):
            expected = reference.pack(x, square, layout)
            got = kernels.pack(x, square, layout)
            same(got[0], expected[0])
            same(got[1], expected[1])
            same(kernels.unpack(*got, x.shape, layout), reference.unpack(*expected, x.shape, layout))
        values, metadata = expected
        same(
            kernels.masked_grad(grad, metadata, None, layout),
            reference.masked_grad(grad, metadata, None, layout),
        )
        torch.testing.assert_close(
            kernels.masked_grad(grad, metadata, values, layout),
            reference.masked_grad(grad, metadata, values, layout),
            rtol=EPS[dtype], atol=0, equal_nan=True,
        )  # fmt: skip
    same(kernels.ste_grad(grad, x), reference.ste_grad(grad, x))
    for got, expected in zip(kernels.ste_backward(grad, x), reference.ste_backward(grad, x), strict=True):
        same(got, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ste_backward_in_place(dtype):
    h, grad = (torch.randn(35, 44, device=DEVICE).to(dtype) for _ in range(2))
    expected, kept = 2 * h.relu() * grad, reference.prune(h.relu() ** 2)
    dense, pruned = kernels.ste_backward(grad, h, in_place=True)
    torch.testing.assert_close(dense, expected, rtol=EPS[dtype], atol=EPS[dtype])
    assert dense.data_ptr() == grad.data_ptr()
    same(pruned, kept)


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_masked_grad_in_place_and_packed(dtype):
    h = torch.randn(70, 200, device=DEVICE).to(dtype)
    values, metadata = kernels.pack(h, True, "cusparselt")
    grad = torch.randn_like(h)
    expected = kernels.masked_grad(grad, metadata, values, "cusparselt")
    room, positions = layouts.packed_like(values, metadata, h.shape)
    got = kernels.masked_grad(grad, metadata, values, "cusparselt", packed_out=room, in_place=True)
    same(got, expected)
    assert got.data_ptr() == grad.data_ptr()
    assert room.data_ptr() + room.nbytes == positions.data_ptr()
    same(kernels.unpack(room, positions, h.shape, "cusparselt"), expected)
    assert (room[:, 100:] == 0).all()


@pytest.mark.parametrize("gradient", ["ste", "masked"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_equal_the_reference(dtype, gradient):
    h = torch.randn(63, 264, device=DEVICE).to(dtype).requires_grad_()
    w = (torch.randn(16, 264, device=DEVICE) / 16).to(dtype).requires_grad_()
    out, grads = {}, {}
    for backend in ("reference", "triton"):
        out[backend] = matmul(relu2_compress(h, gradient=gradient, backend=backend), w, backend=backend)
        grads[backend] = torch.autograd.grad(out[backend].float().square().sum(), (h, w))
    scale = 4 * EPS[dtype]
    torch.testing.assert_close(out["triton"], out["reference"], rtol=scale, atol=scale)
    for a, b in zip(grads["triton"], grads["reference"], strict=True):
        torch.testing.assert_close(a, b, rtol=scale, atol=scale * b.abs().max().item())


def test_strided_and_misaligned_inputs():
    base = torch.randn(4 * 33 * 20 + 1, device=DEVICE).half()
    shifted = base[1 : 1 + 33 * 20].view(33, 20)  # contiguous, 2 bytes off the word
    transposed = base[: 20 * 33].view(20, 33).t()
    for x in (shifted, transposed):
        same(kernels.pack(x)[0], reference.pack(x)[0])
        same(kernels.ste_grad(x, x), reference.ste_grad(x, x))
        same(kernels.ste_backward(x, x)[1], reference.ste_backward(x, x)[1])


def test_empty_tensors_launch_nothing():
    for shape in ((0, 8), (3, 0), (2, 0, 16)):
        x = torch.empty(shape, device=DEVICE, dtype=torch.float16)
        assert kernels.unpack(*kernels.pack(x), x.shape).shape == x.shape
        assert kernels.mask(x).shape == kernels.prune(x).shape == x.shape


TILES = [(64, 64, 64), (130, 320, 72), (1, 64, 8)] + ([(1000, 5504, 256), (2048, 8192, 512)] if GPU else [])


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
@pytest.mark.parametrize(("rows", "features", "k"), TILES)
def test_fused_product_packs_what_two_steps_pack(rows, features, k, dtype):
    if GPU and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("the fused product needs Hopper's copy engine")
    # Small integers: exact in every order of summation, with many ties.
    z = torch.randint(-2, 3, (rows, k), device=DEVICE).to(dtype)
    up = torch.randint(-1, 2, (features, k), device=DEVICE).to(dtype)
    z[rows // 2, 0] = NAN
    h = (z.float() @ up.float().t()).to(dtype)
    blocks = {} if GPU else {"BM": 64, "BN": 64}
    got, expected = gemm.relu2_pack(z, up, **blocks), reference.pack(h, True, "cusparselt")
    same(got[0], expected[0])
    same(got[1], expected[1])


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", ["ste", "masked"])
@pytest.mark.parametrize(
    "sizes", [(1000, 256, 2064, 256), (2048, 512, 3072, 512), (63, 64, 132, 8)], ids=str
)
def test_ffn_against_float64(sizes, gradient):
    rows, k, features, n = sizes
    leaves = [
        torch.randn(s, device=DEVICE).mul(k**-0.25).bfloat16()
        for s in ((rows, k), (features, k), (n, features))
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y = relu2_ffn(*leaves, gradient=gradient)
    upstream = torch.randn_like(y)
    grads = torch.autograd.grad(y, leaves, upstream)
    # The selection is taken from the bfloat16 h; everything else in float64.
    z, up, down = (leaf.detach().double() for leaf in leaves)
    h = (leaves[0] @ leaves[1].t()).detach()
    mask, h = reference.mask(h.relu()), h.double()
    s = torch.where(mask, h.relu().square(), 0)
    d = upstream.double() @ down * 2 * h.relu()
    d = d if gradient == "ste" else d * mask
    expected = (s @ down.t(), d @ up, d.t() @ z, upstream.double().t() @ s)
    for got, truth in zip((y, *grads), expected, strict=True):
        assert (got.double() - truth).norm() / truth.norm() < 2e-2


@pytest.mark.gpu
def test_ffn_gradients_survive_a_second_backward():
    shapes = ((256, 64), (128, 64), (64, 128))
    leaves = [torch.randn(s, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for s in shapes]
    y = relu2_ffn(*leaves)
    first = torch.autograd.grad(y.sum(), leaves, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(y.sum(), leaves), strict=True):
        same(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("rows", "k", "n"), [(64, 64, 8), (1000, 2064, 256), (1024, 5504, 512)])
def test_sparse_product_equals_the_dense_one(rows, k, n, transposed, dtype):
    x = torch.randn(rows, k, device=DEVICE).to(dtype)
    w = torch.randn((k, n) if transposed else (n, k), device=DEVICE).to(dtype)
    w = w.t() if transposed else w
    packed = compress(x, layout="cusparselt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fallback would warn
        y = matmul(packed, w)
    truth = kernels.prune(x).double() @ w.double().t()
    assert (y.double() - truth).norm() / truth.norm() < 1e-2
    assert cusparselt.available(x.device, dtype)


@pytest.mark.gpu
def test_sparse_product_replays_in_a_graph():
    x, w = (torch.randn(s, device=DEVICE, dtype=torch.bfloat16) for s in ((512, 1024), (256, 1024)))
    expected = matmul(compress(x, layout="cusparselt"), w)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = matmul(compress(x, layout="cusparselt"), w)
    y.zero_()
    graph.replay()
    same(y, expected)


def test_each_fallback_warns_once_and_still_multiplies(monkeypatch):
    x, w = torch.randn(64, 64, device=DEVICE).half(), torch.randn(8, 64, device=DEVICE).half()
    packed = Packed(*kernels.pack(x, layout="cusparselt"), x.shape, "cusparselt")
    monkeypatch.setattr(cusparselt, "_broken", set())

    def broken(*_):
        raise RuntimeError("no plan today")

    monkeypatch.setattr(cusparselt, "plan_for", broken)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", broken)
    truth = kernels.prune(x) @ w.t()
    with pytest.warns(RuntimeWarning, match="no plan today") as seen:
        assert cusparselt._sparse(packed.values, w) is None
    assert [str(w.message).split("using ")[1] for w in seen] == [
        f"{way} for (64, 64) x (64, 8) torch.float16"
        for way in ("torch._cslt_sparse_mm", "a dense product")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(cusparselt.multiply(packed, w, kernels.unpack), truth)


@pytest.mark.skipif(GPU, reason="about the interpreter")
def test_interpreter_refuses_bfloat16():
    with pytest.raises(ValueError, match="computes bfloat16 wrongly"):
        compress(torch.randn(2, 8).bfloat16(), backend="triton")
