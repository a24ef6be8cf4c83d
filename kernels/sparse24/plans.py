"""cuSPARSELt through ctypes: one plan per shape, its algorithm the fastest of one timed search.

torch._cslt_sparse_mm builds its plan again on every call (about half a millisecond of host time); here
a call costs only the launch. Plans made before a CUDA graph is captured replay inside it.
"""

import ctypes
from functools import cache

import torch

CUDA_TYPE = {torch.float16: 2, torch.bfloat16: 14}  # cudaDataType_t
ROW, COMPUTE_32F = 2, 2  # cusparseOrder_t, cusparseComputeType
ALGORITHM, ALGORITHM_COUNT = 0, 1  # cusparseLtMatmulAlgAttribute_t
_plans: dict[tuple, "Plan"] = {}


class _Opaque:
    """One of cuSPARSELt's opaque structs: 512 bytes, aligned to 16."""

    def __init__(self):
        self._bytes = ctypes.create_string_buffer(528)
        self.at = ctypes.c_void_p((ctypes.addressof(self._bytes) + 15) // 16 * 16)


def _check(status: int, what: str) -> None:
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

    ``k_contiguous``: the dense operand is stored as (n, k); else as (k, n).
    """

    def __init__(self, device, rows, k, n, dtype, k_contiguous, algorithm=None):
        lib, handle = _library(), _handle(device)
        kind, order, align = ctypes.c_int(CUDA_TYPE[dtype]), ctypes.c_int(ROW), ctypes.c_uint32(16)
        self._a, self._b, self._c, self._product, self._choice, self._plan = (_Opaque() for _ in range(6))

        def dense(descriptor, height, width):
            shape = ctypes.c_int64(height), ctypes.c_int64(width), ctypes.c_int64(width)
            status = lib.cusparseLtDenseDescriptorInit(handle.at, descriptor.at, *shape, align, kind, order)
            _check(status, "dense descriptor")

        shape = ctypes.c_int64(rows), ctypes.c_int64(k), ctypes.c_int64(k)
        half = ctypes.c_int(0)  # CUSPARSELT_SPARSITY_50_PERCENT
        status = lib.cusparseLtStructuredDescriptorInit(
            handle.at, self._a.at, *shape, align, kind, order, half
        )
        _check(status, "sparse descriptor")
        dense(self._b, *((n, k) if k_contiguous else (k, n)))
        dense(self._c, rows, n)
        status = lib.cusparseLtMatmulDescriptorInit(
            handle.at, self._product.at, ctypes.c_int(0), ctypes.c_int(int(k_contiguous)),
            self._a.at, self._b.at, self._c.at, self._c.at, ctypes.c_int(COMPUTE_32F),
        )  # fmt: skip
        _check(status, "matmul descriptor")
        status = lib.cusparseLtMatmulAlgSelectionInit(
            handle.at, self._choice.at, self._product.at, ctypes.c_int(0)
        )
        _check(status, "algorithm selection")
        four, count = ctypes.c_size_t(4), ctypes.c_int()
        status = lib.cusparseLtMatmulAlgGetAttribute(
            handle.at, self._choice.at, ctypes.c_int(ALGORITHM_COUNT), ctypes.byref(count), four
        )
        _check(status, "algorithm count")
        self.algorithms, self.algorithm = count.value, algorithm
        if algorithm is not None:
            status = lib.cusparseLtMatmulAlgSetAttribute(
                handle.at, self._choice.at, ctypes.c_int(ALGORITHM),
                ctypes.byref(ctypes.c_int(algorithm)), four,
            )  # fmt: skip
            _check(status, f"algorithm {algorithm}")
        status = lib.cusparseLtMatmulPlanInit(handle.at, self._plan.at, self._product.at, self._choice.at)
        _check(status, "plan")
        size = ctypes.c_size_t()
        status = lib.cusparseLtMatmulGetWorkspace(handle.at, self._plan.at, ctypes.byref(size))
        _check(status, "workspace size")
        self.workspace = size.value
        self._shape, self._call, self._device = (rows, n), lib.cusparseLtMatmul, device
        self._stream = ctypes.c_void_p()
        self._scalars = (ctypes.c_float * 2)(1.0, 0.0)  # alpha, beta
        one = ctypes.addressof(self._scalars)
        self._fixed = handle.at.value, self._plan.at.value, one
        self._zero, self._streams = one + 4, ctypes.addressof(self._stream)

    def __call__(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out = values.new_empty(self._shape)
        at, space = out.data_ptr(), None
        if self.workspace:  # from torch's allocator at each call: safe on any stream and inside graphs
            space = torch.empty(self.workspace, dtype=torch.uint8, device=values.device)
        self._stream.value = torch._C._cuda_getCurrentRawStream(self._device)
        status = self._call(
            *self._fixed, values.data_ptr(), weight.data_ptr(), self._zero, at, at,
            None if space is None else space.data_ptr(), self._streams, 1,
        )  # fmt: skip
        if status:
            _check(status, "matmul")
        return out

    def close(self) -> None:
        _check(_library().cusparseLtMatmulPlanDestroy(self._plan.at), "plan destruction")


def _time(plan: Plan, values: torch.Tensor, weight: torch.Tensor, calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        plan(values, weight)
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def search(key: tuple, values: torch.Tensor, weight: torch.Tensor) -> Plan:
    """The plan with the fastest algorithm for ``key`` on these operands: all in short, four at length."""
    plans = []
    for algorithm in range(Plan(*key).algorithms):
        try:
            plan = Plan(*key, algorithm)
            plan(values, weight)
        except RuntimeError:  # not every algorithm takes every shape
            continue
        plans.append((_time(plan, values, weight, 6), algorithm, plan))
    if not plans:
        raise RuntimeError(f"cuSPARSELt has no algorithm for the product {key}")
    plans = [plan for _, _, plan in sorted(plans)]
    for plan in plans[4:]:
        plan.close()
    finals = plans[:4]
    rounds = [[_time(plan, values, weight, 20) for plan in finals] for _ in range(4)]
    times = [min(column) for column in zip(*rounds, strict=True)]
    best = finals[times.index(min(times))]
    for plan in finals:
        if plan is not best:
            plan.close()
    return best


def plan_for(values: torch.Tensor, weight: torch.Tensor) -> Plan:
    """The cached plan for these operands: values (T', K'/2), weight (N, K')."""
    name = (values.shape, weight.shape, weight.stride(), values.dtype, values.device)
    plan = _plans.get(name)
    if plan is None:
        rows, half = values.shape
        key = (values.device.index, rows, 2 * half, weight.shape[0], values.dtype, weight.stride(1) == 1)
        # A search synchronises, which a capture forbids: the library's default serves there.
        capturing = torch.cuda.is_current_stream_capturing()
        plan = _plans[name] = Plan(*key) if capturing else search(key, values, weight)
    return plan
