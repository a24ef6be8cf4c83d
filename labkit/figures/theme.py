"""One look for every figure: Okabe-Ito categories, cividis magnitudes, titles that state a finding."""

import textwrap
from typing import Any

import matplotlib as mpl
import plotly.graph_objects as go
import plotly.io as pio
from IPython import get_ipython
from IPython.display import display
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.rcsetup import cycler

INK, MUTED, GRID, PAPER = "#1b1f24", "#6b7280", "#e5e7eb", "#ffffff"
# Okabe and Ito (2008): told apart under the common colour-vision deficiencies.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000",
)  # fmt: skip
BROWN = "#a5673f"
VIOLET = "#8c6bb1"
OLIVE = "#8a7a00"  # Okabe and Ito's yellow, dark enough for a line on white
CYCLE = [BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, OLIVE]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]  # never colour alone
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 5))]
MAGNITUDE = "cividis"
FAINT = "rgba(125, 133, 144, 0.3)"
GREY = "#7d8590"  # plotly's black and grey: seen on light and on dark paper
# A plotly figure carries a white sheet and dark text, to be read anywhere. In a notebook this takes the
# sheet away and gives the text the page's colour: JupyterLab's, else that of the report and the site.
PAGE_STYLE = """<style>
.js-plotly-plot .main-svg { background: none !important; }
.js-plotly-plot :is(.gtitle, .legendtext, .annotation-text, g[class$="title"] text, g[class$="tick"] text) {
  fill: var(--jp-content-font-color1, var(--ink, #1b1f24)) !important;
}
</style>"""


def apply() -> None:
    """Set matplotlib's and plotly's defaults; every notebook calls it once after its imports."""
    mpl.rcParams.update({
        "figure.dpi": 110, "savefig.dpi": 110, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
        "figure.constrained_layout.use": True, "font.size": 10, "font.family": "DejaVu Sans",
        "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK,
        "xtick.color": MUTED, "ytick.color": MUTED, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8,
        "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.8,
        "axes.prop_cycle": cycler(color=CYCLE), "image.cmap": MAGNITUDE,
    })  # fmt: skip
    pio.templates["labkit"] = go.layout.Template(
        layout={
            "colorway": CYCLE,
            "font": {"family": "DejaVu Sans, Verdana, sans-serif", "size": 12, "color": INK},
            "title": {"x": 0.01, "xanchor": "left", "font": {"size": 14}},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {"gridcolor": FAINT, "zerolinecolor": FAINT},
            "yaxis": {"gridcolor": FAINT, "zerolinecolor": FAINT},
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
            "margin": {"l": 60, "r": 20, "t": 60, "b": 45},
            "hoverlabel": {"font": {"family": "DejaVu Sans Mono, monospace"}},
        }
    )
    pio.templates.default = "labkit"
    _describe_figures()
    # The mimetype renderer keeps 4.5 MB of plotly.js out of every notebook.
    pio.renderers.default = "plotly_mimetype"
    if get_ipython() is not None:
        display({"text/html": PAGE_STYLE, "text/plain": ""}, raw=True)


def drawable(text: str) -> str:
    """Somebody's text for a figure: $...$ that is a formula stays one, other dollars are drawn as they are.

    Matplotlib would raise when it draws, far from the call that took the text. Half characters, which it
    cannot draw either, are shown as \\udcff.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    if is_math_text(text):
        try:
            MathTextParser("path").parse(text)
            return text
        except ValueError:
            pass
    return text.replace("$", r"\$")


def headline(figure: Figure, text: str) -> None:
    """Write what the figure finds above all its panels."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def plotly_title(figure: go.Figure, text: str, letters: int = 115) -> go.Figure:
    """Give a plotly figure a title of lines of so many ``letters``, and the room they need; the figure."""
    lines = textwrap.wrap(text, letters)
    above = 28 + 20 * len(lines)
    title = {"text": "<br>".join(lines), "y": 1, "yanchor": "top", "yref": "container", "pad_t": 12}
    return figure.update_layout(title=title, margin_t=above)


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the ``index``-th line, as keywords of ``plot``."""
    place = index % len(CYCLE)
    return {"color": CYCLE[place], "marker": MARKERS[place], "linestyle": DASHES[place]}


def caption(figure: Figure, text: str) -> None:
    """Write a small provenance line under the figure (model, seed, card)."""
    figure.supxlabel(text, fontsize=8, color=MUTED, x=0.01, ha="left")


def _describe_figures() -> None:
    """In a notebook, give each matplotlib figure its titles as text: the report's alt text."""
    shell = get_ipython()
    if shell is None:
        return
    if "inline" in mpl.get_backend():
        # When it starts, the inline backend drops whatever is registered for Figure: start it first.
        import matplotlib_inline.backend_inline  # noqa: F401
    plain = shell.display_formatter.formatters["text/plain"]
    plain.for_type(Figure, lambda figure, printer, cycle: printer.text(describe(figure)))


def describe(figure: Figure) -> str:
    """The word Figure and every title in it, in reading order."""
    titles = [figure.get_suptitle()]
    for axes in figure.axes:
        titles += [axes.get_title(side) for side in ("left", "center", "right")]
    return "Figure: " + "; ".join(" ".join(title.split()) for title in titles if title).replace(r"\$", "$")
