"""The kernels inside torch's graphs: operators, compile, export, meta; Packed in trees and files."""

import copy
import io

import pytest
import torch
from torch._library.custom_ops import CustomOpDef
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree

pytest.importorskip("triton")
import sparse24
import tokenstats
from sparse24 import checked, layouts, operators, reference
from sparse24 import triton as kernels
from tokenstats import operators as statistics

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
if not GPU and not kernels.INTERPRETED:
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)
HALF = torch.bfloat16 if GPU else torch.float16  # the interpreter computes bfloat16 wrongly
COMPILER = "inductor" if GPU else "aot_eager"


def some(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


Z, UP, DOWN = (some(6, 16), some(24, 16), some(8, 24))
TOKENS = torch.arange(6, device=DEVICE)


def cases():
    """(operator, arguments) for every one that is registered."""
    x, half = some(5, 24), some(70, 72, dtype=HALF)
    values, metadata = reference.pack(x, True)
    tiles = reference.pack(half, True, "cusparselt")
    room = layouts.packed_like(*tiles, half.shape)[0]
    return {
        "mask": (operators.mask, (x, True)),
        "prune": (operators.prune, (x, True)),
        "pack_rows": (operators.pack_rows, (some(2, 3, 12), False, True)),
        "pack_cusparselt": (operators.pack_cusparselt, (half, True, True)),
        "relu2_up": (operators.relu2_up, (some(70, 16, dtype=HALF), some(72, 16, dtype=HALF), True)),
        "unpack": (operators.unpack, (values, metadata, x.shape, "rows", True)),
        "matmul": (operators.matmul, (*tiles, half.shape, some(8, 72, dtype=HALF), True)),
        "masked_grad": (operators.masked_grad, (x, metadata, values, "rows", True)),
        "masked_grad_packed": (operators.masked_grad_packed, (half, *tiles[::-1], room.clone(), True)),
        "ste_grad": (operators.ste_grad, (x, some(5, 24), True)),
        "ste_backward": (operators.ste_backward, (x, some(5, 24), True)),
        "token_stats": (statistics.token_stats, (some(5, 24), None, 0.7, True)),
        "token_stats_backward": (
            statistics.token_stats_backward,
            (some(5, 24), TOKENS[:5], 0.7, True, [some(5), some(5), some(5)]),
        ),
    }


@pytest.mark.parametrize("name", cases())
def test_each_operator_says_what_torch_may_assume_of_it(name):
    operator, arguments = cases()[name]
    torch.library.opcheck(operator, arguments)


def test_no_operator_is_left_out():
    found = set()
    for module in (operators, statistics):
        found |= {value for value in vars(module).values() if isinstance(value, CustomOpDef)}
    assert {operator for operator, _ in cases().values()} == found


FORMULAS = {
    "sparsify, ste": lambda x, b: sparse24.sparsify(x @ UP.t(), backend=b),
    "sparsify, masked": lambda x, b: sparse24.sparsify(x @ UP.t(), gradient="masked", backend=b),
    "decompress": lambda x, b: sparse24.decompress(
        sparse24.compress(x @ UP.t(), gradient="masked", backend=b), backend=b
    ),
    "matmul": lambda x, b: sparse24.matmul(sparse24.relu2_compress(x @ UP.t(), backend=b), DOWN, backend=b),
    "ffn, masked": lambda x, b: sparse24.relu2_ffn(x, UP, DOWN, backend=b),
    "ffn, ste": lambda x, b: sparse24.relu2_ffn(x, UP, DOWN, gradient="ste", backend=b),
    "entropy": lambda x, b: tokenstats.token_stats(x, TOKENS, 0.7, backend=b).entropy,
    "logprob": lambda x, b: tokenstats.token_stats(x, TOKENS, backend=b).logprob,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_one_graph_with_the_kernels_gives_plain_torch_s_values_and_gradients(name):
    torch._dynamo.reset()

    def both(run):
        z = Z.clone().requires_grad_()
        out = run(z)
        return out.detach(), torch.autograd.grad(out.square().sum(), z)[0]

    compiled = torch.compile(lambda z: FORMULAS[name](z, "triton"), fullgraph=True, backend=COMPILER)
    for ours, theirs in zip(both(compiled), both(lambda z: FORMULAS[name](z, "reference")), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_layout_of_the_tensor_cores_goes_through_a_graph():
    torch._dynamo.reset()
    h, weight = some(70, 72, dtype=HALF), some(8, 72, dtype=HALF)

    def product(h, backend):
        packed = sparse24.relu2_compress(h, gradient="masked", layout="cusparselt", backend=backend)
        return sparse24.matmul(packed, weight, backend=backend)

    def both(run):
        x = h.clone().requires_grad_()
        out = run(x)
        return out.detach(), torch.autograd.grad(out.float().sum(), x)[0]

    compiled = torch.compile(lambda x: product(x, "triton"), fullgraph=True, backend=COMPILER)
    for ours, theirs in zip(both(compiled), both(lambda x: product(x, "reference")), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def test_the_ffn_in_that_layout_goes_through_a_graph(monkeypatch):
    torch._dynamo.reset()
    for backend in (operators.Operators, checked.Checked):
        monkeypatch.setattr(backend, "layout_for", lambda *_: "cusparselt")
    z, up, down = (some(*size, dtype=HALF) / 4 for size in ((70, 16), (72, 16), (8, 72)))

    def gradients(run):
        operands = [x.clone().requires_grad_() for x in (z, up, down)]
        return torch.autograd.grad(run(*operands).float().square().sum(), operands)

    def ffn(*operands):
        return sparse24.relu2_ffn(*operands, backend="triton")

    compiled = torch.compile(ffn, fullgraph=True, backend=COMPILER)
    for ours, theirs in zip(gradients(compiled), gradients(ffn), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
        assert theirs.abs().max() > 0.1


class FFN(torch.nn.Module):
    def forward(self, z):
        return sparse24.relu2_ffn(z, UP, DOWN, backend="triton")


def test_an_exported_ffn_calls_the_operators_at_any_number_of_rows():
    dynamic = {"z": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(FFN(), (Z,), dynamic_shapes=dynamic, strict=True)
    called = {str(node.target) for node in program.graph.nodes if "sparse24" in str(node.target)}
    assert called >= {"sparse24.pack_rows.default", "sparse24.unpack.default"}
    more = some(9, 16)
    torch.testing.assert_close(program.module()(more), FFN()(more))


@pytest.mark.parametrize("meta", [True, False], ids=["meta", "fake"])
def test_shapes_without_data(meta):
    with FakeTensorMode() if not meta else torch.device("meta"):
        h, weight = torch.empty(2, 3, 20), torch.empty(8, 20)
        packed = sparse24.relu2_compress(h)
        assert (packed.values.shape, packed.metadata.shape) == ((2, 3, 10), (2, 3, 3))
        assert sparse24.decompress(packed).shape == h.shape
        assert sparse24.matmul(packed, weight).shape == (2, 3, 8)
        assert sparse24.relu2_ffn(h, torch.empty(12, 20), torch.empty(8, 12)).shape == (2, 3, 8)
        stats = tokenstats.token_stats(h, torch.zeros(2, 3, dtype=torch.int64))
        assert {value.shape for value in stats} == {(2, 3)}


@pytest.mark.parametrize("transform", [torch.vmap, torch.func.grad])
def test_function_transforms_are_refused(transform):
    with pytest.raises(RuntimeError, match="functorch transforms"):
        transform(lambda x: sparse24.sparsify(x).sum())(some(4, 8))


@pytest.fixture(params=[("rows", torch.float32), ("cusparselt", HALF)], ids=["rows", "cusparselt"])
def packed(request):
    layout, dtype = request.param
    x = some(70, 72).to(dtype).requires_grad_()
    return sparse24.compress(x, layout=layout), x.detach() * reference.mask(x.detach())


def test_packed_is_copied_saved_and_a_tree_of_tensors(packed):
    packed, dense = packed
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    leaves, spec = _pytree.tree_flatten(packed)
    assert len(leaves) == 3
    for again in (
        copy.deepcopy(packed),
        torch.load(file, weights_only=True),
        _pytree.tree_unflatten([leaf.clone() for leaf in leaves], spec),
    ):
        assert (again.shape, again.layout) == (packed.shape, packed.layout)
        torch.testing.assert_close(sparse24.decompress(again), dense, rtol=0, atol=0)


def test_packed_goes_to_other_devices_and_dtypes_with_its_gradient():
    x = some(6, 24).requires_grad_()
    half = sparse24.compress(x).to(dtype=torch.float16)
    out = sparse24.decompress(half)
    assert (out.dtype, half.metadata.dtype) == (torch.float16, torch.uint8)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, torch.ones_like(x))
    assert half.to("meta").device.type == "meta"


def test_packed_refuses_what_has_no_such_form(packed):
    with pytest.raises(ValueError, match="dtype must be float16.* in layout .*; got torch.int8"):
        packed[0].to(dtype=torch.int8)
    if packed[0].layout == "cusparselt":
        with pytest.raises(ValueError, match="dtype must be float16 or bfloat16 in layout 'cusparselt'"):
            packed[0].to(dtype=torch.float32)
