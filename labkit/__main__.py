"""The command line: ``labkit run`` executes notebooks, ``labkit report`` writes their page again.

Exit codes: 0 all fine, 1 a notebook failed, 2 bad usage.
"""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from labkit.presets import parse_overrides

console = Console()


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="labkit", description="Notebooks in batch, with one report.")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks headless and write runs/latest/report.html")
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="file, name or number; default: all")
    run.add_argument("--preset", default="smoke", help="smoke, full or a YAML file (default: smoke)")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="overrides"
    )
    run.add_argument("--jobs", type=int, default=1, help="notebooks at a time (default: 1)")
    run.add_argument("--timeout", type=float, default=1800, help="seconds for one notebook (default: 1800)")
    report = commands.add_parser("report", help="write report.html of a finished run again")
    report.add_argument("folder", help="the run's folder, for instance runs/latest")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is one line on stderr and exit code 2."""
    arguments = parser().parse_args(argv)
    try:
        return _report(arguments) if arguments.command == "report" else _run(arguments)
    except ValueError as error:
        print(f"labkit {arguments.command}: {error}", file=sys.stderr)
        return 2


def _report(arguments: argparse.Namespace) -> int:
    from labkit.report import write_report

    console.print(str(write_report(arguments.folder)), soft_wrap=True)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from labkit.checks import integer, number
    from labkit.runs import run

    integer("--jobs", arguments.jobs, 1)
    number("--timeout", arguments.timeout, 1)
    folder, runs = run(
        arguments.notebooks,
        arguments.preset,
        parse_overrides(arguments.overrides),
        arguments.jobs,
        arguments.timeout,
    )
    table = Table("notebook", "result", "seconds", "metrics", box=None)
    for item in runs:
        result = "[green]ok[/]" if item.ok else f"[red]FAILED[/] {item.error}"
        table.add_row(item.notebook, result, f"{item.seconds:.1f}", str(len(item.metrics)))
    console.print(table)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return 0 if all(item.ok for item in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
