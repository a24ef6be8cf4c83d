"""sparse24's reference: truth tables, properties, gradients, the packed format and the error messages."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse24 import (
    Packed,
    compress,
    decompress,
    layouts,
    mask24,
    matmul,
    reference,
    relu2_compress,
    relu2_ffn,
    sparsify,
)

NAN, INF = float("nan"), float("inf")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

TABLE = [  # four values, which two stay (by hand)
    ((1, 2, 3, 4), (2, 3)),
    ((4, 3, 2, 1), (0, 1)),
    ((1, 4, 2, 3), (1, 3)),
    ((-4, 1, 3, -2), (0, 2)),  # magnitude, not value
    ((0, 0, 0, 0), (0, 1)),  # ties keep the lowest index
    ((1, 1, 1, 1), (0, 1)),
    ((0, 0, 0, 5), (0, 3)),
    ((2, 5, 2, 2), (0, 1)),
    ((-1, 2, 1, 0), (0, 1)),
    ((3, NAN, 9, INF), (1, 3)),  # NaN, then inf, then numbers
    ((NAN, NAN, NAN, INF), (0, 1)),
    ((INF, -INF, 1, NAN), (0, 3)),
    ((-0.0, 0.0, -0.0, 1e-3), (0, 3)),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("group", "kept"), TABLE)
def test_truth_table(group, kept, dtype):
    x = torch.tensor(group, dtype=dtype)
    expected = torch.tensor([value if i in kept else 0.0 for i, value in enumerate(group)], dtype=dtype)
    exact = {"rtol": 0, "atol": 0, "equal_nan": True}
    assert mask24(x).nonzero().flatten().tolist() == list(kept)
    torch.testing.assert_close(sparsify(x), expected, **exact)
    packed = compress(x)
    torch.testing.assert_close(packed.values, x[list(kept)], **exact)
    assert packed.metadata.tolist() == [kept[0] | kept[1] << 2]
    torch.testing.assert_close(decompress(packed), expected, **exact)


def test_metadata_puts_the_even_group_in_the_low_nibble():
    x = torch.tensor([0.0, 9, 0, 9, 9, 9, 0, 0, 0, 0, 9, 9])  # kept: 1 3 | 0 1 | 2 3
    assert compress(x).metadata.tolist() == [(1 | 3 << 2) | (0 | 1 << 2) << 4, 2 | 3 << 2]


floats = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 250.0, INF, -INF, NAN])
rows = st.lists(floats, min_size=4, max_size=48).map(lambda row: row[: len(row) // 4 * 4])


@settings(max_examples=100, deadline=None)
@given(rows, st.sampled_from(DTYPES))
def test_selection_properties(row, dtype):
    x = torch.tensor(row, dtype=dtype)
    mask = mask24(x).unflatten(-1, (-1, 4))
    assert (mask.sum(-1) == 2).all()
    size = x.abs().nan_to_num(nan=INF).unflatten(-1, (-1, 4)) + x.isnan().unflatten(-1, (-1, 4))
    smallest_kept = size.masked_fill(~mask, INF).amin(-1)
    largest_dropped = size.masked_fill(mask, 0).amax(-1)
    assert (smallest_kept >= largest_dropped).all()
    torch.testing.assert_close(sparsify(sparsify(x)), sparsify(x), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(decompress(compress(x)), sparsify(x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(4,), (0, 8), (3, 0), (1, 12), (2, 3, 5, 16), (7, 44)])
def test_any_leading_shape_comes_back(shape):
    x = torch.randn(shape)
    packed = compress(x)
    assert packed.values.shape == (*shape[:-1], shape[-1] // 2)
    assert packed.metadata.shape == (*shape[:-1], -(-shape[-1] // 8))
    assert torch.equal(decompress(packed), sparsify(x))


def test_strided_input_gives_the_same_as_its_copy():
    x = torch.randn(24, 10).t()
    assert not x.is_contiguous()
    for function in (sparsify, mask24, lambda x: decompress(relu2_compress(x))):
        assert torch.equal(function(x), function(x.contiguous()))


def test_packed_bfloat16_takes_nine_sixteenths():
    x = torch.randn(64, 256).bfloat16()
    assert compress(x).nbytes * 16 == x.nbytes * 9


def test_relu2_chooses_before_squaring():
    # 300 and 400 square to inf in float16, 1e-4 and 5e-5 to 0: their order must survive.
    x = torch.tensor([300.0, 400, 500, 1, -9, 5e-5, 1e-4, 5e-5], dtype=torch.float16)
    packed = relu2_compress(x)
    assert packed.metadata.tolist() == [(1 | 2 << 2) | (1 | 2 << 2) << 4]
    assert packed.values.tolist() == [INF, INF, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_relu2_is_the_pruned_square(dtype):
    h = torch.randn(9, 32).to(dtype)
    assert torch.equal(decompress(relu2_compress(h)), sparsify(h.relu().square()))


def test_masked_gradients_are_exact():
    x = torch.randn(3, 2, 12, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(lambda x: sparsify(x, gradient="masked"), (x,))
    assert check(lambda x: decompress(compress(x, gradient="masked")), (x,))
    assert check(lambda x, w: matmul(relu2_compress(x, gradient="masked"), w), (x, w))
    up = torch.randn(16, 12, dtype=torch.float64, requires_grad=True)
    down = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    assert check(lambda *args: relu2_ffn(*args, gradient="masked"), (x, up, down))


def test_straight_through_also_reaches_dropped_positive_entries():
    h = torch.tensor([1.0, 2, 3, -4], requires_grad=True)
    upstream = torch.tensor([10.0, 10, 10, 10])
    expected = {"ste": [20.0, 40, 60, 0], "masked": [0.0, 40, 60, 0]}
    for gradient, value in expected.items():
        (grad,) = torch.autograd.grad(decompress(relu2_compress(h, gradient=gradient)), h, upstream)
        assert grad.tolist() == value
    for gradient, value in {"ste": [10.0] * 4, "masked": [0.0, 0, 10, 10]}.items():
        (grad,) = torch.autograd.grad(sparsify(h, gradient=gradient), h, upstream)
        assert grad.tolist() == value
        (grad,) = torch.autograd.grad(decompress(compress(h, gradient=gradient)), h, upstream)
        assert grad.tolist() == value


@pytest.mark.parametrize("gradient", ["ste", "masked"])
def test_the_fused_ffn_equals_its_steps(gradient):
    z, up, down = (torch.randn(*s, dtype=torch.float64) for s in ((2, 3, 8), (20, 8), (6, 20)))
    leaves = [t.requires_grad_() for t in (z, up, down)]
    fused = relu2_ffn(*leaves, gradient=gradient)
    steps = matmul(relu2_compress(z @ up.t(), gradient=gradient), down)
    torch.testing.assert_close(fused, steps)
    upstream = torch.randn_like(fused)
    for a, b in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (fused, steps)), strict=True):
        torch.testing.assert_close(a, b)


def test_backward_keeps_only_the_packed_activation():
    h = torch.randn(64, 256).bfloat16().requires_grad_()
    w = torch.randn(8, 256).bfloat16().requires_grad_()
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        matmul(relu2_compress(h, gradient="masked"), w)
    assert sum(kept.values()) == h.nbytes * 9 // 16 + w.nbytes


def test_matmul_follows_autocast():
    packed = compress(torch.randn(4, 16).bfloat16())
    w = torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert matmul(packed, w).dtype == torch.bfloat16


def test_layouts_convert_both_ways():
    x = torch.randn(3, 50, 76).half()
    rows, cells = reference.pack(x), reference.pack(x, layout="cusparselt")
    assert cells[0].shape == (192, 64)
    assert torch.equal(layouts.rows_values(cells[0], x.shape), rows[0])
    assert torch.equal(layouts.rows_metadata(cells[1], x.shape), rows[1])
    assert cells[0].data_ptr() + cells[0].nbytes == cells[1].data_ptr()
    packed = compress(x, layout="cusparselt")
    assert torch.equal(decompress(packed), sparsify(x))
    w = torch.randn(8, 76).half()
    assert torch.equal(matmul(packed, w), matmul(compress(x), w))


def test_cusparselt_bytes_by_hand():
    x = torch.zeros(64, 64, dtype=torch.float16)
    x[9, 20 : 20 + 4] = torch.tensor([0.0, 1, 0, 1])  # row 9, group 5 keeps 1 and 3
    _, metadata = reference.pack(x, layout="cusparselt")
    empty = (0 | 1 << 2) | (0 | 1 << 2) << 4
    byte = 1 * 8 + (5 % 4) * 2 + 1  # row%8 = 1, group%4 = 1, group%8//4 = 1; row 9: high nibble
    expected = torch.full((512,), empty, dtype=torch.uint8)
    expected[byte] = (0 | 1 << 2) | (1 | 3 << 2) << 4
    assert torch.equal(metadata, expected)


W = torch.ones(3, 8)
BAD = {
    "x must have a last dimension that is a multiple of 4; got shape \\(2, 6\\)": lambda: sparsify(
        torch.ones(2, 6)
    ),
    "x must be a dense .strided. tensor": lambda: sparsify(torch.ones(2, 8).to_sparse()),
    "h must have a last dimension": lambda: relu2_compress(torch.ones(5)),
    "x must be a float16": lambda: compress(torch.ones(4, dtype=torch.int64)),
    "x must be a float16.*got list": lambda: mask24([1.0, 2, 3, 4]),
    "gradient must be one of 'ste', 'masked'; got 'dense'": lambda: sparsify(W, gradient="dense"),
    "backend must be one of": lambda: compress(W, backend="cuda"),
    "backend must be 'auto' or 'reference' here": lambda: compress(W.double(), backend="triton"),
    "layout must be one of": lambda: compress(W, layout="columns"),
    "layout must be 'auto' or 'rows' for torch.float32": lambda: compress(W, layout="cusparselt"),
    "packed must be a sparse24.Packed; got Tensor": lambda: decompress(W),
    "weight must be a tensor of shape \\(N, 8\\); got \\(3, 4\\)": lambda: matmul(compress(W), W[:, :4]),
    "weight must be torch.float32 on cpu": lambda: matmul(compress(W), W.half()),
    "z must be a floating tensor": lambda: relu2_ffn(W.long(), W, W),
    "up must have a multiple of 4 rows": lambda: relu2_ffn(W, W, torch.ones(2, 3)),
    "down must be a tensor of shape \\(N, 4\\)": lambda: relu2_ffn(W, torch.ones(4, 8), W),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_names_the_argument(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_import_needs_neither_triton_nor_a_gpu():
    code = (
        "import sys; sys.modules['triton'] = None; import torch, sparse24, tokenstats; "
        "x = torch.randn(2, 8); sparse24.decompress(sparse24.relu2_compress(x)); tokenstats.token_stats(x)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


def test_packed_detach_shares_storage_without_gradient():
    packed = compress(torch.randn(2, 8, requires_grad=True))
    assert packed.link is not None
    loose = packed.detach()
    assert isinstance(loose, Packed)
    assert loose.link is None
    assert loose.values.data_ptr() == packed.values.data_ptr()


def test_a_single_packed_row_has_gradients():
    x, weight = torch.randn(8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    matmul(compress(x), weight).sum().backward()
    expected = sparsify(x.detach()).expand(3, 8)
    torch.testing.assert_close(weight.grad, expected)
