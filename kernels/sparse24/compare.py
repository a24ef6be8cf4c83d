"""python -m sparse24.compare BEFORE.json AFTER.json: two benches, row by row: the ratio and a verdict.

`make bench` prints the same of the results that it replaces. A row is faster or slower if the middle 60 %
of its samples (p20 to p80) lie clear of those of before; on another card, or where the card's own copy and
product moved, that says nothing of the kernels.
"""

import argparse
import json
from pathlib import Path
from typing import Any

MEASURED = {  # what is no part of a row's name
    "ms", "gbps", "tflops", "share_of_copy", "speedup", "host_us", "algorithms", "peak_bytes", "kept_bytes",
}  # fmt: skip
DRIFT = 0.02  # how far the card's ceilings may move before the comparison is doubted


def read(path: Path, argument: str) -> dict[str, Any]:
    """A bench's JSON; ValueError that names ``argument`` if it is none."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(_refusal(path, argument, error)) from None
    return checked(result, path, argument)


def checked(result: Any, path: Path, argument: str) -> dict[str, Any]:
    """What the JSON at ``path`` holds, if that is a bench; ValueError as of ``read``."""
    try:
        if not all(row["ms"]["p20"] <= row["ms"]["p80"] for row in result["rows"]):
            raise ValueError("p20 is above p80")
        return {key: result[key] for key in ("bench", "card", "date", "ceilings", "rows")}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(_refusal(path, argument, error)) from None


def _refusal(path: Path, argument: str, error: Exception) -> str:
    problem = f"{type(error).__name__}: {error}"
    return f"{argument} must be a JSON file that `make bench` wrote; got {path} ({problem})"


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each of ``after``'s that ``before`` has too, in its order.

    Returns [{"what": section, rival and shape, "before", "after" (ms, medians), "ratio" (before / after:
    above 1 is faster), "verdict": "faster", "slower" or "same"}].
    """
    known = {_name(row): row["ms"] for row in before["rows"]}
    rows = []
    for row in after["rows"]:
        if (old := known.get(name := _name(row))) is None:
            continue
        new = row["ms"]
        verdict = "faster" if new["p80"] < old["p20"] else "slower" if new["p20"] > old["p80"] else "same"
        ratio = round(old["p50"] / new["p50"], 4)
        rows.append(
            {"what": name, "before": old["p50"], "after": new["p50"], "ratio": ratio, "verdict": verdict}
        )
    return rows


def _name(row: dict[str, Any]) -> str:
    shape = " ".join(f"{k} {v}" for k, v in row.items() if k not in MEASURED | {"section", "rival"})
    return f"{row['section']}: {row['rival']}, {shape}"


def lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What the comparison prints: doubts first, then the rows that moved, then how many did not."""
    told = []
    if (before["bench"], before["card"]) != (after["bench"], after["card"]):
        here, there = (f"{one['bench']} on {one['card']}" for one in (before, after))
        told.append(f"not the same machine or bench: {here}, then {there}")
    for name, old in before["ceilings"].items():
        if abs((moved := after["ceilings"].get(name, old) / old) - 1) > DRIFT:
            told.append(f"the card's own {name} is {moved:.3f} times that of before: doubt what follows")
    rows = compare(before, after)
    moved_rows = sorted((row for row in rows if row["verdict"] != "same"), key=lambda row: row["ratio"])
    for row in moved_rows:
        times = f"{row['before']:9.4f} -> {row['after']:9.4f} ms"
        told.append(f"{row['verdict']} {row['ratio']:6.3f}x {times}  {row['what']}")
    news = len(after["rows"]) - len(rows)
    told.append(
        f"{len(rows) - len(moved_rows)} of {len(rows)} rows as before ({before['date'][:10]})"
        + (f", {news} new" if news else "")
    )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sparse24.compare", description=__doc__.split(":", 1)[1].split("\n")[0].strip()
    )
    parser.add_argument("BEFORE", type=Path)
    parser.add_argument("AFTER", type=Path)
    options = parser.parse_args()
    try:
        print(*lines(read(options.BEFORE, "BEFORE"), read(options.AFTER, "AFTER")), sep="\n")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
