"""An executed notebook's cells as HTML: prose, folded code, outputs, formulas without a network."""

import html
import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from urllib.parse import quote, unquote

from latex2mathml.converter import convert
from nbconvert.filters import ansi2html, markdown2html

from labkit.light_nbformat import WIDGET, nbformat
from labkit.metrics import MIME as METRIC

PLOTLY = "application/vnd.plotly.v1+json"
INSTRUMENT = 'class="labkit-twin"'  # in the HTML of labkit.widgets.export.twin
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>|(?<=<h\d) id="[^"]*"')  # the same in every notebook
H1 = re.compile(r"<(/?)h1\b")  # the page has one of its own
LINK = re.compile(r"""<a\b[^>]*?href=["'](?P<to>[^"':#]+)["'][^>]*>(?P<text>.*?)</a>""", re.S)
OVERWRITTEN = re.compile(r"^[^\n]*\r(?!\n)", re.M)  # the earlier states of a progress bar
MATH = re.compile(r"```.*?```|`[^`]*`|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.S)


def cell_html(cell) -> list[str]:
    """HTML parts of one cell: prose, folded code, outputs."""
    if cell.cell_type == "markdown":
        if "papermill-error-cell-tag" in cell.metadata.get("tags", []):
            return []  # the error stands at the top of the section
        return [_prose(cell.source)]
    if cell.cell_type != "code" or not cell.source.strip():
        return []
    code = html.escape(cell.source)
    lines = len(cell.source.splitlines())
    count = "1 line" if lines == 1 else f"{lines} lines"
    parts = [f"<details><summary>code, {count}</summary><pre>{code}</pre></details>"]
    return parts + [part for output in _joined(cell.outputs) if (part := _shown(output))]


def _joined(outputs: Iterable[nbformat.NotebookNode]) -> Iterator[nbformat.NotebookNode]:
    """Outputs, neighbours of one stream joined: each step of a progress bar is a message of its own."""
    for stream, group in groupby(
        outputs, lambda one: one.get("output_type") == "stream" and one.get("name")
    ):
        if stream:
            text = "".join(str(one.get("text", "")) for one in group)
            yield nbformat.v4.new_output("stream", name=stream, text=text)
        else:
            yield from group


def _prose(text: str) -> str:
    """Markdown as HTML; formulas become MathML, which browsers draw without a network."""

    def mathml(found: re.Match) -> str:
        formula, display = found["block"] or found["inline"], "block" if found["block"] else "inline"
        try:
            return convert(" ".join(formula.split()), display=display) if formula else found[0]
        except Exception:  # its errors have no common class, and its parser lets others through
            return found[0]  # the source, as it was written

    page = ANCHOR.sub("", H1.sub(r"<\1h2", markdown2html(MATH.sub(mathml, text))))
    return f'<div class="prose">{page}</div>'


def aim_links(part: str, names: set[str]) -> str:
    """Links to notebooks of this run lead to their pages; other files are not in the report."""

    def aim(found: re.Match) -> str:
        name = Path(unquote(found["to"])).stem
        return f'<a href="{quote(name)}.html">{found["text"]}</a>' if name in names else found["text"]

    return LINK.sub(aim, part)


def _shown(output) -> str:
    """An output's HTML; one that is not what its type says costs itself alone."""
    try:
        return _output(output)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = html.escape(f"{type(error).__name__}: {error}")
        return f'<pre class="error">This output is damaged and left out ({problem})</pre>'


def _output(output) -> str:
    if output.output_type == "stream":
        text = OVERWRITTEN.sub("", output.text)
        if output.name == "stderr":
            return f"<details><summary>messages</summary><pre>{html.escape(text)}</pre></details>"
        return f"<pre>{ansi2html(text)}</pre>"
    if output.output_type == "error":
        return f'<pre class="error">{ansi2html(chr(10).join(output.traceback))}</pre>'
    data = output.get("data", {})
    text = data.get("text/plain", "")
    if METRIC in data:
        return ""  # listed in the metrics table
    if PLOTLY in data:
        return _plotly(data[PLOTLY])
    if INSTRUMENT in data.get("text/html", ""):
        return data["text/html"]  # live, and its picture
    if "image/png" in data:
        png = data["image/png"].strip()
        return f'<img src="data:image/png;base64,{png}" alt="{html.escape(text, quote=True)}">'
    if "image/svg+xml" in data:
        return f'<div role="img" aria-label="{html.escape(text, quote=True)}">{data["image/svg+xml"]}</div>'
    if data.get("text/html", "").startswith("<style>"):
        return data["text/html"]  # of the figures on this page
    if "text/html" in data:
        table = data["text/html"].replace("<th></th>", "<td></td>")  # an empty cell heads nothing
        return f'<div class="table" tabindex="0">{table}</div>'
    if "text/markdown" in data:
        return _prose(data["text/markdown"])
    if WIDGET in data:
        return ""  # a live control or a progress bar: what it shows stands beside it
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _plotly(spec: dict) -> str:
    title = spec.get("layout", {}).get("title", {})
    words = title.get("text", "interactive figure") if isinstance(title, dict) else str(title)
    label = html.escape(words.replace("<br>", " "))
    content = json.dumps({"data": spec["data"], "layout": spec.get("layout", {})}).replace("<", "\\u003c")
    return (
        f'<div class="plotly" role="figure" aria-label="{label}">'
        f'<script type="application/json">{content}</script></div>'
    )
