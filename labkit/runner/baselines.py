"""Baselines: what each metric was, how far it may move, in which direction, and why.

<notebook>.<preset>.<device class>.json holds {"recorded", "seconds", "metrics"}.
recorded   the setting of the run that gave the values (``provenance.setting``) and the inputs it read
seconds    what that run took; the notebook's Cost line says it (labkit.runner.cost)
metrics    per metric {"value", "abs", "rel", "direction", "why"} and optionally "trivial" (what a lazy
           method scores)

The allowed move is abs + rel * |value|; direction says what counts as worse:

higher  fails below value - move      lower  fails above value + move      equal  fails outside
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.checks import choice, number
from labkit.paths import BASELINES
from labkit.reading import read_json
from labkit.studies import files

DIRECTIONS = ("higher", "lower", "equal")


def path_of(notebook: str, preset: str, device: str) -> Path:
    """Where the baseline of one notebook, preset and device class lives."""
    return BASELINES / f"{notebook}.{preset}.{device}.json"


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Read and check one baseline file; ValueError names the metric and what is wrong with it."""
    baseline = read_json(path, "baseline")
    check(path.name, baseline)
    return baseline


def check(name: str, baseline: dict[str, dict[str, Any]]) -> None:
    """ValueError unless a baseline says where it was recorded and every entry holds."""
    whole = isinstance(baseline, dict) and baseline.keys() == {"recorded", "seconds", "metrics"}
    if not whole or not all(isinstance(baseline[part], dict) for part in ("recorded", "metrics")):
        raise ValueError(
            f"baseline must hold the mappings recorded and metrics, and seconds; {name} does not"
        )
    files.check(f"{name}: recorded", baseline["recorded"], {str: str})
    number(f"{name}: seconds", baseline["seconds"], 0)
    for metric, entry in baseline["metrics"].items():
        check_entry(f"{name}: {metric}", entry)


def check_entry(name: str, entry: dict[str, Any]) -> None:
    """Refuse an entry without a reason, or so loose that zero or the trivial score would pass."""
    wanted = {"value", "abs", "rel", "direction", "why"}
    files.check(name, entry, {})
    if missing := wanted - set(entry):
        raise ValueError(
            f"{name} must have {', '.join(sorted(wanted))}; it lacks {', '.join(sorted(missing))}"
        )
    for score in ("value", "trivial"):
        number(f"{name}.{score}", entry.get(score, 0), -math.inf)
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


def compare(metrics: dict[str, float], entries: dict[str, dict[str, Any]]) -> dict[str, str]:
    """{metric: ok | regressed | missing | new} over the union of both."""
    found = dict.fromkeys(sorted(entries.keys() | metrics.keys()), "missing")
    for name, value in metrics.items():
        found[name] = verdict(value, entries[name]) if name in entries else "new"
    return found


def origin(recorded: dict[str, str], here: dict[str, str]) -> str:
    """Where a baseline was recorded, as far as it differs from the setting and inputs of a run."""
    there, now = differences(recorded, here)
    return f"recorded on {there}; this is {now}" if there else "recorded on the same setting"


def differences(one: dict[str, str], other: dict[str, str]) -> tuple[str, str]:
    """What is not the same in two settings, in words: ("Python 3.11", "Python 3.12"); both may be empty."""
    apart = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    first, second = (", ".join(f"{name} {side.get(name, '?')}" for name in apart) for side in (one, other))
    return first, second


def metric_rows(item: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured, then what the baseline expected and did not get, as text.

    item   a notebook of a run.json

    ``share``: how much of what it may move a metric has moved, 0 to 1 and beyond; 0 if it may not move.
    """
    rows = []
    for name in item["metrics"] | item["verdicts"]:
        metric, entry = item["metrics"].get(name), item["baseline"].get("metrics", {}).get(name)
        moved = metric["value"] - entry["value"] if metric and entry else 0.0
        rows.append({
            "name": name,
            "value": f"{metric['value']:.6g}" if metric else "",
            "unit": metric["unit"] if metric else "",
            "baseline": f"{entry['value']:.6g} ± {move(entry):.2g}, {entry['direction']}" if entry else "",
            "moved": f"{moved:+.3g}" if moved else "",
            "share": abs(moved) / move(entry) if moved and move(entry) else 0.0,
            "verdict": item["verdicts"].get(name, ""),
        })  # fmt: skip
    return rows


def off(item: dict[str, Any]) -> list[str]:
    """One line for each metric that is off: its verdict, both values, and where the baseline comes from."""
    return [
        f"{row['name']}: {row['verdict']}, {row['value'] or 'no value'}"
        + (f" against {row['baseline']}, {item['origin']}" if row["baseline"] else "")
        for row in sorted(metric_rows(item), key=lambda row: row["name"])
        if row["verdict"] not in ("ok", "")
    ]


def propose(
    metrics: dict[str, float],
    old: dict[str, dict[str, Any]],
    seeds: Sequence[dict[str, float]] = (),
    drawn: str = "",
) -> dict[str, dict[str, Any]]:
    """The entries that would accept ``metrics``: old tolerances kept, new ones from ``seeds``.

    seeds   metrics of runs that differ in their seed or setting; a tolerance they break is measured
            anew. Without any, a new metric may move by 5 %.
    drawn   which runs all these are, in words
    """
    fresh = {"abs": 0.0, "rel": 0.05, "direction": "equal", "why": "default of 5 %: no spread measured yet"}
    entries = {}
    for name, value in sorted(metrics.items()):
        others = [run[name] for run in seeds if name in run]
        entry = {**old.get(name, fresh), "value": value}
        narrow = any(verdict(other, entry) != "ok" for other in others)
        if others and (narrow or name not in old):
            entry |= measured_move(value, others, drawn or f"{len(others) + 1} runs")
        entries[name] = entry
    return entries


def measured_move(value: float, others: Sequence[float], drawn: str) -> dict[str, Any]:
    """{"abs", "rel", "why"}: the largest move from ``value`` over other seeds and settings.

    No more: what is compared has the seed of the baseline, and its rounding moves it far less. Where that
    is not so, as after a long training on a GPU, the file has a wider one, set by hand, and says why.
    """
    moved = max(abs(other - value) for other in others)
    if moved == 0:
        return {"abs": 0.0, "rel": 1e-6, "why": f"the same in {drawn}: nothing in it is drawn"}
    room = float(f"{1.01 * moved:.3g}")
    why = f"the largest move over {drawn}"
    if value and room >= abs(value):
        room, why = 0.9 * abs(value), f"moves by {moved:.3g} over {drawn}: only the sign is held"
    return {"abs": room, "rel": 0.0, "why": why}
