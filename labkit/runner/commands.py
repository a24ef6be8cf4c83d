"""What each command of ``labkit`` does and prints, given its parsed options; returns the exit code."""

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from labkit.checks import visible
from labkit.yaml_values import parse_overrides

MOVED = 3  # metrics that `labkit run` names of those that are within their baselines


class _Console(Console):
    def on_broken_pipe(self) -> None:  # rich would exit with 1, which says that a notebook failed
        raise


console = _Console(markup=False, emoji=False)  # names, units, paths and errors are printed as they are


def _line(text: object, style: str = "") -> None:
    console.print(visible(str(text)), style=style, soft_wrap=True)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    table = Table(*(Column(name, overflow="fold") for name in columns), box=None)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else visible(cell) for cell in row))
    console.print(table)


def describe(options: Namespace) -> int:
    """labkit list"""
    from labkit.notebooks import describe, find_notebooks

    found = [describe(path) for path in find_notebooks(options.notebooks)]
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for one in found:
        _line(f"\n{one['notebook']}: {one['title']}", "bold")
        _table(("parameter", "type", "default", "meaning"), (p.values() for p in one["parameters"]))
    return 0


def copy(options: Namespace) -> int:
    """labkit notebooks"""
    from labkit.notebooks import copy_notebooks

    for path in copy_notebooks(Path(options.folder)):
        _line(path)
    return 0


def run(options: Namespace) -> int:
    """labkit run"""
    from labkit.runner.baselines import metric_rows, off
    from labkit.runner.report import moved
    from labkit.runner.runs import run

    overrides = parse_overrides(options.overrides)
    how = options.jobs, options.timeout, options.resume
    folder, runs = run(options.notebooks, options.preset, overrides, *how)
    facts = {item.notebook: asdict(item) for item in runs}
    lines = {notebook: off(item) for notebook, item in facts.items()}
    rows = []
    for item in runs:
        memory = f"{item.gpu_memory / 1024:.1f}" if item.gpu_memory else "-"
        failed = Text.assemble(("FAILED", "red"), f" {visible(item.error)}")
        result = Text("ok", "green") if item.ok else failed
        if lines[item.notebook]:
            result = Text.assemble(("off baseline", "red"), f", {len(lines[item.notebook])} of its metrics")
        counted = Counter(item.verdicts.values()) or {"no baseline": len(item.metrics)}
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counted.items())
        rows.append((item.notebook, result, f"{item.seconds:.1f}", verdicts, memory))
    _table(("notebook", "result", "seconds", "metrics", "GPU GiB, at most"), rows)
    for notebook, told in lines.items():
        for line in told:
            _line(f"{notebook}: {line}")
    sections = [{"notebook": name, "rows": metric_rows(item)} for name, item in facts.items()]
    near = [
        (row["notebook"], row["name"], row["value"], row["baseline"], f"{row['share']:.0%}")
        for row in moved(sections, MOVED) if row["verdict"] == "ok"
    ]  # fmt: skip
    if near:
        _line("\nwithin their baselines, but moved most of what they may:")
        _table(("notebook", "metric", "value", "baseline", "of the allowed"), near)
    _line(f"report: {folder / 'report.html'}")
    if not all(item.ok for item in runs):
        return 1
    if any(lines.values()):
        _line(f"if this is meant: labkit baseline update {folder}")
        return 3
    return 0


def sweep(options: Namespace) -> int:
    """labkit sweep"""
    from labkit.runner.sweep import read_grid, sweep

    grid = read_grid(options.grid)
    where = options.jobs, options.scheduler
    folder, rows = sweep(options.notebook, grid, options.preset, *where, options.timeout)
    failed = int((rows["error"] != "").sum())
    _line(rows.to_string(max_rows=40))
    _line(f"{len(rows) - failed} of {len(rows)} points ok: {folder / 'sweep.csv'}")
    return 1 if failed else 0


def report(options: Namespace) -> int:
    """labkit report"""
    from labkit.runner.report import write_report

    _line(write_report(options.folder))
    return 0


def site(options: Namespace) -> int:
    """labkit site"""
    from labkit.paths import runs_dir
    from labkit.runner.site import write_site

    _line(write_site(options.folder or runs_dir() / "latest"))
    return 0


def compare(options: Namespace) -> int:
    """labkit compare"""
    from labkit.runner.compare import compare_runs, compare_settings

    rows = compare_runs(options.run_a, options.run_b)
    for side, words in zip("AB", compare_settings(options.run_a, options.run_b), strict=True):
        if words:
            _line(f"{side} ran on {words}")
    _table(("notebook", "metric", "A", "B", "B - A"), rows)
    return 0


def update_baselines(options: Namespace) -> int:
    """labkit baseline update"""
    from labkit.paths import runs_dir
    from labkit.runner.compare import accept, proposals

    changes, rows = proposals(options.folder or runs_dir() / "latest", options.seeds)
    if not rows:
        _line("nothing moves")
        return 0
    _table(("baseline", "metric", "was", "becomes", "allowed move"), rows)
    if options.yes or _agreed("accept these baselines? [y/N] "):
        accept(changes)
    else:
        _line("nothing was changed")
    return 0


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() == "y"
    except EOFError:  # nobody to ask
        return False
