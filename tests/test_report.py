"""The report's pages: whatever a notebook holds, nothing in it ends a script or loses the page."""

import json
import re

import nbformat
import pytest
from notebook_maker import displayed, write_run
from site_maker import wrong_links

from labkit.runner.cells import PLOTLY
from labkit.runner.report import write_report


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path)


def _page(folder, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), folder / "n.ipynb")
    write_report(folder)
    return (folder / "n.html").read_text()


@pytest.mark.parametrize(
    "formula",
    [r"\left(", "x_", "^", r"\frac", r"\begin{matrix} a", r"\color", "{" * 3000],
)
@pytest.mark.parametrize("sign", ["$", "$$"])
def test_a_formula_that_is_none_shows_its_source(folder, formula, sign):
    text = f"before {sign}{formula}{sign} after, and $y^2$"
    page = _page(folder, nbformat.v4.new_markdown_cell(text))
    assert f"before {sign}{formula}{sign} after" in page
    assert page.count("<math ") == 1  # the one that can be read


def test_a_formula_is_mathml(folder):
    page = _page(folder, nbformat.v4.new_markdown_cell("where $$\na\n^2\n$$ and $b$"))
    assert page.count("<msup><mi>a</mi><mn>2</mn></msup>") == 1
    assert 'display="block"' in page
    assert 'display="inline"' in page


def test_nothing_in_a_figure_ends_or_opens_a_script(folder):
    text = "</script><!-- <script> <b>"
    spec = {"data": [{"x": [1], "text": [text]}], "layout": {"title": {"text": text}}}
    page = _page(folder, displayed({PLOTLY: spec}))
    (content,) = re.findall(r'<script type="application/json">(.*?)</script></div>', page, re.S)
    assert "<" not in content
    assert json.loads(content) == spec


def test_page_one_shows_one_instrument_of_each_kind_then_more_then_pictures(folder):
    def live(name, kind):
        return {"text/html": f'<div class="labkit-twin" data-kind="{kind}">{name}</div>', "image/png": "bb"}

    picture = {"image/png": "aa", "text/plain": "Figure: a picture"}
    outputs = [picture, live("first tree", "tree"), live("second tree", "tree"), live("curves", "curves")]
    _page(folder, displayed(*outputs), displayed(picture))
    first = (folder / "report.html").read_text()
    assert re.findall(r'data-kind="\w+">([^<]*)<', first) == ["first tree", "curves", "second tree"]
    assert "<img " not in first
    _page(folder, displayed(picture, outputs[1], picture, picture))
    first = (folder / "report.html").read_text()
    assert first.count("<img ") == 2
    assert first.index("first tree") < first.index("<img ")


def test_the_metric_that_moved_most_of_what_it_may_comes_first(folder):
    run = json.loads((folder / "run.json").read_text())
    entry = {"value": 10.0, "abs": 2.0, "rel": 0.0, "direction": "equal", "why": "x"}
    names = {"still": 10.0, "little": 10.5, "much": 11.5, "off": 13.0}
    run["notebooks"][0] |= {
        "metrics": {name: {"value": value, "unit": "u"} for name, value in names.items()},
        "baseline": {"recorded": {}, "seconds": 1, "metrics": dict.fromkeys(names, entry)},
        "verdicts": {name: "regressed" if name == "off" else "ok" for name in names},
        "origin": "recorded elsewhere",
    }
    (folder / "run.json").write_text(json.dumps(run))
    _page(folder)
    first = (folder / "report.html").read_text()
    assert re.findall(r"<td>(still|little|much|off)</td>", first) == ["off", "much", "little"]
    assert "75 % of the allowed" in first
    assert "25 % of the allowed" in first


def test_a_bar_is_shown_as_it_ended(folder):
    cell = nbformat.v4.new_code_cell("bar")
    texts = ["before\n 10%|#", "\r 50%|##", "\r100%|###\n", "after\n"]  # as nbclient keeps them
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in texts]
    page = _page(folder, cell)
    assert "before\n100%|###\nafter" in page
    assert "50%" not in page


def test_a_link_to_another_notebook_leads_to_its_page(folder):
    page = _page(folder, nbformat.v4.new_markdown_cell("[this](n.ipynb) and [that](m.ipynb)"))
    assert '<a href="n.html">this</a> and that' in page


def test_links_reach_a_notebook_whatever_its_name(folder):
    run = json.loads((folder / "run.json").read_text())
    name = run["notebooks"][0]["notebook"] = "a #1, 50% & <i>"
    (folder / "run.json").write_text(json.dumps(run))
    cell = nbformat.v4.new_markdown_cell("[this](a%20%231,%2050%25%20%26%20%3Ci%3E.ipynb)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / f"{name}.ipynb")
    write_report(folder)
    assert wrong_links(folder) == []
    quoted = "a%20%231%2C%2050%25%20%26%20%3Ci%3E.html"
    assert quoted in (folder / "report.html").read_text()
    assert f'<a href="{quoted}">this</a>' in (folder / f"{name}.html").read_text()
