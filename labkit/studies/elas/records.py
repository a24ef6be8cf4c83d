"""What the lab keeps of its ELAS study: results of the runs.

results(stage)         what a stage measured on a GPU, as a dict
runs, curves           the runs of the study: what they came to, and how
traces(prefix)         other recorded TrainTraces
runs_60m               the runs of the paper's 60M configuration, by arm
note(meta)             what to say of a record made with an older optimiser
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labkit.checks import choice
from labkit.elas.config import LORO_REVISION
from labkit.paths import write_atomic
from labkit.reading import read_npz
from labkit.traces import TrainTrace

RESULTS = Path(__file__).resolve().parent / "results"
# rows of memory and speed: ffn.py; study: journal.py; generate: generate.py; of the others: parallel.py
RECORDS = ("memory", "speed", "study", "generate", "parallel-same", "parallel-speed")


def results(stage: str) -> dict:
    """The record of ``stage``, one of RECORDS. ValueError for others."""
    return json.loads((RESULTS / f"{choice('stage', stage, RECORDS)}.json").read_text())


def note(meta: Mapping[str, Any]) -> str:
    """What to say of a record, or of a run's meta, that an older optimiser made; empty for the present."""
    if meta.get("loro_revision", 1) == LORO_REVISION:
        return ""
    return "run before Loro's exact step and schedule were corrected"


def runs(*arms: str) -> list[TrainTrace]:
    """The study's runs on the test text, of all arms and rules or of some, without curves.

    ``meta``: the run's row in study.json and, for all alike, config, text, provenance; NaN where it broke.
    """
    record = results("study")
    about = {key: record[key] for key in ("config", "provenance", "loro_revision")}
    about |= record["text"] | {"text": record["text"]["name"]}
    rows = [row for row in record["runs"] if row["stage"] != "tune"]
    known = {row["arm"] for row in rows}
    for arm in arms:
        choice("arms", arm, sorted(known))
    return [
        TrainTrace(np.array([], int), meta=about | _with_nan(row))
        for row in rows
        if row["arm"] in (arms or known)
    ]


def runs_60m() -> dict[str, TrainTrace]:
    """{arm: run} of ``python -m labkit.studies elas-60m``; ``meta``: its JSON without the curves."""
    found = {}
    for path in sorted(RESULTS.glob("60m-*.json")):
        record = json.loads(path.read_text())
        curves = {
            name: (c["step"], np.array(c["values"], float)) for name, c in record.pop("curves").items()
        }
        step = np.unique(np.concatenate([at for at, _ in curves.values()]))
        series = {name: np.full((len(step), *v.shape[1:]), np.nan) for name, (_, v) in curves.items()}
        for name, (at, values) in curves.items():
            series[name][np.searchsorted(step, at)] = values
        found[record["arm"]] = TrainTrace(step, series, meta=record | {"seed": record["config"]["seed"]})
    return found


def _with_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.nan if value is None else value for name, value in row.items()}


def curves(*arms: str) -> list[TrainTrace]:
    """The study's runs whose curves are kept, the first seeds of each arm and rule, or of some."""
    known = load_curves(RESULTS / "curves.npz")
    for arm in arms:
        choice("arms", arm, sorted({trace.meta["arm"] for trace in known}))
    return [trace for trace in known if trace.meta["arm"] in (arms or {trace.meta["arm"]})]


def traces(prefix: str = "") -> list[TrainTrace]:
    """Other recorded runs whose names start so, in the order of their names. ValueError if none does."""
    paths = [path for path in sorted(RESULTS.glob(f"{prefix}*.npz")) if path.stem != "curves"]
    if not paths:
        names = sorted({path.stem.rsplit("-", 1)[0] for path in RESULTS.glob("*-*.npz")})
        choice("prefix", prefix, names)
    return [TrainTrace.load(path) for path in paths]


def save_curves(path: Path, traces: Sequence[TrainTrace]) -> None:
    """Several runs in one .npz without pickle: their steps, series and meta, not their samples."""
    arrays = {"json": np.array(json.dumps([trace.meta for trace in traces]))}
    for i, trace in enumerate(traces):
        arrays[f"{i}/step"] = trace.step
        arrays |= {f"{i}/{name}": values for name, values in trace.series.items()}
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **arrays))


def load_curves(path: Path) -> list[TrainTrace]:
    """What ``save_curves`` wrote."""
    arrays = read_npz(path, "path")
    traces = []
    for i, meta in enumerate(json.loads(str(arrays.pop("json")))):
        own = {name.removeprefix(f"{i}/"): v for name, v in arrays.items() if name.startswith(f"{i}/")}
        traces.append(TrainTrace(own.pop("step"), own, meta=meta))
    return traces
