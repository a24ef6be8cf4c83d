"""python -m tokenstats.bench [--out DIR]: check token_stats, then time it against torch.

Needs a CUDA device of capability >= 8.0. Refuses to time when a result differs from the reference.
Writes <DIR>/tokenstats_<card>.json (default: kernels/results) and prints each bar with its value.
"""

import argparse
import sys
from pathlib import Path

import torch

from sparse24 import timing
from tokenstats import reference, token_stats

RESULTS = Path(__file__).parents[1] / "results"


def check() -> int:
    """Number of comparisons with the float64 reference that hold; SystemExit at the first that does not."""
    done = 0
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for rows, vocabulary in ((1, 7), (63, 50257), (100, 126464), (5, 152064)):
            logits = (torch.randn(rows, vocabulary, device="cuda") * 4).to(dtype)
            logits[0, 1::3] = float("-inf")
            tokens = torch.randint(0, vocabulary, (rows,), device="cuda")
            got = token_stats(logits, tokens, 0.7, backend="triton")
            truth = reference.token_stats(logits.double(), tokens, 0.7)
            try:
                assert torch.equal(got.argmax, truth.argmax), "argmax"
                for a, b in zip(got[1:], truth[1:], strict=True):
                    torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=3e-5)
            except AssertionError as error:
                raise SystemExit(f"refusing to time: {dtype} {rows}x{vocabulary}: {error}") from None
            done += 4
    return done


def measure(ceiling: float) -> tuple[list[dict], list[dict]]:
    rows, goals = [], []
    compiled = torch.compile(reference.token_stats, dynamic=False)
    # The first is the smallest that does not fit the H100's 50 MB of cache.
    for count, vocabulary in ((256, 126464), (1024, 126464), (4096, 126464), (4096, 32000)):
        logits = torch.randn(count, vocabulary, device="cuda", dtype=torch.bfloat16)
        tokens = torch.randint(0, vocabulary, (count,), device="cuda")
        # A copy of half the logits moves as many bytes: at this size no kernel is expected to be faster.
        half = logits.flatten()[: logits.numel() // 2]
        room = torch.empty_like(half)
        rivals = {
            "copy": lambda x=half, y=room: y.copy_(x),
            "torch eager": lambda x=logits, t=tokens: reference.token_stats(x, t),
            "torch compiled": lambda x=logits, t=tokens: compiled(x, t),
            "token_stats": lambda x=logits, t=tokens: token_stats(x, t),
        }
        times = timing.interleave(rivals, rounds=20)
        for name, ms in times.items():
            gbps = logits.nbytes / ms["p50"] / 1e6  # one read of the logits is all that is needed
            _, peak, _ = timing.memory(rivals[name])
            rows.append({
                "section": "token_stats", "rival": name, "rows": count, "vocabulary": vocabulary, "ms": ms,
                "gbps": round(gbps, 1), "share_of_copy": round(gbps / ceiling, 4),
                "speedup": round(times["torch compiled"]["p50"] / ms["p50"], 4), "peak_bytes": peak,
            })  # fmt: skip
        if count == 256:
            share = times["copy"]["p50"] / times["token_stats"]["p50"]
            goals.append(timing.goal("256 rows, share of a copy of that size", share, 0.75, 0.9, ""))
        if (count, vocabulary) == (4096, 126464):
            share = rows[-1]["share_of_copy"]
            goals.append(timing.goal("token statistics, share of copy", share, 0.85, 0.93, ""))
            extra = rows[-1]["peak_bytes"] / logits.nbytes
            goals.append(
                timing.goal("extra memory, share of the logits", extra, 0.01, 0.01, "", lower=True)
            )
    return rows, goals


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tokenstats.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        raise SystemExit("tokenstats.bench needs a CUDA device; on a CPU the reference is all there is")
    torch.manual_seed(0)
    checked = check()
    ceiling = timing.ceilings()
    rows, goals = measure(ceiling["copy_gbps"])
    body = {"checked": checked, "ceilings": ceiling, "goals": goals, "rows": rows}
    path = timing.report("tokenstats", "python -m tokenstats.bench", body, out)
    for row in rows:
        shape = f"{row['rows']:5} x {row['vocabulary']:6}"
        print(f"{row['rival']:15} {shape} {row['ms']['p50']:8.4f} ms {row['share_of_copy']}")
    timing.show_goals(goals)
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
