"""run_panel: parameters, Run, progress, Stop, the preset to take away, and who made the number.

Run works in a thread, so the notebook stays usable; Stop raises Stopped out of the work's next progress
call, so the work really ends there.
"""

import html
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import ipywidgets
from IPython.core.formatters import format_display_data
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit import checks
from labkit.notebooks import find_notebooks
from labkit.progress import Stopped
from labkit.traces import TrainTrace
from labkit.widgets.base import OwnKeys, alert, close, headless, present, show
from labkit.widgets.export import Instrument
from labkit.widgets.job import Job
from labkit.widgets.take_away import CopyText, preset, strip

PERIOD = 0.1  # seconds between two updates of the bar
GROW = 0.5  # and between two pictures of a training under way


class RunPanel(ipywidgets.VBox):
    """The live panel; ``run_panel`` makes it. ``start()`` and ``stop()`` are what its buttons call.

    It is the progress of its runs (labkit.progress): called with counts, ``rows`` takes a training's log.
    """

    def __init__(self, run: Callable, draw: Callable, notebook: Path, controls: Mapping, result: object):
        self._work, self._draw, self._notebook, self._inputs = run, draw, notebook, dict(controls)
        self._job, self._told, self._drew = Job(), 0.0, 0.0
        self._rows: list[dict[str, float]] = []  # what the training under way has logged
        self._run = ipywidgets.Button(description="Run", icon="play", button_style="primary")
        self._stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self._bar = ipywidgets.FloatProgress(0.0, min=0, max=1, layout={"width": "220px"})
        self._state = ipywidgets.HTML()
        self._problem, self._picture = ipywidgets.HTML(), ipywidgets.VBox()
        self._copy, self._strip = CopyText(), ipywidgets.HTML()
        self._run.on_click(lambda _: self.start())
        self._stop.on_click(lambda _: self.stop())
        flow = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 18px"}
        inputs = ipywidgets.Box(list(controls.values()), layout=flow)
        inputs.add_class("labkit-explicit")  # moving one of these alone changes no picture
        super().__init__([
            inputs,
            ipywidgets.Box([self._run, self._stop, self._bar, self._state], layout=flow),
            self._problem, self._picture, self._copy, self._strip, OwnKeys(),
        ])  # fmt: skip
        for control in controls.values():
            control.observe(self._describe, "value")
            if hasattr(control, "style"):
                control.style.description_width = "initial"  # no name is cut
        self._describe()
        self._strip.value = strip(self.values)
        self._figures: list[Figure] = []  # the picture, where matplotlib made it
        self._drawn = self.values  # what the picture was made with
        if result is not None:
            self._show(result, {})  # made before: the controls may stand elsewhere

    @property
    def values(self) -> dict[str, object]:
        """Every parameter's value as it stands in the panel, as plain YAML knows it."""
        return {name: _plain(control.value) for name, control in self._inputs.items()}

    @property
    def instrument(self) -> Instrument | None:
        """The instrument that draws the result, if one does."""
        return next((one for one in self._picture.children if isinstance(one, Instrument)), None)

    def still(self) -> list[object]:
        """The result, as it stands, without controls."""
        return self.instrument.still() if self.instrument else list(self._figures)

    def start(self) -> None:
        """Run with the values as they are now; a run that is under way goes on instead."""
        if self._job.running:
            return
        self._problem.value = ""
        self._busy(True, "starting …")
        self._rows = []
        self._bar.value, self._bar.bar_style = 0, ""
        self._values, self._began = values, began = self.values, time.perf_counter()
        self._job.start(
            lambda: self._work(**values, progress=self),
            lambda made: self._finish(made, values, time.perf_counter() - began),
        )

    def stop(self) -> None:
        """Ask the run to end; it does at its next step."""
        self._job.stop()
        self._state.value = "stopping at the next step …"

    def close(self) -> None:
        self._job.stop()
        super().close()

    def __call__(self, done: int, total: int | None) -> None:
        """In the work's thread: how far it is. Stopped once someone stopped it."""
        self._job.check(f"{done} of {total or '?'} steps")
        now = time.perf_counter()
        if now - self._told < PERIOD and done != total:
            return
        self._told, spent = now, now - self._began
        rest = f", about {spent / done * (total - done):.0f} s left" if done and total else ""
        self._bar.value = done / total if total else 0
        self._state.value = f"{done} of {total or '?'} steps, {spent:.0f} s{rest}"

    def rows(self, rows: list[dict]) -> None:
        """In the work's thread: what a training has logged so far."""
        now, grow = time.perf_counter(), getattr(self._draw, "grow", None)
        if grow is None or now - self._drew < GROW:
            return
        self._drew = now
        self._rows = [{key: float(v) for key, v in row.items() if hasattr(v, "__float__")} for row in rows]
        if self._rows:
            trace = TrainTrace.from_log(self._rows, meta={"settings": self._values})
            self._job.hand_over(lambda: self._place(grow(trace)))

    def _finish(self, outcome: object, values: dict, seconds: float) -> None:
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self._show(outcome, values)
            self._drawn = values
            self._bar.value, self._bar.bar_style = 1, "success"
            self._busy(False, f"done in {seconds:.1f} s")
            self._strip.value = strip(values, seconds)
        except Stopped as word:
            self._bar.bar_style = "warning"
            if self._rows:  # what a stopped training has learned is not thrown away
                self._show(TrainTrace.from_log(self._rows, meta={"stopped": str(word)}), values)
                self._drawn = values
            kept = "its curves are kept" if self._rows else "the picture is that of the last finished run"
            self._busy(False, f"{word}; {kept}")
        except BaseException as error:
            self._bar.bar_style = "danger"
            self._problem.value = alert(error)
            self._busy(False, "failed")

    def _show(self, result: object, values: dict) -> None:
        """Put what ``draw`` made of the result in the place of the former picture."""
        if isinstance(result, TrainTrace):  # what tells it from the other runs of this panel
            known = {key: result.meta[key] for key in self._inputs if key in result.meta}
            result = replace(result, meta=result.meta | {"settings": values | known})
        self._place(self._draw(result))

    def _place(self, picture: object) -> None:
        if picture in self._picture.children:
            return  # it has changed in its place
        self._figures = [picture] if isinstance(picture, Figure) else []
        if not isinstance(picture, ipywidgets.Widget):
            picture = _static(picture)
        former, self._picture.children = self._picture.children, [picture]
        for widget in former:
            close(widget)

    def _busy(self, now: bool, words: str) -> None:
        self._run.disabled, self._stop.disabled = now, not now
        self._state.value = html.escape(words)

    def _describe(self, change: object = None) -> None:
        """A control moved: say that the picture is not of these values, and write the preset again."""
        if change and not self._run.disabled:
            self._state.value = "changed: press Run" if self.values != self._drawn else ""
        try:
            self._copy.preset, self._copy.command = preset(self._notebook, self.values)
            self._copy.problem = ""
        except ValueError as error:
            self._copy.problem = str(error)


def run_panel(
    run: Callable[..., object],
    draw: Callable[[object], object],
    *,
    notebook: str | Path,
    result: object = None,
    name: str = "run panel",
    **parameters: ipywidgets.Widget,
) -> RunPanel | None:
    """Show controls, Run, progress and Stop over ``draw(run(**values))``; headless, picture and text.

    run         takes the parameters and ``progress``, a function it calls as progress(done, total); the
                call raises Stopped when Stop was pressed, and ``run`` lets it pass
    draw        result -> matplotlib or plotly figure, anything that can be displayed, or live a widget;
                with a method ``grow`` (``Comparison``) also of a training under way
    notebook    stem, number or path of the notebook whose preset the panel writes
    result      what to draw before the first Run; headless it is drawn instead of a run
    name        unique in its cell; running the cell again stops and replaces the panel of that name
    parameters  ipywidgets with a ``value``, keyed by the notebook's parameter they feed

    ValueError if ``run`` takes no ``progress``, or a key is no parameter of the notebook.
    """
    accepted = inspect.signature(run).parameters.values()
    if not any(p.name == "progress" or p.kind is p.VAR_KEYWORD for p in accepted):
        checks.fail("run", getattr(run, "__name__", run), "a function that takes progress=")
    path = find_notebooks([str(notebook)])[0]
    values = {key: _plain(control.value) for key, control in parameters.items()}
    text = preset(path, values)

    if headless():
        show(draw(run(**values, progress=False) if result is None else result))
        print("The same from a shell:", text[1], sep="\n")
        return None
    return present(lambda: RunPanel(run, draw, path, parameters, result), name=name)


def _static(figure: object) -> ipywidgets.Output:
    """An Output that holds one figure. (Its own capture would take other cells' output too.)"""
    if hasattr(figure, "_repr_mimebundle_"):  # plotly's other way displays by itself, somewhere
        data, metadata = figure._repr_mimebundle_(), {}
    else:
        data, metadata = format_display_data(figure)
    if isinstance(figure, Figure):
        pyplot.close(figure)
    shown = {"output_type": "display_data", "data": data, "metadata": metadata}
    return ipywidgets.Output(outputs=(shown,))


def _plain(value: object) -> object:
    """A widget's value as YAML writes it: tuples of multiple choices become lists, numpy numbers plain."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value
