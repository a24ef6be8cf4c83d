"""A fault planted in every kernel, which the check at first use must catch.

With a GPU the faults are compiled for it; without one they run in Triton's interpreter.
"""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
import sparse24
import tokenstats.checked
from sparse24 import gemm, kernels, reference, selfcheck
from sparse24 import triton as launches
from sparse24.checked import Checked

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = [torch.float16, torch.float32, *([torch.bfloat16] if GPU else [])]  # the interpreter lacks one
needs_kernels = pytest.mark.skipif(
    not GPU and not launches.INTERPRETED, reason="needs a GPU or TRITON_INTERPRET=1"
)


@pytest.fixture(autouse=True)
def _nothing_checked_yet(monkeypatch):
    for package in (selfcheck, tokenstats.checked.selfcheck):
        monkeypatch.setattr(package, "_verdicts", {})
    monkeypatch.delenv("LABKIT_KERNEL_CHECK", raising=False)
    monkeypatch.delenv("LABKIT_KERNEL", raising=False)


KERNELS, GEMM = Path(kernels.__file__), Path(gemm.__file__)
STATS = Path(tokenstats.checked.__file__).with_name("kernels.py")
FAULTS = {  # kernel: (file, text, text with the fault)
    "pack_rows": (KERNELS, "<< shift, 2)\n    per_row", "<< (4 - shift), 2)\n    per_row"),
    "pack_cusparselt": (KERNELS, "tl.reshape(low | high << 4,", "tl.reshape(high | low << 4,"),
    "unpack": (KERNELS, "pair, pair >> 16, i0, i1, False", "pair >> 16, pair, i0, i1, False"),
    "unpack wide": (KERNELS, "(pair >> 32).to(tl.int32), i0", "(pair >> 31).to(tl.int32), i0"),
    "prune": (KERNELS, "store_pair(out_ptr, at, inside, v0, v1, i0, i1, WIDE)\n\n\n@triton.jit\ndef masked",
              "store_pair(out_ptr, at, inside, v1, v1, i0, i1, WIDE)\n\n\n@triton.jit\ndef masked"),
    "mask": (KERNELS, "| (one << 8 * i1)", "& (one << 8 * i1)"),
    "masked_grad": (KERNELS, "* 2 * tl.sqrt(s0)", "* 2 + tl.sqrt(s0)"),
    "ste_grad": (KERNELS, "(d * 2 * h)", "(d + 2 * h)"),
    "ste_backward": (KERNELS, "d2 * 2 * h2", "d2 * 2 * h1"),
    "ste_backward, pruned": (KERNELS, "s0, s1, s2, s3, WIDE", "s0, s1, s3, s2, WIDE"),
    "gemm_pack": (GEMM, "(upper | lower << 4)", "(lower | upper << 4)"),
    "short": (STATS, "log2z - w / z) / LOG2E, here)", "log2z + w / z) / LOG2E, here)"),
    "lanes": (STATS, "part_ptr + 2, tl.sum((w + z", "part_ptr + 2, tl.sum((w - z"),
    "join": (STATS, "- log2z) / LOG2E)", "+ log2z) / LOG2E)"),
    "gradient": (STATS, "ge * (finite +", "ge * (finite -"),
}  # fmt: skip


def mutant(kernel, folder):
    """The module of ``kernel`` with its fault, and the function's name."""
    path, sound, faulty = FAULTS[kernel]
    source = path.read_text()
    assert source.count(sound) == 1, f"{sound!r} must occur once in {path.name}"
    file = folder / f"mutant_{kernel.replace(' ', '_')}.py"
    file.write_text(source.replace(sound, faulty))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, {"mask": "prune"}.get(kernel, kernel.removesuffix(" wide").removesuffix(", pruned"))


X = torch.randn(70, 192, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)
UP = torch.randn(128, 192, generator=torch.Generator().manual_seed(2)).half().to(DEVICE)
CELLS, ROWS, WIDE = (
    reference.pack(x, True, layout) for x, layout in ((X, "cusparselt"), (X, "rows"), (X.float(), "rows"))
)
USES = {  # kernel: what to compute with it, by Checked and by the reference
    "pack_rows": lambda ops: ops.pack(X),
    "pack_cusparselt": lambda ops: ops.pack(X, True, "cusparselt"),
    "unpack": lambda ops: [ops.unpack(*ROWS, X.shape)],
    "unpack wide": lambda ops: [ops.unpack(*WIDE, X.shape)],
    "prune": lambda ops: [ops.prune(X)],
    "mask": lambda ops: [ops.mask(X)],
    "masked_grad": lambda ops: [ops.masked_grad(X, CELLS[1], CELLS[0], "cusparselt")],
    "ste_grad": lambda ops: [ops.ste_grad(X, X)],
    "ste_backward": lambda ops: ops.ste_backward(X, X),
    "ste_backward, pruned": lambda ops: ops.ste_backward(X, X),
    "gemm_pack": lambda ops: ops.relu2_up(X.sign(), UP.sign(), "cusparselt"),  # sums exact in any order
}


@needs_kernels
@pytest.mark.parametrize("kernel", USES)
def test_a_fault_in_sparse24_is_caught(kernel, tmp_path, monkeypatch):
    module, name = mutant(kernel, tmp_path)
    monkeypatch.setattr(gemm if name == "gemm_pack" else kernels, name, getattr(module, name))
    with pytest.warns(RuntimeWarning, match=f"kernel sparse24.{name} .* failed its comparison"):
        found = USES[kernel](Checked(strict=False))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "kernel sparse24")
        again = USES[kernel](Checked(strict=False))
    for got, second, expected in zip(found, again, USES[kernel](reference), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
        torch.testing.assert_close(second, expected, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=name):
        USES[kernel](Checked(strict=True))


def fallback(x, tokens):
    return tokenstats.checked.token_stats(x, tokens, 0.5, strict=False)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", ["short", "lanes", "join", "gradient"])
def test_a_fault_in_tokenstats_is_caught(kernel, dtype, tmp_path, monkeypatch):
    module, name = mutant(kernel, tmp_path)
    monkeypatch.setattr(tokenstats.checked.triton, name, getattr(module, name))
    x = torch.randn(6, 3000 if kernel in ("lanes", "join") else 40, device=DEVICE).to(dtype)
    x.requires_grad_(kernel == "gradient")
    tokens = x.argmin(-1)
    with pytest.warns(RuntimeWarning, match=f"kernel tokenstats..*{name}.* failed its comparison"):
        found = fallback(x, tokens)
    expected = tokenstats.reference.token_stats(x, tokens, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = fallback(x, tokens)
    for got, second, truth in zip(found, again, expected, strict=True):
        torch.testing.assert_close(got, truth, rtol=0, atol=0)
        torch.testing.assert_close(second, truth, rtol=0, atol=0)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sound_kernels_pass_and_leave_the_random_numbers_alone(dtype):
    state = torch.get_rng_state(), torch.cuda.get_rng_state() if GPU else None
    ops = Checked(strict=True)
    for shape in ((1, 4), (16, 64), (3, 20), (5, 32), (2, 192)):
        x = torch.linspace(-2, 2, shape[0] * shape[1], device=DEVICE).view(shape).to(dtype)
        for layout in ("rows",) if dtype == torch.float32 else ("rows", "cusparselt"):
            packed = ops.pack(x, True, layout)
            ops.unpack(*packed, x.shape, layout)
            ops.masked_grad(x, packed[1], packed[0], layout)
        ops.mask(x), ops.prune(x), ops.ste_grad(x, x)
        for width in (shape[1], 600, 2064):
            logits = torch.linspace(-2, 2, 3 * width, device=DEVICE).view(3, width).to(dtype)
            tokenstats.token_stats(logits.requires_grad_(), backend="triton").entropy.sum().backward()
    if dtype != torch.float32:
        for k in (64, 72):
            ops.relu2_up(torch.ones(3, k, device=DEVICE, dtype=dtype), x.new_ones(64, k), "cusparselt")
    assert torch.equal(state[0], torch.get_rng_state())
    if GPU:
        assert torch.equal(state[1], torch.cuda.get_rng_state())
    found = selfcheck.checked() | tokenstats.checked.selfcheck.checked()
    assert len(found) > 30
    assert set(found.values()) == {None}


@pytest.mark.gpu
def test_a_compiled_fault_never_reaches_the_public_functions(tmp_path, monkeypatch):
    module, name = mutant("pack_cusparselt", tmp_path)
    monkeypatch.setattr(kernels, name, getattr(module, name))
    x = X.bfloat16().requires_grad_()
    with pytest.warns(RuntimeWarning, match="pack_cusparselt .* failed its comparison"):
        y = sparse24.matmul(sparse24.compress(x, layout="cusparselt"), UP.bfloat16())
    torch.testing.assert_close(y, reference.prune(x) @ UP.bfloat16().t(), rtol=2e-2, atol=2e-1)


@pytest.mark.gpu
def test_the_environment_turns_the_kernels_off(monkeypatch):
    monkeypatch.setenv("LABKIT_KERNEL", "reference")
    monkeypatch.setattr(launches, "pack", None)
    assert sparse24.compress(X).layout == "rows"
    monkeypatch.setenv("LABKIT_KERNEL", "fast")
    for call in (sparse24.mask24, tokenstats.token_stats):
        with pytest.raises(
            ValueError, match="LABKIT_KERNEL must be one of 'auto', 'reference'; got 'fast'"
        ):
            call(X)
