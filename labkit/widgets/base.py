"""explore: a figure redrawn by controls, with visible errors, a static twin and no leaks on re-run."""

import html
import os
import traceback
from collections.abc import Callable

import ipywidgets
from IPython.display import display
from matplotlib import pyplot

_open: dict[str, ipywidgets.Widget] = {}  # panel name -> the panel now shown, closed on re-run


def headless() -> bool:
    """True when papermill or nbval runs the notebook ($LABKIT_HEADLESS=1)."""
    return os.environ.get("LABKIT_HEADLESS") == "1"


def show(figure: object) -> None:
    """Display one figure and release it, so that no cell shows it twice."""
    display(figure)
    if hasattr(figure, "canvas"):
        pyplot.close(figure)


def explore(draw: Callable[..., object], *, name: str, **controls: ipywidgets.Widget) -> None:
    """Show ``controls`` above ``draw(**values)`` and redraw whenever a value changes.

    draw      cheap function of the control values that returns a matplotlib or plotly figure
    name      unique in the notebook; running the cell again replaces the panel of that name
    controls  ipywidgets with a ``value``, keyed by the argument of ``draw`` they feed

    Headless, the figure at the initial values is shown (the static twin) and errors raise; live,
    an error appears in red in the panel and the controls stay usable.
    """
    if headless():
        show(draw(**{key: control.value for key, control in controls.items()}))
        return
    if previous := _open.pop(name, None):
        _close(previous)
    picture, problem = ipywidgets.Output(), ipywidgets.HTML()

    def redraw(_change=None):
        try:
            figure = draw(**{key: control.value for key, control in controls.items()})
        except Exception as error:
            text = html.escape("".join(traceback.format_exception_only(error)))
            problem.value = f"<pre role='alert' style='color:#b00020;white-space:pre-wrap'>{text}</pre>"
            return
        problem.value = ""
        with picture:
            picture.clear_output(wait=True)
            show(figure)

    for control in controls.values():
        control.observe(redraw, "value")
    panel = ipywidgets.VBox([*controls.values(), problem, picture])
    _open[name] = panel
    redraw()
    display(panel)


def _close(widget: ipywidgets.Widget) -> None:
    """Close a panel with all it holds; layout and style are widgets of their own."""
    for child in getattr(widget, "children", ()):
        _close(child)
    for name in ("layout", "style"):
        if isinstance(part := getattr(widget, name, None), ipywidgets.Widget):
            part.close()
    widget.close()
