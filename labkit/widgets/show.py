"""labkit show: a trace, the logs of a training or a kernel bench as one page that needs no Python."""

from argparse import Namespace
from pathlib import Path

import numpy as np
from traitlets import TraitError

from labkit import checks
from labkit.figures import theme
from labkit.figures.roofline import roofline
from labkit.paths import write_page
from labkit.reading import read_json
from labkit.traces import BeamTrace, GroupTrace, MaskTrace, Trace, TrainTrace
from labkit.widgets.beam_tree import BeamTree
from labkit.widgets.curve_pack import Traces, panels_of, runs_of
from labkit.widgets.export import Instrument
from labkit.widgets.logs import KINDS, read_logs
from labkit.widgets.mask_grid import MaskGrid
from labkit.widgets.scrubber import Scrubber

BOARDS = (4, 9)  # sides of a Sudoku


def show(options: Namespace) -> int:
    """Write the page of ``options.trace`` to ``options.output`` and print where it is; 0."""
    source = Path(options.trace)
    if not source.exists():
        checks.fail("TRACE_OR_FOLDER", options.trace, "a file or folder that exists")
    if source.is_dir() and len(traces := sorted(source.glob("*.npz"))) == 1:
        source = traces[0]
    output = Path(options.output) if options.output else _page_of(source)
    if output.exists() and output.samefile(source):
        checks.fail("-o", str(output), "another file than the trace")
    theme.apply()
    try:
        if source.suffix == ".json":
            from sparse24 import compare  # late: it loads torch, which no instrument needs

            found = read_json(source, "TRACE_OR_FOLDER")
            if not isinstance(found, dict) or "rows" not in found:  # result.json, for instance
                allowed = f"a .npz trace, the JSON of `make bench` or, of a run, {KINDS}"
                checks.fail("TRACE_OR_FOLDER", str(source), allowed)
            bench = compare.checked(found, source, "TRACE_OR_FOLDER")
            print(write_page(output, roofline(bench).to_html()))
        else:
            print(instrument(source, options.prompt).export(output))
    except (LookupError, TypeError, AttributeError, ArithmeticError, TraitError) as error:
        # whole as a file, but an index or a fact in it leads nowhere
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"TRACE_OR_FOLDER must hold a whole trace; {source} does not ({problem})"
        ) from None
    return 0


def _page_of(source: Path) -> Path:
    """TRACE.html beside a trace or a folder; the dot in a folder's name, as in lr0.01, begins no ending."""
    whole = source.resolve()
    if not whole.name:
        checks.fail("TRACE_OR_FOLDER", str(source), "a file or a folder with a name, or with -o")
    if source.is_dir():
        return (source if source.name not in ("", "..") else whole).with_name(f"{whole.name}.html")
    return source.with_suffix(".html")


def instrument(source: Path, prompt: int = 0) -> Instrument:
    """What shows the trace in a file, or the logs in a folder. ValueError if there is none."""
    if source.is_dir():
        return _curves(read_logs(source), source, source.resolve().name)
    trace = Trace.load(source)
    if isinstance(trace, MaskTrace):
        return MaskGrid({"": trace})
    if isinstance(trace, BeamTrace):
        return BeamTree(trace, None, prompt=prompt, side=_side(trace))
    if isinstance(trace, TrainTrace | GroupTrace):
        return _curves(trace, source)
    checks.fail("TRACE_OR_FOLDER", type(trace).__name__, "a trace of masks, a decode, groups or a training")


def _curves(traces: Traces, source: Path, title: str = "") -> Scrubber:
    try:
        runs = runs_of(traces)
        panels = panels_of([trace for *_, trace in runs], None)
    except ValueError as error:
        raise ValueError(f"TRACE_OR_FOLDER must hold logged steps; {source} does not ({error})") from None
    last = max(int(trace.step[-1]) for *_, trace in runs)
    unit = "question" if isinstance(traces, GroupTrace) else "step"
    return Scrubber(runs, panels, step=last, title=title, unit=unit)


def _side(trace: BeamTrace) -> int | None:
    """The side of the board, if the decode is of a Sudoku: n x n cells of the digits 1 to n, 0 masked."""
    length = trace.sequences.shape[1]
    for side in BOARDS:
        digits = np.unique(trace.sequences)
        if length == side**2 and trace.meta["mask_id"] == 0 and set(digits) <= set(range(1, side + 1)):
            return side
    return None
