"""Baselines: what each metric was, how far it may move, in which direction, and why.

tests/baselines/<notebook>.<preset>.<device class>.json holds, per metric,
{"value", "abs", "rel", "direction", "why"} and optionally "trivial" (what a lazy method scores).
The allowed move is abs + rel * |value|; direction says what counts as worse:

higher  fails below value - move      lower  fails above value + move      equal  fails outside
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.checks import choice, number
from labkit.paths import ROOT, write_atomic

FOLDER = ROOT / "tests" / "baselines"
DIRECTIONS = ("higher", "lower", "equal")


def path_of(notebook: str, preset: str, device: str) -> Path:
    """Where the baseline of one notebook, preset and device class lives."""
    return FOLDER / f"{notebook}.{preset}.{device}.json"


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Read and check one baseline file; ValueError names the metric and what is wrong with it."""
    try:
        baseline = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"baseline must be valid JSON; {path.name} is not: {error}") from None
    for name, entry in baseline.items():
        check_entry(f"{path.name}: {name}", entry)
    return baseline


def check_entry(name: str, entry: dict[str, Any]) -> None:
    """Refuse an entry without a reason, or so loose that zero or the trivial score would pass."""
    wanted = {"value", "abs", "rel", "direction", "why"}
    if missing := wanted - set(entry):
        raise ValueError(
            f"{name} must have {', '.join(sorted(wanted))}; it lacks {', '.join(sorted(missing))}"
        )
    number(f"{name}.abs", entry["abs"], 0)
    number(f"{name}.rel", entry["rel"], 0)
    choice(f"{name}.direction", entry["direction"], DIRECTIONS)
    if not str(entry["why"]).strip():
        raise ValueError(f"{name}.why must say why this tolerance; got {entry['why']!r}")
    trivial = [entry["trivial"]] if "trivial" in entry else []
    # For "lower is better" zero is the best score there is, not a trivial one.
    if entry["value"] != 0 and entry["direction"] != "lower":
        trivial.append(0.0)
    for score in trivial:
        if verdict(score, entry) == "ok":
            raise ValueError(
                f"{name}: the tolerance must not let {score:g} pass; got value {entry['value']:g}, "
                f"move {move(entry):g}, direction {entry['direction']}"
            )


def move(entry: dict[str, Any]) -> float:
    """How far the metric may move."""
    return entry["abs"] + entry["rel"] * abs(entry["value"])


def verdict(value: float, entry: dict[str, Any]) -> str:
    """``ok`` or ``regressed``."""
    worse = {
        "higher": entry["value"] - value,
        "lower": value - entry["value"],
        "equal": abs(value - entry["value"]),
    }[entry["direction"]]
    return "ok" if math.isfinite(value) and worse <= move(entry) + 1e-12 else "regressed"


def compare(metrics: dict[str, float], baseline: dict[str, dict[str, Any]]) -> dict[str, str]:
    """{metric: ok | regressed | missing | new} over the union of both."""
    verdicts = {}
    for name in baseline.keys() | metrics.keys():
        if name not in metrics:
            verdicts[name] = "missing"
        elif name not in baseline:
            verdicts[name] = "new"
        else:
            verdicts[name] = verdict(metrics[name], baseline[name])
    return dict(sorted(verdicts.items()))


def propose(
    metrics: dict[str, float],
    old: dict[str, dict[str, Any]],
    seeds: Sequence[dict[str, float]] = (),
) -> dict[str, dict[str, Any]]:
    """The baseline that would accept ``metrics``: old tolerances kept, new ones from ``seeds``.

    seeds   metrics of runs that differ only in their seed; a tolerance they break is measured anew.
            Without any, a new metric may move by 5 %.
    """
    fresh = {"abs": 0.0, "rel": 0.05, "direction": "equal", "why": "default of 5 %: no spread measured yet"}
    entries = {}
    for name, value in sorted(metrics.items()):
        others = [run[name] for run in seeds if name in run]
        entry = {**old.get(name, fresh), "value": value}
        narrow = any(verdict(other, entry) != "ok" for other in others)
        entries[name] = (
            {**entry, **measured_move(value, others)} if others and (narrow or name not in old) else entry
        )
    return entries


def measured_move(value: float, others: Sequence[float]) -> dict[str, Any]:
    """{"abs", "rel", "why"}: 1.5 times the largest move from ``value`` over other seeds, at least 3 %."""
    moved = max(abs(other - value) for other in others)
    if moved == 0:
        return {
            "abs": 0.0,
            "rel": 1e-6,
            "why": f"the same for {len(others) + 1} seeds: nothing in it is drawn",
        }
    room = float(f"{max(1.5 * moved, 0.03 * abs(value)):.3g}")
    why = f"1.5 times the largest move over {len(others) + 1} seeds ({moved:.3g}), at least 3 %"
    if value and room >= abs(value):
        room, why = (
            0.9 * abs(value),
            f"moves by {moved:.3g} over {len(others) + 1} seeds: only the sign is held",
        )
    return {"abs": room, "rel": 0.0, "why": why}


def save(path: Path, baseline: dict[str, dict[str, Any]]) -> None:
    """Check every entry, then write the file whole."""
    for name, entry in baseline.items():
        check_entry(f"{path.name}: {name}", entry)
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(baseline, indent=1) + "\n"))
