"""A small site for its tests, and what is wrong with the links of any."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from matplotlib import pyplot
from notebook_maker import displayed, write_run
from test_export import RUN, curves, training, tree

from labkit.runner.cells import PLOTLY
from labkit.runner.site import write_site
from labkit.widgets.export import Instrument, picture, twin

TEXT = """# 9 · A question <of> tests

**Question.** Is $a^2$ drawn?

[This page](n.ipynb) and [none](m.ipynb)."""
API = (
    '<!DOCTYPE html><html lang="en"><link rel="icon" href="data:,"><title>API</title>'
    '<main><h1 id="top">API</h1>{}</main>'
)


def instruments() -> list[Instrument]:
    """Curves, and a beam tree that says what needs Python."""
    return [curves(training()), tree(RUN([[0] * 12 + [1, 2, 3, 4], [0] * 16], "soar", mask_id=0, beam=3))]


def live(instrument: Instrument, key: str) -> dict:
    """What a notebook holds of an instrument."""
    figure, axes = pyplot.subplots()
    axes.set_title(key)
    pyplot.close(figure)
    return twin(key, [picture(figure)], instrument, widget=False)


def small_site(runs: Path) -> Path:
    """The site of a run of one notebook, with two API pages, in ``runs``; its index.html."""
    bundles = [live(one, f"key{number}") for number, one in enumerate(instruments())]
    figure = {PLOTLY: {"data": [{"y": [1, 3, 2]}], "layout": {"title": {"text": "three points"}}}}
    cells = [nbformat.v4.new_markdown_cell(TEXT), displayed(*bundles, figure)]
    folder = write_run(runs / "2026-01-01", *cells)
    for name, link in (("index", "_static/a.html#top"), ("_static/a", "../index.html")):
        page = runs / "docs" / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(API.format(f'<a href="{link}">other</a>'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(runs))
        return write_site(folder)


class _Page(HTMLParser):
    """The ids of a page, where its links lead and what it loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        (self.links if tag == "a" else self.loaded).extend(
            found[name] for name in ("href", "src") if found.get(name)
        )


def wrong_links(site: Path) -> list[str]:
    """Links of a site's pages that lead to no file or place of it, and what is loaded from elsewhere."""
    pages = {path: _Page(path.read_text()) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "data", "mailto"):
                if address in page.loaded and parts.scheme != "data":
                    wrong.append(f"{path}: loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].ids if target in pages else {""}
            if not target.is_file() or (target in pages and unquote(parts.fragment) not in known):
                wrong.append(f"{path}: {address}")
    return wrong
