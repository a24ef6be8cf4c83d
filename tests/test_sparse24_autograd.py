"""sparse24 inside other people's graphs: hooks that copy, autocast, second derivatives, devices."""

import copy
import pickle

import pytest
import torch
from torch.nn.functional import linear

from sparse24 import (
    Packed,
    compress,
    decompress,
    layouts,
    matmul,
    reference,
    relu2_compress,
    relu2_ffn,
    sparsify,
)

CPU = "cpu"


def adjacent(packed):
    same = packed.values.untyped_storage().data_ptr() == packed.metadata.untyped_storage().data_ptr()
    return same and packed.metadata.data_ptr() == packed.values.data_ptr() + packed.values.nbytes


def test_metadata_is_brought_behind_its_values():
    x = torch.randn(70, 130 * 4).half()
    packed = compress(x, layout="cusparselt")
    assert layouts.together(packed.values, packed.metadata)[0] is packed.values
    off = torch.empty(packed.values.numel() + 1).half()[1:].view_as(packed.values).copy_(packed.values)
    apart = {
        "clones": (packed.values.clone(), packed.metadata.clone()),
        "strided": (packed.values.t().contiguous().t(), packed.metadata),
        "misaligned": (off, packed.metadata),
    }
    for name, (values, metadata) in apart.items():
        again = Packed(values, metadata, x.shape, "cusparselt")
        assert adjacent(again), name
        assert again.values.data_ptr() % 16 == 0
        assert torch.equal(again.values, packed.values)
        assert torch.equal(again.metadata, packed.metadata)
        assert torch.equal(decompress(again), sparsify(x))


def test_copies_and_pickles_still_multiply():
    x, w = torch.randn(64, 64).half(), torch.randn(8, 64).half()
    packed = compress(x, layout="cusparselt")
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed)), packed.detach()):
        assert torch.equal(matmul(again, w), matmul(packed, w))
        whole = layouts.together(again.values, again.metadata)
        assert all(map(torch.equal, whole, (packed.values, packed.metadata)))


class Watched:
    """The reference in layout "cusparselt", which notes whether products find metadata behind values."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        return getattr(reference, name)

    def layout_for(self, *_):
        return "cusparselt"

    def multiply(self, packed, weight):
        self.seen.append(adjacent(packed))
        return reference.multiply(packed, weight)


@pytest.mark.parametrize("keep", [False, True])
def test_a_product_in_backward_finds_metadata_that_a_hook_has_copied(keep, monkeypatch):
    from sparse24 import dispatch

    watched = Watched()
    monkeypatch.setattr(dispatch, "_backend", lambda *_: watched)
    leaves = [torch.randn(s).half().requires_grad_() for s in ((5, 16), (68, 16), (8, 68))]
    expected = torch.autograd.grad(relu2_ffn(*leaves).sum(), leaves)
    with torch.autograd.graph.save_on_cpu():
        y = relu2_ffn(*leaves)
    found = torch.autograd.grad(y.sum(), leaves, retain_graph=keep)
    assert watched.seen == [True] * 4
    for got, truth in zip(found, expected, strict=True):
        assert torch.equal(got, truth)


@pytest.mark.parametrize("layout", ["rows", "cusparselt"])
def test_the_packed_gradient_of_the_reference_is_its_dense_one(layout):
    h, grad = torch.randn(70, 200).half(), torch.randn(70, 200).half()
    values, metadata = reference.pack(h, True, layout)
    room = torch.zeros_like(values)
    dense = reference.masked_grad(grad, metadata, values, layout, packed_out=room)
    assert torch.equal(reference.unpack(room, metadata, h.shape, layout), dense)


@pytest.mark.parametrize("given", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_autocast_casts_as_linear_does(given):
    z, up, down = (torch.randn(s).to(given).requires_grad_() for s in ((8, 16), (32, 16), (4, 32)))
    with torch.autocast(CPU, torch.bfloat16):
        y, dense = relu2_ffn(z, up, down), linear(linear(z, up).relu().square(), down)
        product = matmul(relu2_compress(linear(z, up), gradient="masked"), down)
        y.sum().backward()  # still inside: backward computes in the dtypes of forward
    assert y.dtype == product.dtype == dense.dtype
    torch.testing.assert_close(y, product)
    assert [t.grad.dtype for t in (z, up, down)] == [given] * 3
    halves = [t.detach().to(y.dtype).requires_grad_() for t in (z, up, down)]
    relu2_ffn(*halves).sum().backward()
    for leaf, half in zip((z, up, down), halves, strict=True):
        torch.testing.assert_close(leaf.grad, half.grad.to(given))


@pytest.mark.parametrize("layout", ["rows", "cusparselt"])
def test_autocast_casts_what_is_packed_already(layout):
    x = torch.randn(8, 16).half().requires_grad_()
    w = torch.randn(4, 16).requires_grad_()
    with torch.autocast(CPU, torch.bfloat16):
        y = matmul(compress(x, gradient="masked", layout=layout), w)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, sparsify(x.detach()).bfloat16() @ w.detach().bfloat16().t())
    y.sum().backward()
    assert (x.grad.dtype, w.grad.dtype) == (torch.float16, torch.float32)
    assert torch.equal(x.grad != 0, sparsify(x.detach()) != 0)


H = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
TWICE = {
    "sparsify": lambda x: sparsify(x, gradient="masked"),
    "decompress": lambda x: decompress(relu2_compress(x, gradient="masked")),
    "matmul": lambda x: matmul(relu2_compress(x), H),
    "ffn ste": lambda x: relu2_ffn(x, H, H.t(), gradient="ste"),
    "ffn masked": lambda x: relu2_ffn(x, H, H.t(), gradient="masked"),
}


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("name", TWICE)
def test_a_second_derivative_is_refused(name, square):
    x = H.clone().requires_grad_()
    y = TWICE[name](x)
    # sum: the incoming gradient is a constant, which torch's once_differentiable lets through.
    total = y.square().sum() if square else y.sum()
    (grad,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(RuntimeError, match="sparse24 has first derivatives only"):
        (grad.square().sum() + x.square().sum()).backward()


def test_the_first_derivative_may_ask_for_a_graph():
    x = H.clone().requires_grad_()
    y = relu2_ffn(x, H, H.t())
    plain = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert torch.equal(torch.autograd.grad(y.sum(), x, create_graph=True)[0], plain[0])


def test_decompress_is_the_identity_to_any_order():
    packed = compress(H)
    link = torch.zeros(()).expand(H.shape).requires_grad_()
    dense = decompress(Packed(packed.values, packed.metadata, packed.shape, "rows", link))
    (grad,) = torch.autograd.grad(dense.pow(3).sum(), link, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), link)
    torch.testing.assert_close(second, 6 * sparsify(H))


def test_tensors_of_two_devices_are_one_clear_error():
    packed, weight = compress(H), torch.empty(8, 16, device="meta")
    with pytest.raises(ValueError, match="weight must be torch.float32 on cpu .* got .* on meta"):
        matmul(packed, weight)
    with pytest.raises(ValueError, match="up must be .* on cpu .* on meta"):
        relu2_ffn(H, weight, H.t())
    with pytest.raises(ValueError, match="metadata must be on cpu like values; got meta"):
        Packed(packed.values, packed.metadata.to("meta"), packed.shape)


@pytest.mark.parametrize("layout", ["rows", "cusparselt"])
def test_a_packed_form_of_another_shape_is_one_clear_error(layout):
    packed = compress(torch.randn(3, 8).half(), layout=layout)
    wrong = Packed(packed.values, packed.metadata, torch.Size((3, 160)), layout)
    for use in (decompress, lambda one: matmul(one, torch.ones(2, 160).half())):
        with pytest.raises(ValueError, match=r"packed must hold .* of a dense \(3, 160\) in layout"):
            use(wrong)


@pytest.mark.parametrize("layout", ["rows", "cusparselt"])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 3, 0)])
def test_a_dimension_of_zero_is_packed_in_both_layouts(layout, shape):
    packed = compress(torch.empty(shape).half(), layout=layout)
    assert decompress(packed).shape == shape
    assert torch.equal(matmul(packed, torch.empty(2, 0).half()), torch.zeros(*shape[:-1], 2).half())


def test_a_feed_forward_of_no_inputs_is_zero():
    leaves = [torch.randn(size, requires_grad=True) for size in ((3, 0), (8, 0), (5, 8))]
    y = relu2_ffn(*leaves)
    assert torch.equal(y, torch.zeros(3, 5))
    grads = torch.autograd.grad(y.sum(), leaves)
    assert [tuple(grad.shape) for grad in grads] == [(3, 0), (8, 0), (5, 8)]


def test_a_launch_refuses_two_devices():
    pytest.importorskip("triton")
    from sparse24.launch import on_device_of

    with pytest.raises(ValueError, match="must be on one device; got cpu and meta"):
        on_device_of(H, H, H.to("meta"))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("gradient", ["ste", "masked"])
def test_everything_runs_on_a_device_that_is_not_the_current_one(gradient):
    shapes = ((256, 128), (512, 128), (128, 512))
    leaves = [torch.randn(s).bfloat16().to("cuda:1").requires_grad_() for s in shapes]
    with torch.cuda.device(1):
        here = relu2_ffn(*leaves, gradient=gradient)
        expected = torch.autograd.grad(here.sum(), leaves)
    assert torch.cuda.current_device() == 0
    found = torch.autograd.grad(relu2_ffn(*leaves, gradient=gradient).sum(), leaves)
    torch.cuda.synchronize(1)
    for got, truth in zip(found, expected, strict=True):
        assert torch.equal(got, truth)
    assert torch.cuda.current_device() == 0
    with pytest.raises(ValueError, match="down must be .* on cuda:1"):
        relu2_ffn(leaves[0], leaves[1], leaves[2].to("cuda:0"))
