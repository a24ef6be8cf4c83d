"""The report's page: whatever a notebook holds, nothing in it ends a script or loses the page."""

import json
import re

import nbformat
import pytest

from labkit.runner.report import PLOTLY, write_report


@pytest.fixture
def folder(tmp_path):
    item = {
        "notebook": "n", "parameters": {}, "seconds": 1.0, "error": "", "ours": False, "metrics": {},
        "cached": False, "baseline": {}, "verdicts": {},
    }  # fmt: skip
    origin = {"versions": {}, "device": "a CPU", "commit": "abc", "time": "2026-01-01"}
    run = {"preset": "smoke", "overrides": {}, "device_class": "cpu", "seconds": 1.0, "provenance": origin}
    (tmp_path / "run.json").write_text(json.dumps({**run, "notebooks": [item]}))
    return tmp_path


def _page(folder, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), folder / "n.ipynb")
    return write_report(folder).read_text()


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
    cell = nbformat.v4.new_code_cell("figure")
    cell.outputs = [nbformat.v4.new_output("display_data", {PLOTLY: spec})]
    page = _page(folder, cell)
    (content,) = re.findall(r'<script type="application/json">(.*?)</script></div>', page, re.S)
    assert "<" not in content
    assert json.loads(content) == spec
