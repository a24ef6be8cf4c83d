"""The kernels seen from a notebook: one packed group, the tensor cores' byte map, live checks, results."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import sparse24
import tokenstats
from labkit import checks
from labkit.device import current
from labkit.paths import BENCHES
from sparse24 import layouts


def pack_group(values: list[float]) -> dict:
    """Four numbers as sparse24 packs them: {"values", "kept" (i0, i1), "packed" (two), "nibble"}."""
    if len(values) != 4:
        checks.fail("values", values, "four numbers")
    packed = sparse24.compress(torch.tensor(values, dtype=torch.float32), backend="reference")
    nibble = int(packed.metadata[0]) & 15
    kept = (nibble & 3, nibble >> 2)
    return {"values": list(values), "kept": kept, "packed": packed.values.tolist(), "nibble": nibble}


def byte_map() -> np.ndarray:
    """(64 rows, 16 groups): the byte of one 64 x 64 tile that holds each group's position bits."""
    return layouts.nibble_index(64, 16, torch.device("cpu")).numpy() // 2


def bench_results(name: str) -> dict:
    """The committed result of `make bench` for "sparse24" or "tokenstats"; the newest if several cards."""
    checks.choice("name", name, ("sparse24", "tokenstats"))
    results = [json.loads(path.read_text()) for path in BENCHES.glob(f"{name}_*.json")]
    if not results:
        raise FileNotFoundError(
            f"no kernels/results/{name}_*.json: `make bench` on a CUDA device writes one"
        )
    return max(results, key=lambda result: result["date"])


def live_check(rows: int = 63, width: int = 264, vocabulary: int = 2049, seed: int = 0) -> list[dict]:
    """Every Triton kernel against the reference, here and now: on the GPU, else in Triton's interpreter.

    Inputs (rows, width) float16 with ties, zeros, NaN and inf, and (rows, vocabulary) logits. One row
    per operation: {"operation", "compared" (numbers), "different" (bits, or beyond rounding for
    statistics), "seconds"}. RuntimeError if Triton is missing or was imported without its interpreter.
    """
    checks.integer("rows", rows, 1)
    checks.integer("width", width, 4)
    checks.integer("vocabulary", vocabulary, 1)
    device = _ready()
    generator = torch.Generator().manual_seed(seed)
    x = _hard(torch.randn(rows, width, generator=generator).half()).to(device)
    grad = torch.randn(rows, width, generator=generator).half().to(device)
    logits = (torch.randn(rows, vocabulary, generator=generator) * 4).to(device)
    return [
        _compare(name, run)
        for name, run in {
            "mask24": lambda b: [sparse24.mask24(x, backend=b)],
            "sparsify": lambda b: [sparse24.sparsify(x, backend=b)],
            "compress": lambda b: _parts(sparse24.compress(x, layout="rows", backend=b)),
            "relu2_compress": lambda b: _parts(sparse24.relu2_compress(x, layout="rows", backend=b)),
            "relu2_compress, tensor-core layout": lambda b: _parts(
                sparse24.relu2_compress(x, layout="cusparselt", backend=b)
            ),
            "decompress": lambda b: [
                sparse24.decompress(sparse24.compress(x, layout="rows", backend=b), backend=b)
            ],
            "gradient, straight-through": lambda b: _gradient(x, grad, "ste", b),
            "gradient, masked": lambda b: _gradient(x, grad, "masked", b),
            "token_stats": lambda b: list(tokenstats.token_stats(logits, backend=b)),
        }.items()
    ]


def _ready() -> str:
    """Where the kernels run, "cuda" or "cpu"; "cpu" asks for Triton's interpreter, if in time."""
    if find_spec("triton") is None:
        raise RuntimeError("Triton is not installed here: there is nothing to compare")
    device = current()
    if device == "cpu" and "triton" not in sys.modules:  # it reads its switch once
        os.environ["TRITON_INTERPRET"] = "1"
    return device


def compare_packing(activations: np.ndarray) -> dict:
    """Pack float (..., features) activations by the Triton kernel and by the reference, and compare.

    {"where": words for the machine that ran the kernel, "groups": how many groups of four were compared,
    "nibbles" uint8 (2, groups): the reference's and the kernel's position bits,
    "differs" bool (groups,): the bits or one of the two stored values are not the same, bit for bit}.
    On the GPU if there is one, else in Triton's interpreter; where Triton was already imported without
    it (it reads its switch once), in a second process, about 3 s. RuntimeError if Triton is missing.
    """
    device = _ready()
    if device == "cpu":
        from sparse24 import triton  # late: it reads the switch

        if not triton.INTERPRETED:
            return _compare_elsewhere(activations)
    x = torch.from_numpy(np.ascontiguousarray(activations)).float().flatten(0, -2).to(device)
    nibbles, values = [], []
    for backend in ("reference", "triton"):
        packed = sparse24.compress(x, layout="rows", backend=backend)
        halves = torch.stack((packed.metadata & 15, packed.metadata >> 4), -1).flatten(1)
        nibbles.append(halves[:, : x.shape[1] // 4].flatten().cpu().numpy())
        values.append(packed.values.view(torch.int32).view(-1, 2).cpu().numpy())
    return {
        "where": backend_words(),
        "groups": len(nibbles[0]),
        "nibbles": np.stack(nibbles),
        "differs": (nibbles[0] != nibbles[1]) | (values[0] != values[1]).any(1),
    }


def _compare_elsewhere(activations: np.ndarray) -> dict:
    """``compare_packing`` in a process that imports Triton with its interpreter on."""
    code = (
        "import sys, numpy as np; from labkit.kernels import compare_packing as c; "
        "np.savez(sys.argv[2], **c(np.load(sys.argv[1])))"
    )
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        given, found = Path(folder, "in.npy"), Path(folder, "out.npz")
        np.save(given, activations)
        child = subprocess.run(
            [sys.executable, "-c", code, given, found],
            env={**os.environ, "TRITON_INTERPRET": "1"},
            capture_output=True,
            text=True,
        )
        if child.returncode:
            raise RuntimeError(f"the kernel's process failed: {child.stderr.strip()[-500:]}")
        with np.load(found) as result:
            read = {name: result[name] for name in result.files}
    return read | {"where": str(read["where"]), "groups": int(read["groups"])}


def _hard(x: torch.Tensor) -> torch.Tensor:
    flat = x.view(-1)
    flat[::7], flat[1::5] = 0, 1
    flat[2], flat[-1] = float("nan"), float("inf")
    return x


def _parts(packed: sparse24.Packed) -> list[torch.Tensor]:
    return [packed.values, packed.metadata]


def _gradient(x: torch.Tensor, grad: torch.Tensor, gradient: str, backend: str) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    dense = sparse24.decompress(
        sparse24.relu2_compress(x, gradient=gradient, backend=backend), backend=backend
    )
    return list(torch.autograd.grad(dense, x, grad))


def _compare(name: str, run: Callable[[str], list[torch.Tensor]]) -> dict:
    expected = run("reference")
    start = time.perf_counter()
    with np.errstate(all="ignore"):  # NaN and inf are among the inputs on purpose
        got = run("triton")
    seconds = time.perf_counter() - start
    different = 0
    for a, b in zip(got, expected, strict=True):
        a, b = a.double(), b.double()
        # Sums of exponentials and square roots may round apart; everything else is bit for bit.
        near = 3e-5 if name == "token_stats" else 2e-3 if "masked" in name else 0.0
        different += int((~torch.isclose(a, b, rtol=near, atol=near, equal_nan=True)).sum())
    compared = sum(part.numel() for part in expected)
    return {"operation": name, "compared": compared, "different": different, "seconds": seconds}


def backend_words() -> str:
    """Where ``live_check`` runs its kernels, for a caption."""
    if current() == "cuda":
        return torch.cuda.get_device_name()
    return "Triton's interpreter on the CPU"


def live_speed() -> str:
    """One sentence: what packing moves on this CUDA device, beside a copy; or that there is none."""
    if current() == "cpu":
        return "No CUDA device here: the figures are those of the committed results."
    from sparse24 import timing  # needs Triton

    h = torch.randn(16384, 5632, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(h)
    times = timing.interleave({
        "copy": lambda: target.copy_(h),
        "pack": lambda: sparse24.relu2_compress(h),
    })  # fmt: skip
    copy, pack = 2 * h.nbytes / times["copy"]["p50"] / 1e6, h.nbytes * 25 / 16 / times["pack"]["p50"] / 1e6
    name = torch.cuda.get_device_name()
    return f"{name}: copy {copy:,.0f} GB/s, relu2_compress {pack:,.0f} GB/s = {pack / copy:.0%} of it."
