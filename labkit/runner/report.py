"""A run as one page worth forwarding, report.html, with a page beside it for each notebook.

Page one has what failed, what moved against the baselines, the lab's findings and three figures; a page of
a notebook has its text, figures, metrics and live instruments. Nothing is fetched from a network.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from labkit.notebooks import read_notebook, title
from labkit.paths import write_page
from labkit.runner.baselines import metric_rows, off
from labkit.runner.cells import INSTRUMENT, aim_links, cell_html
from labkit.runner.compare import read_run

FIGURES = 3  # on page one
MOVED = 5  # metrics on page one that are within their baseline, those that moved most
TAIL_BYTES = 2**16  # of a log
PLOTLY_JS = "plotly.min.js"
TITLE = re.compile(r"<h2[^>]*>.*?</h2>", re.S)
KIND = re.compile(INSTRUMENT + ' data-kind="[^"]*"')
PICTURE = re.compile("<img ")


def write_report(
    folder: str | Path, out: Path | None = None, links: Sequence[tuple[str, str]] = ()
) -> Path:
    """Write ``report.html`` and the notebooks' pages from run.json and the executed notebooks.

    out     where to; None: beside them, in ``folder``
    links   (text, address), at the top of every page
    """
    folder = Path(folder)
    out = out or folder
    run = read_run(folder)
    sections = [_section(folder, item) for item in run["notebooks"]]
    names = {section["notebook"] for section in sections}
    for section in sections:
        section["body"] = [aim_links(part, names) for part in section["body"]]
    facts = {"run": run, "sections": sections, "plotly_js": PLOTLY_JS, "links": links}
    if any(section["plotly"] for section in sections):
        from plotly.offline import get_plotlyjs

        write_page(out / PLOTLY_JS, get_plotlyjs())
    for section in sections:
        render("notebook.html.j2", out / f"{section['notebook']}.html", section=section, **facts)
    return render(
        "report.html.j2",
        out / "report.html",
        failed=[section for section in sections if section["error"]],
        regressed=[section for section in sections if section["off"]],
        moved=moved(sections, MOVED),
        compared=sum(len(section["verdicts"]) for section in sections),
        findings=aim_links(_findings(run), names),
        figures=_figures(sections),
        **facts,
    )


def render(template: str, path: Path, **facts: object) -> Path:
    """Write a page of one of the templates beside this file."""
    environment = Environment(loader=PackageLoader("labkit.runner", "."), autoescape=True)
    return write_page(path, environment.get_template(template).render(facts))


def _findings(run: dict) -> str:
    if not any(item.get("ours") for item in run["notebooks"]):
        return ""
    from labkit.figures.tables import findings_table
    from labkit.studies.report import findings

    return findings_table(findings()).data


def _figures(sections: list[dict]) -> list[tuple[dict, str]]:
    """(section, HTML) of what page one shows: instruments before pictures, one of each kind first."""
    found: list[tuple[bool, int, dict, str]] = []
    seen: Counter[str] = Counter()
    for section in sections:
        for part in section["body"]:
            if kind := KIND.search(part) or PICTURE.search(part):
                found.append((kind.re is PICTURE, seen[kind[0]], section, part))
                seen[kind[0]] += 1
    found.sort(key=lambda one: one[:2])
    return [(section, part) for *_, section, part in found[:FIGURES]]


def moved(sections: list[dict], many: int) -> list[dict]:
    """Rows of metrics: all that are off their baseline, then the ``many`` that moved most of what they may.

    sections   dicts with ``notebook`` and its ``rows``, see ``baselines.metric_rows``
    """
    rows = [{**row, "notebook": section["notebook"]} for section in sections for row in section["rows"]]
    wrong = [row for row in rows if row["verdict"] not in ("ok", "")]
    near = [row for row in rows if row["verdict"] == "ok" and row["share"] > 0]
    near.sort(key=lambda row: -row["share"])
    return wrong + near[:many]


def _tail(log: Path) -> str:
    """The last 40 lines of a log, of its last ``TAIL_BYTES``: a report is one page."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return "\n".join(file.read(TAIL_BYTES).decode(errors="replace").splitlines()[-40:])


def _section(folder: Path, item: dict) -> dict:
    path = folder / f"{item['notebook']}.ipynb"
    cells = read_notebook(path).cells if path.exists() else []
    body = [part for cell in cells for part in cell_html(cell)]
    if body:
        body[0] = TITLE.sub("", body[0], count=1)  # the page's own heading says it
    log = folder / f"{item['notebook']}.log"
    return {
        **item,
        "title": title(cells) or item["notebook"],
        "rows": metric_rows(item),
        "off": off(item),
        "body": body,
        "plotly": any('class="plotly' in part for part in body),
        "log": _tail(log) if item["error"] and log.is_file() else "",
    }
