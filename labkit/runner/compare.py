"""Finished runs side by side: one against another, or against the baselines they would become."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.checks import choice, fail
from labkit.notebooks import find_notebooks
from labkit.paths import NOTEBOOKS, ROOT, write_json
from labkit.reading import read_json
from labkit.runner import baselines, cost
from labkit.studies import files

TEXTS = {str: str}
RUN = {  # what run.json holds at least
    "preset": str, "overrides": {str: object}, "device_class": str, "seconds": float,
    "provenance": {"versions": TEXTS, "device": str, "commit": str, "time": str}, "setting": TEXTS,
    "notebooks": [{"notebook": str, "error": str, "metrics": {str: {"value": float, "unit": str}}}],
}  # fmt: skip
NOWHERE = {"versions": {}, "device": "", "commit": "", "time": ""}
LATER: dict[str, Any] = {  # of its notebooks, where an older run.json lacks it
    "parameters": {}, "seconds": 0.0, "gpu_memory": 0, "cached": False, "inputs": {}, "verdicts": {},
    "origin": "",
}  # fmt: skip
ITEM = {
    "parameters": {str: object}, "seconds": float, "gpu_memory": float, "cached": bool, "inputs": TEXTS,
    "baseline": {"metrics": {str: {"value": float, "abs": float, "rel": float, "direction": str}}},
    "verdicts": TEXTS, "origin": str,
}  # fmt: skip


def read_run(folder: str | Path) -> dict:
    """A run's run.json; ValueError names the file and what in it ``labkit run`` would not have written."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise ValueError(f"folder must be a run's folder with run.json; got {str(folder)!r}")
    run = read_json(path, "run.json")
    files.check(str(path), run, {"provenance": {}})
    run["provenance"] = NOWHERE | run["provenance"]
    files.check(str(path), {"setting": {}} | run, RUN)
    choice(f"{path}: device_class", run["device_class"], ("cpu", "cuda"))
    for index, item in enumerate(run["notebooks"]):
        run["notebooks"][index] = item = LATER | item
        files.check(f"{path}: notebooks[{index}]['baseline']", entries := item.get("baseline") or {}, {})
        item["baseline"] = {"metrics": {}} | entries
        files.check(f"{path}: notebooks[{index}]", item, ITEM)
        name = item["notebook"]  # of files beside run.json, and of a baseline
        if not name.strip(".") or set(name) & set("/\\\0"):
            fail(f"{path}: notebook", name, "the name of a file, without a folder")
    return run


def _values(run: dict) -> dict[tuple[str, str], float]:
    items = run["notebooks"]
    return {(item["notebook"], name): value for item in items for name, value in _metrics(item).items()}


def compare_runs(folder_a: str | Path, folder_b: str | Path) -> list[tuple[str, str, str, str, str]]:
    """(notebook, metric, value in A, value in B, B - A) for every metric of either run."""
    a, b = _values(read_run(folder_a)), _values(read_run(folder_b))
    rows = []
    for key in sorted(a.keys() | b.keys(), key=lambda key: (a.get(key) == b.get(key), key)):
        old, new = (f"{side[key]:.6g}" if key in side else "absent" for side in (a, b))
        rows.append((*key, old, new, f"{b[key] - a[key]:+.3g}" if key in a and key in b else ""))
    return rows


def compare_settings(folder_a: str | Path, folder_b: str | Path) -> tuple[str, str]:
    """What differs in where the two ran and in the inputs they read, in words; empty if nothing does."""
    settings = []
    for run in (read_run(folder_a), read_run(folder_b)):
        inputs = {
            f"{item['notebook']} {name}": fingerprint
            for item in run["notebooks"]
            for name, fingerprint in item.get("inputs", {}).items()
        }
        settings.append(run.get("setting", {}) | inputs)
    return baselines.differences(*settings)


def proposals(
    folder: str | Path, seeds: Sequence[str | Path] = ()
) -> tuple[dict[Path, dict], list[tuple[str, str, str, str, str]]]:
    """({baseline file: new content}, rows of what moves) that would accept the run's metrics.

    seeds   folders of runs that differ in their seed or ran elsewhere, on another Python for instance:
            new or broken tolerances are measured on them

    ValueError if a notebook of the run failed or is not the lab's own, if the run changed parameters by
    hand or by a file, if a run of ``seeds`` changed more than its seed, or if there is no checkout to keep
    the baselines in.
    """
    if ROOT is None:
        raise ValueError("baseline update must have a checkout of the lab; this labkit was installed alone")
    run, others = read_run(folder), [read_run(other) for other in seeds]
    if failed := [item["notebook"] for item in run["notebooks"] if item["error"]]:
        raise ValueError(f"a baseline must come from a run without failures; {', '.join(failed)} failed")
    if run["overrides"].keys() - {"device"}:
        raise ValueError(f"a baseline must come from a preset alone; this run set {run['overrides']}")
    if run["preset"] not in {path.stem for path in (NOTEBOOKS / "presets").glob("*.yaml")}:
        raise ValueError(f"a baseline must come from a named preset; this run used {run['preset']!r}")
    items = [item for one in (run, *others) for item in one["notebooks"]]
    if strange := sorted({item["notebook"] for item in items if not _ours(item)}):
        told = f"{', '.join(strange)} came from elsewhere"
        raise ValueError(f"a baseline must be of the lab's own notebooks; {told}")
    wanted = run["preset"], run["device_class"]
    for place, other in zip(seeds, others, strict=True):
        found = other["preset"], other["device_class"]
        if found != wanted or not _redraws(other["overrides"]):
            raise ValueError(
                f"seeds must be runs of {' on '.join(wanted)} that set the seed alone; {place} is one of "
                f"{' on '.join(found)} that set {other['overrides'] or 'nothing'}"
            )
    changes, rows = {}, []
    for item in run["notebooks"]:
        path = baselines.path_of(item["notebook"], run["preset"], run["device_class"])
        old = baselines.load(path)["metrics"] if path.is_file() else {}
        twins = [(other, twin) for other in others for twin in other["notebooks"]
                 if twin["notebook"] == item["notebook"] and not twin["error"]]  # fmt: skip
        if not any(other["overrides"] for other, _ in twins):
            twins = []  # the same seed on other machines has rounding to show, and no spread
        drawn = _drawn([run, *(other for other, _ in twins)])
        new = baselines.propose(_metrics(item), old, [_metrics(twin) for _, twin in twins], drawn)
        if new == old or not (new or old):
            continue
        recorded = run.get("setting", {}) | item.get("inputs", {})
        changes[path] = {"recorded": recorded, "seconds": round(item["seconds"], 1), "metrics": new}
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                was, becomes = (
                    f"{side[name]['value']:.6g}" if name in side else "-" for side in (old, new)
                )
                allowed = f"±{baselines.move(new[name]):.3g}" if name in new else ""
                rows.append((path.stem, name, was, becomes, allowed))
    return changes, rows


def _metrics(item: dict) -> dict[str, float]:
    return {name: metric["value"] for name, metric in item["metrics"].items()}


def _redraws(overrides: dict) -> bool:
    """Whether a run set nothing but its seed, or a list of seeds; ``seeds`` may also be a count."""
    listed = isinstance(overrides.get("seeds", []), list)
    return listed and not overrides.keys() - {"seed", "seeds", "device"}


def _drawn(runs: Sequence[dict]) -> str:
    """What a tolerance was measured over: ``7 runs: 5 seeds; Python 3.11, 3.12; threads 1, 2``."""
    seeds = {json.dumps(run["overrides"], sort_keys=True) for run in runs}
    settings = [run.get("setting", {}) for run in runs]
    found = {name: sorted({one.get(name, "?") for one in settings}) for name in settings[0]}
    varied = [f"; {name} {', '.join(values)}" for name, values in found.items() if len(values) > 1]
    return f"{len(runs)} runs: {len(seeds)} seeds{''.join(varied)}"


def _ours(item: dict) -> bool:
    """Whether it ran from notebooks/; an older run.json, without ``ours``, has only the name to tell."""
    return item.get("ours", (NOTEBOOKS / f"{item['notebook']}.ipynb").is_file())


def accept(changes: dict[Path, dict]) -> None:
    """Write the proposed baselines, and what they cost into the notebooks; all are checked before."""
    for path, content in changes.items():
        baselines.check(path.name, content)
    for path, content in changes.items():
        write_json(path, content)
    for path in find_notebooks():
        if any(changed.name.startswith(f"{path.stem}.") for changed in changes):
            cost.write(path)
