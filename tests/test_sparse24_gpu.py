"""sparse24 on a card: captures, streams, short memory, alignment, hooks that copy. Skipped without one."""

import gc
import threading
import warnings

import pytest
import torch

pytest.importorskip("triton")
from sparse24 import Packed, compress, cusparselt, matmul, plans, reference, relu2_ffn

BF16 = torch.bfloat16


def near(got, truth):
    assert ((got.double() - truth).norm() / truth.norm()).item() < 1e-2


@pytest.fixture
def loud():
    """A fallback would warn, and that fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def case(rows, k, n, dtype=BF16):
    x = torch.randn(rows, k, device="cuda").to(dtype)
    w = torch.randn(n, k, device="cuda").to(dtype)
    return x, w, reference.prune(x).double() @ w.double().t()


@pytest.mark.gpu
def test_first_met_in_a_capture_then_tuned_then_replayed(loud):
    x, w, truth = case(704, 1088, 136)  # shapes of this test alone
    matmul(compress(x[:64], layout="cusparselt"), w)  # the library and its check
    packed = compress(x, layout="cusparselt")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = matmul(packed, w)
    assert plans.plan_for(packed.values, w).algorithm is not None  # tuned; the captured one is destroyed
    gc.collect()
    y.zero_()
    graph.replay()
    near(y, truth)


@pytest.mark.gpu
def test_a_search_after_the_cache_was_emptied(loud, monkeypatch):
    monkeypatch.setattr(plans, "LIMIT", 1)
    for rows in (64, 128, 64, 128):
        x, w, truth = case(rows, 256, 64)
        near(matmul(compress(x, layout="cusparselt"), w), truth)
    assert len(plans._plans) == 1


@pytest.mark.gpu
def test_two_threads_on_two_streams(loud):
    cases = [case(512, 768, 256), case(512, 768, 256)]
    near(matmul(compress(cases[0][0], layout="cusparselt"), cases[0][1]), cases[0][2])
    torch.cuda.synchronize()
    found, start = [None, None], threading.Barrier(2)

    def use(i):
        x, w, _ = cases[i]
        with torch.cuda.stream(torch.cuda.Stream()):
            start.wait()
            for _ in range(50):
                found[i] = matmul(compress(x, layout="cusparselt"), w)
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=use, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, (_, _, truth) in zip(found, cases, strict=True):
        near(got, truth)


@pytest.mark.gpu
def test_out_of_memory_of_a_product_reaches_the_caller():
    x, w, truth = case(4096, 4096, 4096)
    packed = compress(x, layout="cusparselt")
    torch.cuda.synchronize()
    free, _ = torch.cuda.mem_get_info()
    ballast = []
    size = free
    while size > 2**20:  # all that is left, in halving pieces
        try:
            ballast.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    with pytest.raises(torch.OutOfMemoryError):
        matmul(packed, w)
    del ballast
    torch.cuda.empty_cache()
    assert not any(torch.Size((4096, 2048)) in (shapes or ()) for _, shapes in cusparselt._broken)
    near(matmul(packed, w), truth)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, BF16], ids=str)
def test_weights_and_values_off_16_bytes(dtype, loud):
    x, w, truth = case(128, 256, 64, dtype)
    off = torch.empty(w.numel() + 1, dtype=dtype, device="cuda")[1:].view(w.shape).copy_(w)
    assert off.data_ptr() % 16
    packed = compress(x, layout="cusparselt")
    near(matmul(packed, off), truth)
    near(matmul(packed, off.t().contiguous().t()), truth)
    whole = torch.empty(packed.values.numel() * 9 // 8 + 1, dtype=dtype, device="cuda")[1:]
    values = whole[: packed.values.numel()].view(packed.values.shape).copy_(packed.values)
    metadata = whole[packed.values.numel() :].view(torch.uint8).copy_(packed.metadata)
    near(matmul(Packed(values, metadata, packed.shape, "cusparselt"), w), truth)


@pytest.mark.gpu
@pytest.mark.parametrize("offload", ["save_on_cpu", "clone"])
def test_ffn_gradients_under_hooks_that_copy(offload, loud):
    shapes = ((512, 256), (1024, 256), (256, 1024))
    leaves = [torch.randn(s, device="cuda", dtype=BF16).mul_(0.1).requires_grad_() for s in shapes]
    plain = torch.autograd.grad(relu2_ffn(*leaves).sum(), leaves)
    hooks = {
        "save_on_cpu": lambda: torch.autograd.graph.save_on_cpu(),
        "clone": lambda: torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t),
    }[offload]
    with hooks():
        y = relu2_ffn(*leaves)
    for got, expected in zip(torch.autograd.grad(y.sum(), leaves), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
