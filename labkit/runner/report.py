"""One offline HTML page for a run: errors first, metrics, then every notebook's text and figures."""

import html
import json
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader
from latex2mathml.converter import convert
from nbconvert.filters import ansi2html, markdown2html

from labkit.metrics import MIME as METRIC
from labkit.notebooks import read_notebook, title
from labkit.paths import write_atomic
from labkit.runner.baselines import describe, off
from labkit.runner.compare import read_run
from labkit.runner.execute import WIDGET

PLOTLY = "application/vnd.plotly.v1+json"
NO_TEXT = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]"
)  # HTML forbids them as they are


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` from a run's ``run.json`` and executed notebooks; returns its path."""
    folder = Path(folder)
    run = read_run(folder)
    past = _history(folder.resolve().parent, run)
    sections = [_section(folder, item, past) for item in run["notebooks"]]
    names = {section["notebook"] for section in sections}
    for section in sections:
        section["body"] = [_aim_links(part, names) for part in section["body"]]
    environment = Environment(loader=PackageLoader("labkit.runner", "."), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        run=run,
        sections=sections,
        failed=[section for section in sections if section["error"]],
        regressed=[section for section in sections if section["off"]],
        plotly_js=_plotly_js() if any(section["plotly"] for section in sections) else "",
    )
    return write_atomic(folder / "report.html", lambda path: path.write_text(page))


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return NO_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", get_plotlyjs())


def _history(runs: Path, now: dict) -> dict[tuple[str, str], list[float]]:
    """{(notebook, metric): values} over finished runs of the same preset up to this one, oldest first."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted(runs.glob("[0-9]*/run.json")):
        try:
            run = read_run(path.parent)
        except ValueError:
            continue  # a damaged old run costs its point in the sparkline, not this report
        if run["preset"] != now["preset"] or run["provenance"]["time"] > now["provenance"]["time"]:
            continue
        for item in run["notebooks"]:
            for name, metric in item["metrics"].items():
                found.setdefault((item["notebook"], name), []).append(metric["value"])
    return {key: values[-20:] for key, values in found.items()}


def _sparkline(values: list[float]) -> str:
    """Past values as a small inline SVG line; its text alternative gives the range."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scale = 16 / (high - low) if high > low else 0
    points = " ".join(f"{2 + 5 * i},{18 - (v - low) * scale:.1f}" for i, v in enumerate(values))
    label = f"{len(values)} runs, from {low:.4g} to {high:.4g}"
    return (
        f'<svg role="img" aria-label="{label}" width="{5 * len(values)}" height="20"><title>{label}</title>'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.5"/></svg>'
    )


def _metric_rows(item: dict, past: dict) -> list[dict]:
    """The metrics table: what was measured, then what the baseline expected and did not get."""
    rows = []
    for name in [*item["metrics"], *(n for n, v in item["verdicts"].items() if v == "missing")]:
        metric, entry = item["metrics"].get(name), item["baseline"].get("metrics", {}).get(name)
        rows.append({
            "name": name,
            "value": f"{metric['value']:.6g}" if metric else "",
            "unit": metric["unit"] if metric else "",
            "baseline": describe(entry) if entry else "",
            "verdict": item["verdicts"].get(name, ""),
            "sparkline": _sparkline(past.get((item["notebook"], name), [])),
        })  # fmt: skip
    return rows


def _section(folder: Path, item: dict, past: dict) -> dict:
    """What the template shows of one notebook."""
    path = folder / f"{item['notebook']}.ipynb"
    cells = read_notebook(path).cells if path.exists() else []
    body = [part for cell in cells for part in _cell(cell)]
    if body:
        body[0] = TITLE.sub("", body[0], count=1)  # the section's own heading says it
    log = folder / f"{item['notebook']}.log"
    return {
        **item,
        "title": title(cells) or item["notebook"],
        "rows": _metric_rows(item, past),
        "off": off(item),
        "body": body,
        "plotly": any('class="plotly' in part for part in body),
        "log": "\n".join(log.read_text().splitlines()[-40:]) if item["error"] and log.exists() else "",
    }


def _cell(cell) -> list[str]:
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
    return parts + [part for output in cell.outputs if (part := _output(output))]


TITLE = re.compile(r"<h3[^>]*>.*?</h3>", re.S)
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>|(?<=<h\d) id="[^"]*"')  # the same in every notebook
LINK = re.compile(r"""<a\b[^>]*?href=["'](?P<to>[^"':#]+)["'][^>]*>(?P<text>.*?)</a>""", re.S)
MATH = re.compile(r"```.*?```|`[^`]*`|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.S)


def _prose(text: str) -> str:
    """Markdown as HTML; formulas become MathML, which browsers draw without a network."""

    def mathml(found: re.Match) -> str:
        formula, display = found["block"] or found["inline"], "block" if found["block"] else "inline"
        try:
            return convert(" ".join(formula.split()), display=display) if formula else found[0]
        except Exception:  # its errors have no common class, and its parser lets others through
            return found[0]  # the source, as it was written

    page = ANCHOR.sub("", _lower_headings(markdown2html(MATH.sub(mathml, text))))
    return f'<div class="prose">{page}</div>'


def _aim_links(part: str, names: set[str]) -> str:
    """Links to notebooks of this run lead to their sections; other files are not in the report."""

    def aim(found: re.Match) -> str:
        name = Path(found["to"]).stem
        return f'<a href="#{name}">{found["text"]}</a>' if name in names else found["text"]

    return LINK.sub(aim, part)


def _lower_headings(text: str) -> str:
    """Notebook headings become h3..h5: the page has h1, the notebook's title is the section's h2."""
    for level, lowered in ((4, 5), (3, 4), (2, 3), (1, 3)):
        text = text.replace(f"<h{level} ", f"<h{lowered} ").replace(f"</h{level}>", f"</h{lowered}>")
    return text


def _output(output) -> str:
    if output.output_type == "stream":
        if output.name == "stderr":
            text = html.escape(output.text.rsplit("\r", 1)[-1])
            return f"<details><summary>messages</summary><pre>{text}</pre></details>"
        return f"<pre>{ansi2html(output.text)}</pre>"
    if output.output_type == "error":
        return f'<pre class="error">{ansi2html(chr(10).join(output.traceback))}</pre>'
    data = output.get("data", {})
    text = data.get("text/plain", "")
    if METRIC in data:
        return ""  # listed in the metrics table
    if PLOTLY in data:
        return _plotly(data[PLOTLY])
    if "image/png" in data:
        png = data["image/png"].strip()
        return f'<img src="data:image/png;base64,{png}" alt="{html.escape(text, quote=True)}">'
    if "image/svg+xml" in data:
        return f'<div role="img" aria-label="{html.escape(text, quote=True)}">{data["image/svg+xml"]}</div>'
    if "text/html" in data:
        table = data["text/html"].replace("<th></th>", "<td></td>")  # an empty cell heads nothing
        return f'<div class="table" tabindex="0">{table}</div>'
    if "text/markdown" in data:
        return _prose(data["text/markdown"])
    if WIDGET in data:
        return ""  # a live control or a progress bar: what it shows stands beside it
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _plotly(spec: dict) -> str:
    """A plotly figure as a div that the page's one copy of plotly.js draws."""
    title = spec.get("layout", {}).get("title", {})
    label = html.escape(title.get("text", "interactive figure") if isinstance(title, dict) else str(title))
    content = json.dumps({"data": spec["data"], "layout": spec.get("layout", {})}).replace("<", "\\u003c")
    return (
        f'<div class="plotly" role="figure" aria-label="{label}">'
        f'<script type="application/json">{content}</script></div>'
    )
