"""A finished run as a static site, for any file server: nothing in it is fetched from elsewhere.

runs/site/index.html   the instruments as a gallery, the lab's findings, the notebooks
    <stem>.html        a notebook of the run, its instruments alive; report.html: what failed, what moved
    instruments/       each instrument as a page of its own, and its picture
    api/               what `make docs` left in runs/docs, if it did
"""

import base64
import binascii
import contextlib
import html
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labkit.figures.tables import findings_table
from labkit.notebooks import read_notebook, title
from labkit.paths import runs_dir, write_page
from labkit.runner.cells import INSTRUMENT, aim_links
from labkit.runner.compare import read_run
from labkit.runner.report import render, write_report
from labkit.studies.report import findings

HOME, API = "index.html", "api/index.html"
FRAME = re.compile(r'<iframe [^>]*srcdoc="([^"]*)"')  # in labkit.widgets.export.twin: the page, escaped
TITLE = re.compile(r"<title>(.*?)</title>", re.S)
QUESTION = re.compile(r"^\*\*Question\.\*\* *(.+)$", re.M)
BACK = """<body>
<nav aria-label="Site" style="margin: 1rem; font: .9rem sans-serif"><a href="../{}.html">{}</a></nav>"""


def write_site(folder: str | Path) -> Path:
    """Write runs/site anew from a run's folder; its index.html. ValueError if there is no run."""
    folder = Path(folder)
    run, docs, site = read_run(folder), runs_dir() / "docs", runs_dir() / "site"
    site.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{site.name}.", dir=site.parent))
    try:
        _write(folder, run, docs, part / "new")
        if site.exists():  # moved away whole, for a signal may come while it is removed
            site.rename(part / "old")
        (part / "new").rename(site)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return site / HOME


def _write(folder: Path, run: dict[str, Any], docs: Path, part: Path) -> None:
    (part / "instruments").mkdir(parents=True)
    links = [("labkit", HOME), ("instruments", f"{HOME}#instruments"), ("notebooks", f"{HOME}#notebooks")]
    if (docs / HOME).is_file():
        shutil.copytree(docs, part / "api", ignore=shutil.ignore_patterns(".*"))
        links.append(("API", API))
    links.append(("this run", "report.html"))
    write_report(folder, part, links)
    books = [_book(folder, item["notebook"], part / "instruments") for item in run["notebooks"]]
    render(
        "site.html.j2",
        part / HOME,
        about=metadata("labkit")["Summary"],
        run=run,
        books=books,
        findings=aim_links(findings_table(findings()).data, {book["stem"] for book in books}),
        links=links,
    )


def _book(folder: Path, stem: str, out: Path) -> dict[str, Any]:
    """A notebook's stem, title, question and instruments, whose pages are written to ``out``."""
    path = folder / f"{stem}.ipynb"  # missing where the notebook's process was killed
    cells = read_notebook(path).cells if path.is_file() else []
    name = title(cells) or stem
    back = BACK.format(quote(stem), html.escape(name))
    shown: list[dict[str, str]] = []
    for page, picture in _instruments(cells):
        place = out / f"{stem}-{len(shown) + 1}.html"
        write_page(place, page.replace("<body>", back, 1))
        place.with_suffix(".png").write_bytes(picture)
        found = TITLE.search(page)
        shown.append({"name": place.stem, "title": html.unescape(found[1]) if found else name})
    question = QUESTION.search(cells[0].source) if cells else None  # a page, so no Markdown
    asked = question[1].replace("**", "") if question else ""
    return {"stem": stem, "title": name, "question": asked, "shown": shown}


def _instruments(cells: list[Any]) -> Iterator[tuple[str, bytes]]:
    """(page, PNG) of every output that is alive; one too large for a frame is a picture in its notebook."""
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text, picture = data.get("text/html"), data.get("image/png")
            if not isinstance(text, str) or not isinstance(picture, str) or INSTRUMENT not in text:
                continue
            with contextlib.suppress(binascii.Error):  # a damaged one is not shown
                if frame := FRAME.search(text):
                    yield html.unescape(frame[1]), base64.b64decode(picture)
