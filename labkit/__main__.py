"""The command line of the lab.

labkit run       execute notebooks headless, compare with baselines, write runs/latest/report.html
labkit train     pre-train ELAS or its baselines, or fine-tune by FGO, from the shell
labkit sweep     one notebook over a grid of parameters, on this machine or a dask cluster
labkit report    write report.html of a finished run again
labkit compare   two runs, metric by metric
labkit baseline  accept the metrics of a run as the new baselines, after showing what moves

Exit codes: 0 all fine, 1 a notebook failed, 2 bad usage, 3 a metric is off its baseline, 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP (the terminal was closed).
"""

import argparse
import contextlib
import errno
import re
import signal
import sys
from dataclasses import asdict
from importlib import import_module

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labkit.runner.processes import interrupted_by_signals
from labkit.yaml_values import parse_overrides

console = Console(markup=False, emoji=False)  # names, units, paths and errors are printed as they are
TRAINERS = {"elas": "pre-train a low-rank LLaMA", "fgo": "compress the chain-of-thought of a causal LM"}


def parser() -> argparse.ArgumentParser:
    """All commands and their options, but the trainers': they read their own (labkit.options)."""
    top = argparse.ArgumentParser(
        prog="labkit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help="labkit COMMAND --help lists its options"
    )

    run = commands.add_parser("run")
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="file, name or number; default: all")
    run.add_argument("--preset", default="smoke", help="smoke, full or a YAML file (default: smoke)")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="overrides",
        help="set one parameter; the value is read as YAML",
    )  # fmt: skip
    run.add_argument("--jobs", type=int, default=1, help="notebooks at a time (default: 1)")
    run.add_argument(
        "--timeout",
        type=float,
        default=1800,
        help="seconds for one notebook, all its cells (default: 1800)",
    )
    run.add_argument(
        "--resume", action="store_true", help="keep executions that already finished unchanged"
    )
    run.set_defaults(call=_run)

    trainers = commands.add_parser("train").add_subparsers(dest="algorithm", required=True)
    for name, purpose in TRAINERS.items():
        trainers.add_parser(name, help=purpose)

    sweep = commands.add_parser("sweep")
    sweep.add_argument("notebook", metavar="NOTEBOOK")
    sweep.add_argument(
        "--grid", required=True, help="YAML: parameter -> list, {from, to, count[, log]}, {seeds}"
    )
    sweep.add_argument("--preset", default="smoke", help="the parameters that stay (default: smoke)")
    sweep.add_argument(
        "--jobs", type=int, help="local worker processes (default: one per CUDA device, 2 without)"
    )
    sweep.add_argument(
        "--scheduler",
        help="a running dask scheduler, tcp://host:port; its workers choose their own devices",
    )
    sweep.add_argument(
        "--timeout", type=float, default=1800, help="seconds for one point, all its cells (default: 1800)"
    )
    sweep.set_defaults(call=_sweep)

    report = commands.add_parser("report")
    report.add_argument("folder", help="the run's folder, for instance runs/latest")
    report.set_defaults(call=_report)

    compare = commands.add_parser("compare")
    compare.add_argument("run_a")
    compare.add_argument("run_b")
    compare.set_defaults(call=_compare)

    actions = commands.add_parser("baseline")
    actions = actions.add_subparsers(required=True, metavar="update")
    update = actions.add_parser("update", help="show what moves, ask, write")
    update.add_argument("folder", nargs="?", help="the run (default: runs/latest)")
    update.add_argument(
        "--seeds",
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs with other seeds, on other Pythons too: they set new tolerances",
    )
    update.add_argument("--yes", action="store_true", help="do not ask")
    update.set_defaults(call=_baseline)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input or an unusable folder is one line on stderr and exit code 2."""
    argv = _with_negatives(sys.argv[1:] if argv is None else argv)
    training = argv[:1] == ["train"] and argv[1:2] and argv[1] in TRAINERS
    arguments = argparse.Namespace(command="train") if training else parser().parse_args(argv)
    try:
        with interrupted_by_signals():
            if training:
                return import_module(f"labkit.{argv[1]}.cli").main(argv[2:])
            return arguments.call(arguments)
    except (ValueError, OSError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        advice = "; free some and repeat: sweep and run --resume keep what finished" if full else ""
        print(f"labkit {arguments.command}: {error}{advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"labkit {arguments.command}: {how}", file=sys.stderr)
        return 128 + number


def _with_negatives(argv: list[str]) -> list[str]:
    """``argv`` with a blank before the -1e-3 or -.inf of `-p NAME -1e-3`: argparse takes it for an option.

    YAML drops the blank.
    """
    number = re.compile(r"-\.?(\d|inf)")
    return [
        f" {word}" if i > 1 and argv[i - 2] == "-p" and number.match(word) else word
        for i, word in enumerate(argv)
    ]


def _run(arguments: argparse.Namespace) -> int:
    from labkit.runner import baselines
    from labkit.runner.runs import run

    overrides = parse_overrides(arguments.overrides)
    folder, runs = run(
        arguments.notebooks,
        arguments.preset,
        overrides,
        arguments.jobs,
        arguments.timeout,
        arguments.resume,
    )
    off = {item.notebook: baselines.off(asdict(item)) for item in runs}
    table = Table("notebook", "result", "seconds", "metrics", "GPU GiB, at most", box=None)
    for item in runs:
        memory = f"{item.gpu_memory / 1024:.1f}" if item.gpu_memory else "-"
        result = Text("ok", "green") if item.ok else Text.assemble(("FAILED", "red"), f" {item.error}")
        if off[item.notebook]:
            result = Text.assemble(("off baseline", "red"), f", {len(off[item.notebook])} of its metrics")
        table.add_row(item.notebook, result, f"{item.seconds:.1f}", str(len(item.metrics)), memory)
    console.print(table)
    for notebook, lines in off.items():
        for line in lines:
            console.print(f"{notebook}: {line}", soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    if not all(item.ok for item in runs):
        return 1
    if any(off.values()):
        console.print(f"if this is meant: labkit baseline update {folder}", soft_wrap=True)
        return 3
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from labkit.runner.sweep import read_grid, sweep

    grid = read_grid(arguments.grid)
    where = arguments.jobs, arguments.scheduler
    folder, rows = sweep(arguments.notebook, grid, arguments.preset, *where, arguments.timeout)
    failed = int((rows["error"] != "").sum())
    console.print(rows.to_string(max_rows=40), soft_wrap=True)
    console.print(f"{len(rows) - failed} of {len(rows)} points ok: {folder / 'sweep.csv'}", soft_wrap=True)
    return 1 if failed else 0


def _report(arguments: argparse.Namespace) -> int:
    from labkit.runner.report import write_report

    console.print(str(write_report(arguments.folder)), soft_wrap=True)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from labkit.runner.compare import compare_runs, compare_settings

    rows = compare_runs(arguments.run_a, arguments.run_b)
    for side, words in zip("AB", compare_settings(arguments.run_a, arguments.run_b), strict=True):
        if words:
            console.print(f"{side} ran on {words}", soft_wrap=True)
    table = Table("notebook", "metric", "A", "B", "B - A", box=None)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return 0


def _baseline(arguments: argparse.Namespace) -> int:
    from labkit.paths import runs_dir
    from labkit.runner.compare import accept, proposals

    changes, rows = proposals(arguments.folder or runs_dir() / "latest", arguments.seeds)
    table = Table("baseline", "metric", "was", "becomes", "allowed move", box=None)
    for row in rows:
        table.add_row(*row)
    console.print(table if rows else "nothing moves")
    if rows and not arguments.yes and not _agreed("accept these baselines? [y/N] "):
        console.print("nothing was changed")
        return 0
    accept(changes)
    return 0


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() == "y"
    except EOFError:  # nobody to ask
        return False


if __name__ == "__main__":
    sys.exit(main())
