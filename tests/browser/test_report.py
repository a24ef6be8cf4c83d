"""The report as a reader gets it: valid HTML, accessible, whole without a network, errors first."""

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe
from html5lib.constants import E as PARSE_ERRORS
from notebook_maker import write_notebook

from labkit.paths import runs_dir
from labkit.runner.runs import run

EVERYTHING = """
import matplotlib.pyplot as plt, pandas as pd, plotly.graph_objects as go
from IPython.display import display
from labkit.metrics import record
display(pd.DataFrame({"a": [1, 2]}))
display(go.Figure(go.Scatter(y=[1, 3, 2]), layout={"title": {"text": "three points"}}))
plt.plot([1, 2]); plt.title("a line"); plt.show()
record("loss", 1.5, "nats")
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with everything in it: tables, both kinds of figures, formulas, headings, an error."""
    folder = tmp_path_factory.mktemp("report")
    books = [
        write_notebook(folder / "rich.ipynb", EVERYTHING, parameters="n: int = 1  # size"),
        write_notebook(folder / "broken.ipynb", "print('x' * 400)\n1 / 0", parameters="n: int = 1  # size"),
    ]
    (folder / "empty.yaml").write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        run([str(book) for book in books], str(folder / "empty.yaml"))
        run([str(book) for book in books], str(folder / "empty.yaml"))  # the second has sparklines
    return folder / "runs" / "latest" / "report.html"


@pytest.fixture(params=["small", "lab"])
def any_report(request):
    """The small report, and the whole lab's if ``make run`` has left one."""
    if request.param == "small":
        return request.getfixturevalue("report")
    if not (latest := runs_dir() / "latest" / "report.html").is_file():
        pytest.skip("no runs/latest/report.html; `make run` writes it")
    return latest


def test_valid_html(any_report):
    text = any_report.read_text()
    parser = html5lib.HTMLParser()
    parser.parse(text)
    lines = text.splitlines()
    problems = [
        f"line {line}: {PARSE_ERRORS[code] % values}: {lines[line - 1][max(0, column - 60) : column + 20]}"
        for (line, column), code, values in parser.errors
    ]
    assert problems == []


@pytest.mark.parametrize("width", [400, 1280])
def test_accessible(any_report, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(any_report.as_uri())
    page.wait_for_load_state("networkidle")
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


def test_offline_and_quiet(any_report, page):
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(any_report.as_uri())
    page.wait_for_load_state("networkidle")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert said == []
    assert page.locator("img:not([alt])").count() == 0
    for figure in page.locator(".plotly").all():
        figure.scroll_into_view_if_needed()
        assert figure.locator("svg.main-svg").count() > 0  # drawn, not only described


def test_errors_come_first(report, page):
    page.goto(report.as_uri())
    first = page.locator("main > *").first
    assert first.get_attribute("role") == "alert"
    assert "broken failed" in first.inner_text()
    first.locator("a").click()
    assert page.url.endswith("#broken")
    assert "division by zero" in page.locator("section#broken").inner_text()


def test_contents_and_skip_link_work_by_keyboard(report, page):
    page.goto(report.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
