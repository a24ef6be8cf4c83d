"""What every live widget shares: a static twin when headless, visible errors, nothing left by re-runs.

present   a widget or, headless, its static twin; running the cell again closes the previous widget
explore   a figure redrawn by controls
static    styles of static/ as text (labkit.widgets.esm: scripts): part of the widget, nothing is fetched
"""

import html
import os
import threading
import traceback
from collections.abc import Callable
from importlib.resources import files

import anywidget
import ipywidgets
from IPython import get_ipython
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure

from labkit.widgets.esm import esm

_drawing = threading.RLock()  # held while a callback, in a thread of its own, has a figure in hand
_open: dict[str, ipywidgets.Widget] = {}  # panel name -> the panel now shown, closed on re-run


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
    """The last lines of a traceback: what a panel shows in place of a picture."""
    return "".join(traceback.format_exception_only(error)).strip()


def alert(error: BaseException) -> str:
    """``error_text`` as HTML that stands out and that a screen reader announces."""
    text = html.escape(error_text(error))
    return f"<pre role='alert' style='color:#b00020;white-space:pre-wrap'>{text}</pre>"


def present(
    build: Callable[[], ipywidgets.Widget], twin: Callable[[], None], *, name: str
) -> ipywidgets.Widget | None:
    """Display the widget that ``build()`` makes and return it; headless call ``twin()`` instead.

    twin   shows figures and text that say the same without a browser
    name   unique in the notebook; running the cell again closes the widget of that name first

    In a cell keep what is returned (``grid = mask_grid(...)``): as a last line it would show twice.
    """
    if headless():
        twin()
        return None
    if previous := _open.pop(name, None):
        close(previous)
    widget = _open[name] = build()
    display(widget)
    return widget


def explore(draw: Callable[..., object], *, name: str, **controls: ipywidgets.Widget) -> None:
    """Show ``controls`` above ``draw(**values)`` and redraw whenever a value changes.

    draw      cheap function of the control values that returns a matplotlib or plotly figure
    name      unique in the notebook; running the cell again replaces the panel of that name
    controls  ipywidgets with a ``value``, keyed by the argument of ``draw`` they feed

    Headless, the figure at the initial values is shown (the static twin) and errors raise; live,
    an error appears in red in the panel and the controls stay usable.
    """
    present(
        lambda: _panel(draw, controls),
        lambda: show(draw(**{key: control.value for key, control in controls.items()})),
        name=name,
    )


class OwnKeys(anywidget.AnyWidget):
    """Invisible child of a box: keys pressed in the box stay there.

    JupyterLab takes arrows and letters as notebook shortcuts also when a dropdown has the focus, so that
    no keyboard could move it.
    """

    _esm = esm("own_keys.js")


def _panel(draw: Callable[..., object], controls: dict[str, ipywidgets.Widget]) -> ipywidgets.VBox:
    picture, problem = ipywidgets.Output(), ipywidgets.HTML()

    def redraw(_change=None):
        with _drawing:
            try:
                figure = draw(**{key: control.value for key, control in controls.items()})
            except Exception as error:
                problem.value = alert(error)
                return
            problem.value = ""
            with picture:
                picture.clear_output(wait=True)
                show(figure)

    _flush_in_turn()
    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), problem, picture, OwnKeys()])


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
