"""Products by cuSPARSELt: one plan a shape, a bound on them, threads, captures, failures of one shape.

The library is replaced by a recorder where there is no GPU to run it on."""

import ctypes
import gc
import threading
import warnings

import pytest
import torch

pytest.importorskip("triton")
from sparse24 import cusparselt, plans

BF16 = torch.bfloat16


class Recorder:
    """Stands for libcusparseLt: every function succeeds and is noted, with the stream of each product."""

    def __init__(self):
        self.calls, self.streams = [], []

    def __getattr__(self, name):
        def function(*arguments):
            self.calls.append(name)
            if name == "cusparseLtMatmul":
                threading.Event().wait(0.02)  # like ctypes, let the other thread run
                self.streams.append(ctypes.c_void_p.from_address(arguments[9]).value)
            return 0

        setattr(self, name, function)
        return function


@pytest.fixture
def library(monkeypatch):
    recorder, handle = Recorder(), plans._Opaque()
    monkeypatch.setattr(plans, "_library", lambda: recorder)
    monkeypatch.setattr(plans, "_handle", lambda device: handle)
    monkeypatch.setattr(plans, "_plans", type(plans._plans)())
    monkeypatch.setattr(plans, "_fastest", {})
    monkeypatch.setattr(plans, "search", lambda key, *operands: plans.Plan(*key, 7))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return recorder


def operands(rows=64, device="cpu"):
    return torch.zeros(rows, 32, dtype=BF16, device=device), torch.zeros(8, 64, dtype=BF16, device=device)


def test_the_cache_is_bounded_and_destroys_what_it_drops(library, monkeypatch):
    monkeypatch.setattr(plans, "LIMIT", 2)
    held = plans.plan_for(*operands(64))
    plans.plan_for(*operands(128))
    assert plans.plan_for(*operands(64)) is held
    plans.plan_for(*operands(192))  # drops 128, the one not used for longest
    gc.collect()
    assert len(plans._plans) == 2
    assert library.calls.count("cusparseLtMatmulPlanDestroy") == 1
    assert library.calls.count("cusparseLtMatDescriptorDestroy") == 3
    plans.plan_for(*operands(256))  # drops 64, which is still in use
    assert library.calls.count("cusparseLtMatmulPlanDestroy") == 1
    del held
    gc.collect()
    assert library.calls.count("cusparseLtMatmulPlanDestroy") == 2


def test_a_dropped_plan_comes_back_without_a_search(library, monkeypatch):
    monkeypatch.setattr(plans, "LIMIT", 1)
    plans.plan_for(*operands(64))
    plans.plan_for(*operands(128))
    monkeypatch.setattr(plans, "search", None)
    assert plans.plan_for(*operands(64)).algorithm == 7


def test_a_plan_of_a_capture_is_tuned_when_met_outside(library, monkeypatch):
    with monkeypatch.context() as during:
        during.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        first = plans.plan_for(*operands())
        assert first.algorithm is None
        assert plans.plan_for(*operands()) is first
    tuned = plans.plan_for(*operands())
    assert tuned.algorithm == 7
    assert plans.plan_for(*operands()) is tuned


def test_each_thread_multiplies_on_its_own_stream(library, monkeypatch):
    stream = threading.local()
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: stream.raw, raising=False)
    plan, start = plans.plan_for(*operands()), threading.Barrier(2)

    def use(raw):
        stream.raw = raw
        start.wait()
        for _ in range(3):
            plan(*operands())

    threads = [threading.Thread(target=use, args=(raw,)) for raw in (111, 222)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(library.streams) == [111] * 3 + [222] * 3


def test_a_construction_that_fails_releases_what_it_made(library):
    library.cusparseLtMatmulPlanInit = lambda *_: 10
    with pytest.raises(RuntimeError, match="plan failed with status 10"):
        plans.plan_for(*operands())
    gc.collect()
    assert library.calls.count("cusparseLtMatDescriptorDestroy") == 3
    assert "cusparseLtMatmulPlanDestroy" not in library.calls


@pytest.fixture
def unbroken(monkeypatch):
    monkeypatch.setattr(cusparselt, "_broken", set())


def test_out_of_memory_is_raised_and_nothing_is_given_up(library, unbroken):
    library.cusparseLtMatmulPlanInit = lambda *_: plans.ALLOC_FAILED
    with pytest.raises(torch.OutOfMemoryError, match="cuSPARSELt's plan"):
        cusparselt._sparse(*operands())
    assert cusparselt._broken == set()


def test_one_failing_shape_falls_back_alone(unbroken, monkeypatch):
    def plan_for(values, weight):
        if values.shape[0] == 64:
            raise RuntimeError("no plan for 64 rows")
        return lambda values, weight: "planned"

    monkeypatch.setattr(cusparselt, "plan_for", plan_for)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", lambda blob, weight: "torch's")
    values = torch.zeros(64 * 36, dtype=BF16)[: 64 * 32].view(64, 32)
    shape = r"no plan for 64 rows; .* for \(64, 64\) x \(64, 8\) torch.bfloat16"
    with pytest.warns(RuntimeWarning, match=shape):
        assert cusparselt._sparse(values, operands()[1]) == "torch's"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cusparselt._sparse(values, operands()[1]) == "torch's"
        assert cusparselt._sparse(*operands(128)) == "planned"


def test_a_missing_library_is_reported_once_for_all_shapes(unbroken, monkeypatch):
    def plan_for(values, weight):
        raise OSError("libcusparseLt.so.0: no such file")

    monkeypatch.setattr(cusparselt, "plan_for", plan_for)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", lambda blob, weight: "torch's")
    small, large = (torch.zeros(r * 36, dtype=BF16)[: r * 32].view(r, 32) for r in (64, 128))
    with pytest.warns(RuntimeWarning, match="no such file; .* for all products"):
        assert cusparselt._sparse(small, operands()[1]) == "torch's"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cusparselt._sparse(large, operands()[1]) == "torch's"


def test_a_failure_during_a_capture_is_not_remembered(unbroken, monkeypatch):
    monkeypatch.setattr(cusparselt.selfcheck, "capturing", lambda device: True)

    def plan_for(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cusparselt, "plan_for", plan_for)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", lambda blob, weight: "torch's")
    values = torch.zeros(64 * 36, dtype=BF16)[: 64 * 32].view(64, 32)
    with pytest.warns(RuntimeWarning, match="not permitted"):
        assert cusparselt._sparse(values, operands()[1]) == "torch's"
    assert cusparselt._broken == set()
