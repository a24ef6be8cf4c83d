"""python -m sparse24.bench [--out DIR]: check the kernels, then time them against their rivals.

Needs a CUDA device of capability >= 8.0. Refuses to time when any result differs from the reference.
Writes <DIR>/sparse24_<card>.json (default: kernels/results) and prints each bar with its value.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from sparse24 import bench_ffn, cusparselt, gemm, matmul, reference, timing
from sparse24 import triton as kernels
from sparse24.packed import Packed

RESULTS = Path(__file__).parents[1] / "results"
BF16 = torch.bfloat16
PRODUCTS = (  # tokens, K, N of packed (tokens, K) @ weight (N, K)^T
    (16384, 5632, 2048),
    (8192, 14336, 4096),
    (16384, 2816, 1024),
    (16384, 8192, 512),
    (16384, 5632, 256),
)
FUSED = (  # tokens, K, F of relu(z (tokens, K) @ up (F, K)^T)^2
    (16384, 256, 8192),
    (16384, 512, 8192),
    (16384, 1024, 2816),
    (16384, 2048, 5632),
    (8192, 4096, 14336),
)


def check() -> int:
    """Number of comparisons with the reference, all equal; SystemExit at the first that is not."""
    done = 0

    def equal(name, got, expected, *, rtol=0.0):
        nonlocal done
        try:
            torch.testing.assert_close(got, expected, rtol=rtol, atol=0, equal_nan=True)
        except AssertionError as error:
            raise SystemExit(f"refusing to time: {name} differs from the reference\n{error}") from None
        done += 1

    for rows, columns in ((1, 2064), (63, 3072), (1000, 5504), (1000, 8192), (16384, 5632)):
        h = torch.randn(rows, columns, device="cuda", dtype=BF16)
        h.view(-1)[::5], h.view(-1)[7], h.view(-1)[9] = 1, float("nan"), float("inf")
        grad = torch.randn_like(h)
        both = (b.ste_backward(grad, h) for b in (kernels, reference))
        for name, *pair in zip(("gradient", "activation"), *both, strict=True):
            equal(f"straight-through {name} {rows}x{columns}", *pair)
        for layout in ("rows", "cusparselt"):
            where = f"{layout} {rows}x{columns}"
            packed, truth = kernels.pack(h, True, layout), reference.pack(h, True, layout)
            equal(f"pack values {where}", packed[0], truth[0])
            equal(f"pack metadata {where}", packed[1], truth[1])
            equal(f"unpack {where}", *(b.unpack(*packed, h.shape, layout) for b in (kernels, reference)))
            values, metadata = packed
            both = (b.masked_grad(grad, metadata, values, layout) for b in (kernels, reference))
            equal(f"gradient {where}", *both, rtol=2**-7)
    x = kernels.prune(torch.randn(1024, 5632, device="cuda", dtype=BF16))
    w = torch.randn(512, 5632, device="cuda", dtype=BF16)
    y = cusparselt.multiply(
        Packed(*kernels.pack(x, False, "cusparselt"), x.shape, "cusparselt"), w, kernels.unpack
    )
    error = (y.double() - x.double() @ w.double().t()).norm() / y.double().norm()
    if not error < 1e-2:
        raise SystemExit(f"refusing to time: the sparse product is off by {error:.3g}")
    z = torch.randint(-2, 3, (1000, 256), device="cuda").to(BF16)
    up = torch.randint(-1, 2, (8192, 256), device="cuda").to(BF16)
    fused, steps = gemm.relu2_pack(z, up), reference.pack(z @ up.t(), True, "cusparselt")
    equal("fused product values", fused[0], steps[0])
    equal("fused product metadata", fused[1], steps[1])
    return done + 1


def _one_pass(tokens: int, width: int) -> dict[str, tuple[Callable, int]]:
    """{name: (call, bytes it must read and write)} for a (tokens, width) activation."""
    h, d = (torch.randn(tokens, width, device="cuda", dtype=BF16) for _ in range(2))
    values, metadata = kernels.pack(h, True, "cusparselt")
    by_rows = kernels.pack(h, True)
    room, pruned, dense = torch.empty_like(values), kernels.prune(h), torch.empty_like(h)
    compiled = torch.compile(lambda h: h.relu().square(), dynamic=False)
    one, packed = h.nbytes, h.nbytes * 9 // 16

    def gradient(room=None):
        return kernels.masked_grad(d, metadata, values, "cusparselt", packed_out=room)

    return {
        "copy": (lambda: dense.copy_(h), 2 * one),
        "relu2 eager": (lambda: h.relu().square(), 2 * one),
        "relu2 compiled": (lambda: compiled(h), 2 * one),
        "relu2_compress rows": (lambda: kernels.pack(h, True), one + packed),
        "relu2_compress cusparselt": (lambda: kernels.pack(h, True, "cusparselt"), one + packed),
        "compress cusparselt": (lambda: kernels.pack(h, False, "cusparselt"), one + packed),
        "torch._cslt_compress": (lambda: torch._cslt_compress(pruned), one + packed),
        "torch 4x4 tile": (lambda: torch._sparse_semi_structured_tile(h), one + 2 * packed),
        "decompress rows": (lambda: kernels.unpack(*by_rows, h.shape), one + packed),
        "decompress": (lambda: kernels.unpack(values, metadata, h.shape, "cusparselt"), one + packed),
        "masked gradient": (gradient, 2 * one + packed),
        "masked gradient + packed": (lambda: gradient(room), 2 * one + packed + one // 2),
        "straight-through gradient": (lambda: kernels.ste_grad(d, h), 3 * one),
        "straight-through gradient + activation": (lambda: kernels.ste_backward(d, h), 4 * one),
        "sparsify": (lambda: kernels.prune(h), 2 * one),
    }


def elementwise(ceiling: float) -> list[dict]:
    """Bandwidth of every one-pass kernel and of its rivals."""
    rows = []
    for tokens, width in ((16384, 5632), (16384, 14336)):
        rivals = _one_pass(tokens, width)
        for name, ms in timing.interleave({name: run for name, (run, _) in rivals.items()}).items():
            gbps = rivals[name][1] / ms["p50"] / 1e6
            rows.append({
                "section": "elementwise", "rival": name, "rows": tokens, "width": width, "ms": ms,
                "gbps": round(gbps, 1), "share_of_copy": round(gbps / ceiling, 4),
            })  # fmt: skip
    return rows


def products() -> list[dict]:
    """packed @ weight against cuBLAS (the faster layout of the weight) and torch's own sparse product."""
    rows = []
    for tokens, k, n in PRODUCTS:
        x = torch.randn(tokens, k, device="cuda", dtype=BF16)
        weights = {"N,K": torch.randn(n, k, device="cuda", dtype=BF16)}
        weights["K,N"] = weights["N,K"].t().contiguous().t()
        packed = Packed(*kernels.pack(x, False, "cusparselt"), x.shape, "cusparselt")
        blob = packed.values.as_strided((tokens, k * 9 // 16), (k * 9 // 16, 1))
        rivals: dict[str, Callable] = {
            "torch._cslt_sparse_mm": lambda b=blob, w=weights["N,K"]: torch._cslt_sparse_mm(b, w.t())
        }
        for order, w in weights.items():
            rivals[f"cuBLAS {order}"] = lambda w=w, x=x: x @ w.t()
            rivals[f"matmul {order}"] = lambda w=w, p=packed: matmul(p, w)
        times = timing.interleave(rivals)
        dense = min(times[f"cuBLAS {order}"]["p50"] for order in weights)
        for name, ms in times.items():
            rows.append({
                "section": "product", "rival": name, "rows": tokens, "k": k, "n": n, "ms": ms,
                "tflops": round(2 * tokens * k * n / ms["p50"] / 1e9, 1),
                "speedup": round(dense / ms["p50"], 4),
            })  # fmt: skip
        plans = {order: cusparselt.plan_for(packed.values, w).algorithm for order, w in weights.items()}
        rows[-1]["algorithms"] = plans
        host = {name: timing.host_time(run, 50) for name, run in rivals.items()}
        rows[-1]["host_us"] = host | {
            "cached plan alone": timing.host_time(
                lambda p=packed, w=weights["N,K"]: cusparselt.plan_for(p.values, w)(p.values, w), 50
            )
        }
    return rows


def fused() -> list[dict]:
    """relu(z up^T)^2 packed: one kernel (reordering included) against cuBLAS + the packing kernel."""
    rows = []
    for tokens, k, n in FUSED:
        z = torch.randn(tokens, k, device="cuda", dtype=BF16) / k**0.5
        up = torch.randn(n, k, device="cuda", dtype=BF16)
        times = timing.interleave({
            "two kernels": lambda z=z, up=up: kernels.pack(z @ up.t(), True, "cusparselt"),
            "fused": lambda z=z, up=up: gemm.relu2_pack(z, up),
        })  # fmt: skip
        for name, ms in times.items():
            speedup = times["two kernels"]["p50"] / ms["p50"]
            rows.append({
                "section": "fused product", "rival": name, "rows": tokens, "k": k, "n": n, "ms": ms,
                "speedup": round(speedup, 4),
            })  # fmt: skip
    return rows


def bars(rows: list[dict]) -> list[dict]:
    """The table of bars, each from the rows just measured."""

    def find(section, **keys):
        return [r for r in rows if r["section"] == section and all(r.get(k) == v for k, v in keys.items())]

    out = []
    for name, rival, floor, aim in (
        ("fused compress", "relu2_compress cusparselt", 0.93, 0.97),
        ("decompress", "decompress", 0.92, 0.96),
        ("backward", "masked gradient + packed", 0.93, 0.97),
    ):
        for row in find("elementwise", rival=rival):
            out.append(
                timing.goal(
                    f"{name}, share of copy, width {row['width']}", row["share_of_copy"], floor, aim, ""
                )
            )
    for width in (5632, 14336):
        ms = {r["rival"]: r["ms"]["p50"] for r in find("elementwise", width=width)}
        ratio = ms["relu2 compiled"] / ms["relu2_compress cusparselt"]
        out.append(timing.goal(f"compress against compiled relu^2, width {width}", ratio, 1.2, 1.28, "x"))
    for row in find("product", rival="torch._cslt_sparse_mm"):
        shape = {"rows": row["rows"], "k": row["k"], "n": row["n"]}
        ours = [r for r in find("product", **shape) if r["rival"].startswith("matmul")]
        best = max(r["speedup"] for r in ours)
        aim = 1.5 if row["k"] >= 5632 and row["n"] >= 2048 else 1.35
        out.append(timing.goal(f"sparse product {row['rows']}x{row['k']}x{row['n']}", best, 1.35, aim, "x"))
    for row in find("fused product", rival="fused"):
        if row["k"] <= 512:
            out.append(timing.goal(f"fused product, r = {row['k']}", row["speedup"], 1.25, 1.5, "x"))
    host = max(
        h for r in find("product") for n, h in r.get("host_us", {}).items() if n.startswith("cached")
    )
    out.append(timing.goal("host time of a cached plan", host, 40, 25, "us", lower=True))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sparse24.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        raise SystemExit("sparse24.bench needs a CUDA device; on a CPU the reference is all there is")
    torch.manual_seed(0)
    checked = check()
    print(f"{checked} comparisons with the reference hold on {torch.cuda.get_device_name()}", flush=True)
    ceiling = timing.ceilings()
    print(
        f"copy {ceiling['copy_gbps']} GB/s, bfloat16 product {ceiling['product_tflops']} TFLOP/s",
        flush=True,
    )
    rows = elementwise(ceiling["copy_gbps"]) + products() + fused()
    ffn_rows, ffn_bars = bench_ffn.measure()
    goals = bars(rows) + ffn_bars
    body = {"checked": checked, "ceilings": ceiling, "goals": goals, "rows": rows + ffn_rows}
    path = timing.report("sparse24", "python -m sparse24.bench", body, out)
    for row in rows + ffn_rows:
        extra = row.get("share_of_copy", row.get("speedup", ""))
        print(f"{row['section']:14} {row['rival']:28} {row['ms']['p50']:9.4f} ms  {extra}")
    timing.show_goals(goals)
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
