"""The cells of README.md that hold measured numbers, computed from the records that they cite.

python -m labkit.studies.readme [--write]

Prints the cells, and with --write puts them into README.md. A row is known by its first cell; the words
around the computed cell stay as they are.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labkit.kernels import bench_results
from labkit.notebooks import find_notebooks
from labkit.paths import BASELINES, ROOT, write_atomic
from labkit.studies.elas import records as elas
from labkit.studies.elas.claims import straight_through
from labkit.studies.fgo import claims as fgo_claims
from labkit.studies.fgo import records as fgo
from labkit.studies.report import findings
from labkit.studies.soar import records as soar
from labkit.studies.soar.claims import sentence
from labkit.traces import TrainTrace

SOAR_RESULTS = "labkit/studies/soar/results/README.md"
README = (ROOT or Path.cwd()) / "README.md"
PASSES = (", forward against torch.compile", "forward + backward against torch.compile")


def finds() -> dict[str, str]:
    """{beginning of a notebook's first cell: what it finds}: the last cell of its row."""
    said = {row.notebook: row for row in reversed(findings())}  # the first row of a notebook
    study, arms = soar.study()["lab/sudoku9"], fgo.runs()
    remark = f" ({soar.note(study)})" * bool(soar.note(study))
    sums = soar.caches()["lab/sums"]
    plain = {a["strategy"]: a for a in sums["arms"] if a["cache"] is None and a["block_length"] is None}
    silent = {arm: f"{statistics.mean(map(_first_silent, arms[arm])):.1f}" for arm in ("GRPO", "FGO")}
    asked, seeds = arms["GRPO"][0].meta["questions"], len(arms["GRPO"])
    pretraining, entropy = said["02_elas_pretraining"], fgo_claims.claims()
    masks = _baseline("01_elas_masks", "cpu")["metrics"]
    parts = ("natural_zeros", "enforced_zeros", "energy_kept")
    zeros, taken, energy = (masks[f"recorded_model_{part}"]["value"] for part in parts)
    return {
        "01": f"in the model trained on an H100, {_percent(zeros)} of activations are zero anyway; the "
        f"mask takes {100 * taken:.1f} % more and keeps {100 * energy:.1f} % of the energy",
        "02": f"{pretraining.measured} ({pretraining.conditions})",
        "03": "puzzles that greedy decoding loses and the search solves; in words "
        f"{sums['prompts']:,} held-out sums in {plain['soar']['calls']:.1f} forward calls each instead of "
        f"{plain['greedy']['calls']:.0f}, {_percent(plain['soar']['accuracy'])} and "
        f"{_percent(plain['greedy']['accuracy'])} right (one model, {sums['provenance']['device']})",
        "04": f"{sentence(study)}{remark}",
        "05": f"of the first {asked} groups of a run, {silent['GRPO']} teach GRPO nothing and "
        f"{silent['FGO']} teach FGO nothing (means of {seeds} seeds, before the first update)",
        "06": f"{'; '.join(row.measured for row in entropy)} ({entropy[0].conditions})",
        "07": f"2:4 packing bit for bit like plain torch, statistics within rounding; {_copy()}",
    }


def _baseline(notebook: str, device: str) -> dict[str, Any]:
    """The smoke preset's baseline; empty if there is none."""
    path = BASELINES / f"{notebook}.smoke.{device}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _first_silent(run: TrainTrace) -> float:
    steps, counts = run.curve("fgo/invalid_groups")
    return float(counts[steps.argmin()])


def _copy() -> str:
    goals, rows = _goals("share of copy"), bench_results("tokenstats")["rows"]
    packing = [value for name, value in goals.items() if not name.startswith("token")]
    widest = max(row["vocabulary"] for row in rows)
    by_rows = {
        row["rows"]: row["share_of_copy"]
        for row in rows
        if (row["rival"], row["vocabulary"]) == ("token_stats", widest)
    }
    few, many = min(by_rows), max(by_rows)
    return (
        f"{_percent(min(packing))} to {_percent(max(packing))} of copy bandwidth on an H100 (statistics: "
        f"{_percent(by_rows[few])} at {few:,} rows, {_percent(by_rows[many])} at {many:,})"
    )


def _goals(*words: str) -> dict[str, float]:
    """{name: value} of the kernel benches' goals whose name has all ``words``."""
    every = [goal for name in ("sparse24", "tokenstats") for goal in bench_results(name)["goals"]]
    return {g["name"]: g["value"] for g in every if all(word in g["name"] for word in words)}


def _span(*words: str, form: str = ".2f", scale: float = 1.0, unit: str = "x") -> str:
    values = [scale * value for value in _goals(*words).values()]
    ends = dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values)))
    return f"{' to '.join(ends)}{unit}"


def speed() -> dict[str, str]:
    """{first cell of a row of the speed table: measured}: its second cell."""
    lab, share, llada = (soar.bench(stage) for stage in ("lab", "share", "llada"))
    graph, eager = (
        _range(seen["share"] for name, seen in share["searches"].items() if way in name)
        for way in ("graph", "eager")
    )
    large = _range(seen["share"] for seen in llada["share"].values())
    remark = f" (SOAR 8 {soar.OLD_KERNEL})" * ("kernel" not in share["provenance"])
    card = elas.results("speed")["provenance"]["device"]
    ours, low_rank = straight_through(), [_span("low-rank", kind, unit="") for kind in PASSES]
    return {
        "ReLU² + 2:4 + pack in one pass": f"{_share('fused compress')} of copy bandwidth",
        "sparse product against cuBLAS": _span("sparse product"),
        "feed-forward, masked gradient, against torch.compile in its default mode (not max-autotune), "
        "forward": _span("ffn d", PASSES[0]),
        "the same, forward and backward": _span("ffn d", PASSES[1]),
        "low-rank feed-forward, masked gradient, forward / with backward": f"{' / '.join(low_rank)}x",
        "low-rank feed-forward, straight-through gradient (ELAS's default), forward / with backward": (
            f"{ours['forward']:.2f} / {ours['forward + backward']:.2f}x ({card})"
        ),
        "wide activation bytes kept for the backward pass": (
            f"{_share('kept bytes', '.1f')} of compiled dense"
        ),
        "token statistics over 126,464 logits": f"{_share('token statistics', '.1f')} of copy bandwidth",
        f"diffusion decoding, {lab['prompts']} prompts in one batch against one at a time, "
        f"[same answers]({SOAR_RESULTS})": f"{lab['times faster']['one at a time']:.0f}x",
        "share of decoding in the model's forward (means): the lab's 5.5M weights, one CUDA graph / "
        "launch by launch / LLaDA-8B's shape": f"{graph} / {eager} / {large}{remark}",
        "diffusion decoding at LLaDA-8B's shape with [caches](notebooks/04_soar_quality_speed.ipynb)": (
            _caches()
        ),
    }


def _range(runs: Iterable[Sequence[float]]) -> str:
    means = [100 * statistics.mean(shares) for shares in runs]
    return f"{min(means):.0f} to {max(means):.0f} %"


def _share(name: str, form: str = ".0f") -> str:
    return _span(name, form=form, scale=100, unit=" %")


def _caches() -> str:
    parts = []
    arms = [arm for arm in soar.caches()["llada"]["arms"] if arm["cache"]]
    for prompts in sorted({arm["prompts"] for arm in arms}, reverse=True):
        own = [arm for arm in arms if arm["prompts"] == prompts]
        told = ", ".join(f"{arm['cache']} {arm['faster']:.1f}x" for arm in own)
        runs = max(len(arm["seconds"]) for arm in own)
        parts.append(f"{prompts} prompt{'s' * (prompts > 1)}: {told} (runs timed: {runs})")
    return "; ".join(parts)


def update(page: str) -> str:
    """README.md with every computed cell in place. ValueError if a row is not there."""
    lines = page.split("\n")
    for number, text in finds().items():
        _put(lines, f"[{number} ", -2, text)
    for path in find_notebooks():
        took = [_baseline(path.stem, device).get("seconds") for device in ("cpu", "cuda")]
        seconds = " / ".join("-" if one is None else f"{one:.0f}" for one in took)
        _put(lines, f"[{path.stem.split('_')[0]} ", 3, seconds)
    for what, text in speed().items():
        _put(lines, what, 2, text)
    return "\n".join(lines)


def _put(lines: list[str], row: str, column: int, text: str) -> None:
    """``row``: its first cell, or of a notebook's the beginning, which is a link."""
    for index, line in enumerate(lines):
        cells = line.split("|")
        first = cells[1].strip() if len(cells) > 3 else ""
        if first == row or (row.startswith("[") and first.startswith(row)):
            cells[column] = f" {text} "
            lines[index] = "|".join(cells)
            return
    raise ValueError(f"README.md has no row for {text!r}")


def main(argv: list[str] | None = None) -> None:
    """Print the computed cells, or write them into README.md."""
    parser = argparse.ArgumentParser(prog="labkit.studies.readme", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put them into README.md")
    if parser.parse_args(argv).write:
        page = update(README.read_text())
        write_atomic(README, lambda part: part.write_text(page))
    for what, text in {**finds(), **speed()}.items():
        print(f"{what}: {text}")


if __name__ == "__main__":
    main()
