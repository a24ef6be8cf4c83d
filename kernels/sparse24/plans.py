"""cuSPARSELt through ctypes: one plan per shape, its algorithm the fastest of one timed search.

torch._cslt_sparse_mm builds its plan again on every call (about half a millisecond of host time); here
a call costs only the launch. Plans made before a CUDA graph is captured replay inside it.
"""

import ctypes
import threading
import weakref
from collections import OrderedDict
from contextlib import ExitStack
from functools import cache

import torch

CUDA_TYPE = {torch.float16: 2, torch.bfloat16: 14}  # cudaDataType_t
ROW, COMPUTE_32F = 2, 2  # cusparseOrder_t, cusparseComputeType
ALGORITHM, ALGORITHM_COUNT = 0, 1  # cusparseLtMatmulAlgAttribute_t
ALLOC_FAILED = 2  # cusparseStatus_t
LIMIT = 128  # cached plans; the one that was not used for longest makes room

Key = tuple[int, int, int, int, torch.dtype, bool]  # device, rows, k, n, dtype, k_contiguous: as of Plan
_plans: OrderedDict[Key, "Plan"] = OrderedDict()
_fastest: dict[Key, int | None] = {}  # what searches found: a plan that made room comes back without one
_lock = threading.RLock()  # torch gives each thread a handle of its own; here threads take turns at one


class _Opaque:
    """One of cuSPARSELt's opaque structs: 512 bytes, aligned to 16."""

    def __init__(self):
        self._bytes = ctypes.create_string_buffer(528)
        self.at = ctypes.c_void_p((ctypes.addressof(self._bytes) + 15) // 16 * 16)


def _check(status: int, what: str) -> None:
    if status == ALLOC_FAILED:
        raise torch.OutOfMemoryError(f"cuSPARSELt's {what} is out of memory")
    if status:
        raise RuntimeError(f"cuSPARSELt's {what} failed with status {status}")


@cache
def _library() -> ctypes.CDLL:
    torch.backends.cusparselt.is_available()  # torch has loaded it: the name alone finds that copy
    library = ctypes.CDLL("libcusparseLt.so.0")
    pointer = ctypes.c_void_p  # declared types: plain integers pass as pointers, at no host time
    library.cusparseLtMatmul.argtypes = [pointer] * 10 + [ctypes.c_int32]
    return library


@cache
def _handle(device: int) -> _Opaque:
    handle = _Opaque()
    with torch.cuda.device(device):
        _check(_library().cusparseLtInit(handle.at), "initialisation")
    return handle


class Plan:
    """(rows, k) packed @ (k, n) dense -> (rows, n) row-major, by one algorithm.

    ``k_contiguous``: the dense operand is stored as (n, k); else as (k, n). ``algorithm`` None is the
    library's default. The library's resources go when the last reference to the plan does.
    """

    def __init__(
        self,
        device: int,
        rows: int,
        k: int,
        n: int,
        dtype: torch.dtype,
        k_contiguous: bool,
        algorithm: int | None = None,
    ):
        lib, handle = _library(), _handle(device)
        kind, order, align = ctypes.c_int(CUDA_TYPE[dtype]), ctypes.c_int(ROW), ctypes.c_uint32(16)
        a, b, c, product, choice, plan = structs = [_Opaque() for _ in range(6)]
        made = ExitStack()
        weakref.finalize(self, _release, made, structs).atexit = False  # CUDA may be gone by then

        def matrix(descriptor, init, *arguments):
            _check(init(handle.at, descriptor.at, *arguments), "matrix descriptor")
            made.callback(lib.cusparseLtMatDescriptorDestroy, descriptor.at)

        def shape(height, width):  # and the leading dimension
            return ctypes.c_int64(height), ctypes.c_int64(width), ctypes.c_int64(width), align, kind, order

        half = ctypes.c_int(0)  # CUSPARSELT_SPARSITY_50_PERCENT
        matrix(a, lib.cusparseLtStructuredDescriptorInit, *shape(rows, k), half)
        matrix(b, lib.cusparseLtDenseDescriptorInit, *(shape(n, k) if k_contiguous else shape(k, n)))
        matrix(c, lib.cusparseLtDenseDescriptorInit, *shape(rows, n))
        status = lib.cusparseLtMatmulDescriptorInit(
            handle.at, product.at, ctypes.c_int(0), ctypes.c_int(int(k_contiguous)),
            a.at, b.at, c.at, c.at, ctypes.c_int(COMPUTE_32F),
        )  # fmt: skip
        _check(status, "matmul descriptor")
        status = lib.cusparseLtMatmulAlgSelectionInit(handle.at, choice.at, product.at, ctypes.c_int(0))
        _check(status, "algorithm selection")
        four, count = ctypes.c_size_t(4), ctypes.c_int()
        status = lib.cusparseLtMatmulAlgGetAttribute(
            handle.at, choice.at, ctypes.c_int(ALGORITHM_COUNT), ctypes.byref(count), four
        )
        _check(status, "algorithm count")
        self.algorithms, self.algorithm = count.value, algorithm
        if algorithm is not None:
            status = lib.cusparseLtMatmulAlgSetAttribute(
                handle.at, choice.at, ctypes.c_int(ALGORITHM), ctypes.byref(ctypes.c_int(algorithm)), four
            )
            _check(status, f"algorithm {algorithm}")
        _check(lib.cusparseLtMatmulPlanInit(handle.at, plan.at, product.at, choice.at), "plan")
        made.callback(lib.cusparseLtMatmulPlanDestroy, plan.at)
        size = ctypes.c_size_t()
        status = lib.cusparseLtMatmulGetWorkspace(handle.at, plan.at, ctypes.byref(size))
        _check(status, "workspace size")
        self.workspace = size.value
        self._shape, self._call, self._device = (rows, n), lib.cusparseLtMatmul, device
        self._scalars = (ctypes.c_float * 2)(1.0, 0.0)  # alpha, beta
        one = ctypes.addressof(self._scalars)
        self._fixed, self._zero = (handle.at.value, plan.at.value, one), one + 4

    def __call__(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out = values.new_empty(self._shape)
        at, space = out.data_ptr(), None
        if self.workspace:  # from torch's allocator at each call: safe on any stream and inside graphs
            space = torch.empty(self.workspace, dtype=torch.uint8, device=values.device)
        # Of this call alone: another thread may use the plan on another stream.
        stream = ctypes.c_void_p(torch._C._cuda_getCurrentRawStream(self._device))
        with _lock:
            status = self._call(
                *self._fixed, values.data_ptr(), weight.data_ptr(), self._zero, at, at,
                None if space is None else space.data_ptr(), ctypes.addressof(stream), 1,
            )  # fmt: skip
        if status:
            _check(status, "matmul")
        return out


def _release(made: ExitStack, structs: list[_Opaque]) -> None:
    """Destroy what a plan made, last first. ``structs``: their memory, needed until then.

    A product may still be running: like torch, which destroys its plan right after the launch, this
    relies on launches having copied what they need.
    """
    made.close()


def _time(plan: Plan, values: torch.Tensor, weight: torch.Tensor, calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        plan(values, weight)
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def search(key: Key, values: torch.Tensor, weight: torch.Tensor) -> Plan:
    """The plan with the fastest algorithm for ``key`` on these operands: all in short, four at length."""
    plans = []
    for algorithm in range(Plan(*key).algorithms):
        try:
            plan = Plan(*key, algorithm)
            plan(values, weight)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # not every algorithm takes every shape
            continue
        plans.append((_time(plan, values, weight, 6), algorithm, plan))
    if not plans:
        raise RuntimeError(f"cuSPARSELt has no algorithm for the product {key}")
    finals = [plan for _, _, plan in sorted(plans)[:4]]
    rounds = [[_time(plan, values, weight, 20) for plan in finals] for _ in range(4)]
    times = [min(column) for column in zip(*rounds, strict=True)]
    return finals[times.index(min(times))]


def plan_for(values: torch.Tensor, weight: torch.Tensor) -> Plan:
    """The cached plan for these operands, on the current device: values (T', K'/2), weight (N, K').

    A search synchronises, which a graph capture forbids: there an unknown shape gets the library's
    default algorithm, until it is met outside.
    """
    (rows, half), n = values.shape, weight.shape[0]
    key = (values.device.index, rows, 2 * half, n, values.dtype, weight.stride(1) == 1)
    with _lock:
        plan = _plans.get(key)
        if plan is None or plan.algorithm is None:
            if key in _fastest:
                plan = Plan(*key, _fastest[key])
            elif not torch.cuda.is_current_stream_capturing():
                plan = search(key, values, weight)
                _fastest[key] = plan.algorithm
            elif plan is None:
                plan = Plan(*key)
            _plans[key] = plan
        _plans.move_to_end(key)
        while len(_plans) > LIMIT:
            _plans.popitem(last=False)
    return plan
