"""What every live widget shares: a twin that needs no kernel, visible errors, nothing left by re-runs.

present   a widget and its twin (headless: the twin alone); a re-run closes the previous widget
explore   a figure redrawn by controls
static    styles of static/ as text (labkit.widgets.esm: scripts): part of the widget, nothing is fetched
"""

import html
import os
import threading
import traceback
import uuid
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.widgets.esm import esm
from labkit.widgets.export import NOTEBOOK, UNTRUSTED, Instrument, Picture, picture, quick, twin

STILL = f"Moving the controls of this picture {NOTEBOOK}"
_drawing = threading.RLock()  # held while a callback, in a thread of its own, has a figure in hand
_open: dict[tuple[str, str], ipywidgets.Widget] = {}  # (cell, name) -> the panel, closed on re-run


def headless() -> bool:
    """True when papermill or nbval runs the notebook ($LABKIT_HEADLESS=1)."""
    return os.environ.get("LABKIT_HEADLESS") == "1"


def show(figure: object) -> None:
    """Display one figure and release it, so that no cell shows it twice."""
    display(figure)
    if isinstance(figure, Figure):
        pyplot.close(figure)


def static(*names: str) -> str:
    """The files ``names`` of labkit/widgets/static, one after the other (a shared style goes first)."""
    folder = files("labkit.widgets") / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def error_text(error: BaseException) -> str:
    """What a panel shows in place of a picture: what was wrong with a value, or a traceback's end."""
    if isinstance(error, ValueError) and str(error):
        return str(error)  # it names the field, what was given and what is allowed
    return "".join(traceback.format_exception_only(error)).strip()


def alert(error: BaseException) -> str:
    """``error_text`` as HTML that stands out and that a screen reader announces."""
    text = html.escape(error_text(error))
    return f"<pre role='alert' style='color:#b00020;white-space:pre-wrap'>{text}</pre>"


def present(build: Callable[[], Any], *, name: str) -> Any:
    """Display the widget that ``build()`` makes and, for when there is no kernel, its twin.

    build  its widget has ``instrument`` (an ``Instrument`` or None) and ``still()``: figures and HTML
    name   unique in its cell; running the cell again closes the widget of that name first

    The twin is the page of the widget's instrument, if it has one, over its pictures; the live widget hides
    it. Headless there is only the twin, and None is returned.
    In a cell keep what is returned (``grid = mask_grid(...)``): as a last line it would show twice.
    """
    place = (_cell(), name)
    if previous := _open.pop(place, None):
        close(previous)
    widget = build()
    key = f"labkit-{uuid.uuid4().hex}"
    parts = [_still(one) for one in widget.still()]
    if parts or widget.instrument:
        display(twin(key, parts, widget.instrument, widget=not headless()), raw=True)
    if headless():
        close(widget)
        return None
    _open[place] = widget
    for part in (widget, *getattr(widget, "children", ())):
        if part.has_trait("twin"):
            part.twin = key
    display(widget)
    return widget


def _cell() -> str:
    """Which cell runs: panels of one name in two cells are two. Empty where the frontend does not say."""
    ask: Callable[[], dict[str, Any]] = getattr(get_ipython(), "get_parent", dict)
    return str(ask().get("metadata", {}).get("cellId", ""))


def _still(part: Any) -> Picture | str:
    """A figure as a picture, which is then released; an HTML display object or a text as HTML."""
    if isinstance(part, Figure):
        pyplot.close(part)
        return picture(part)
    return f"<p>{html.escape(part)}</p>" if isinstance(part, str) else part.data


def explore(draw: Callable[..., object], *, name: str, **controls: ipywidgets.Widget) -> None:
    """Show ``controls`` above ``draw(**values)`` and redraw whenever a value changes.

    draw      cheap function of the control values that returns a matplotlib or plotly figure
    name      unique in its cell; running the cell again replaces the panel of that name
    controls  ipywidgets with a ``value``, keyed by the argument of ``draw`` they feed

    Headless, the figure at the initial values is shown and errors raise; live, an error appears in red
    in the panel and the controls stay usable.
    """
    if headless():
        show(draw(**{key: control.value for key, control in controls.items()}))
        return display(Markdown(STILL))
    present(lambda: Panel(draw, controls), name=name)


class OwnKeys(Instrument):
    """Invisible child of a box: keys pressed in the box stay there, and a dead kernel is told.

    JupyterLab takes arrows and letters as notebook shortcuts also when a dropdown has the focus, so that
    no keyboard could move it.
    """

    _esm = esm("own_keys.js")
    _css = static("instrument.css")


class Panel(ipywidgets.VBox):
    """Controls over a picture that Python draws: without it, the first picture alone."""

    instrument = None

    def __init__(self, draw: Callable[..., object], controls: dict[str, ipywidgets.Widget]):
        self._draw, self._controls = draw, controls
        self._problem, self._image = ipywidgets.HTML(), ipywidgets.HTML()
        self._output = ipywidgets.Output()
        super().__init__([*controls.values(), self._problem, self._image, self._output, OwnKeys()])
        _flush_in_turn()
        for control in controls.values():
            control.observe(self._redraw, "value")
        self._first = self._redraw()

    def __repr__(self) -> str:
        return UNTRUSTED

    def still(self) -> list[object]:
        """The first picture; of a plotly figure, which no page without scripts shows, its title."""
        if isinstance(self._first, Figure):
            return [self._first, STILL]
        title = getattr(getattr(getattr(self._first, "layout", None), "title", None), "text", None)
        return [f"{title} {UNTRUSTED}"] if title else []

    def _redraw(self, _change: object = None) -> object:
        with _drawing:
            try:
                figure = self._draw(**{key: control.value for key, control in self._controls.items()})
            except Exception as error:
                self._problem.value = alert(error)
                return None
            self._problem.value = ""
            if isinstance(figure, Figure):  # an Output would take twice the time
                self._image.value = quick(figure).html()
                pyplot.close(figure)
                return figure
            with self._output:
                self._output.clear_output(wait=True)
                show(figure)
            return figure


def _flush_in_turn() -> None:
    """Make the end of a cell wait for a callback that draws.

    After every cell the inline backend shows and closes all open figures. JupyterLab answers controls
    in a second thread of the kernel, so that could be the half-drawn figure of a panel.
    """
    from matplotlib_inline.backend_inline import flush_figures

    shell = get_ipython()
    if shell is None or flush_figures not in shell.events.callbacks["post_execute"]:
        return

    def flush_in_turn() -> None:
        with _drawing:
            flush_figures()

    shell.events.unregister("post_execute", flush_figures)
    shell.events.register("post_execute", flush_in_turn)


def close(widget: ipywidgets.Widget) -> None:
    """Close a panel with all it holds; layout and style are widgets of their own."""
    for child in getattr(widget, "children", ()):
        close(child)
    for name in ("layout", "style"):
        if isinstance(part := getattr(widget, name, None), ipywidgets.Widget):
            part.close()
    widget.close()
