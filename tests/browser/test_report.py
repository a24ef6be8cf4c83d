"""The report as a reader gets it: valid HTML, accessible, whole without a network, errors first."""

import re
import time

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.lab import PICTURES
from html5lib.constants import E as PARSE_ERRORS
from notebook_maker import write_notebook
from playwright.sync_api import expect

from labkit.paths import runs_dir
from labkit.runner.runs import run

EVERYTHING = """
import matplotlib.pyplot as plt, pandas as pd, plotly.graph_objects as go
from IPython.display import display
from labkit.metrics import record
from labkit.traces import TrainTrace
from labkit.widgets import scrubber
import numpy as np
scrubber(TrainTrace(np.arange(5), {"loss": np.arange(5.0)}))
display(pd.DataFrame({"a": [1, 2]}))
display(go.Figure(go.Scatter(y=[1, 3, 2]), layout={"title": {"text": "three points"}}))
plt.plot([1, 2]); plt.title("a line"); plt.show()
record("loss", 1.5, "nats")
"""


@pytest.fixture(scope="session")  # of a module it would be made anew between stolen tests
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
    return folder / "runs" / "latest" / "report.html"


@pytest.fixture(params=["small", "rich", "lab", "lab/03_soar_beam_tree"])
def any_report(request):
    """Page one and a notebook's page of the small report, and of the lab's if ``make run`` has left one."""
    part, _, name = request.param.rpartition("/")
    if "lab" not in (part, name):
        return request.getfixturevalue("report").with_stem({"small": "report"}.get(name, name))
    latest = runs_dir() / "latest" / f"{name if part else 'report'}.html"
    if not latest.is_file():
        pytest.skip(f"no {latest.name} in runs/latest; `make run` writes it")
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
        figure.locator("svg.main-svg").first.wait_for(state="attached")  # drawn, not only described


def test_errors_come_first(report, page):
    page.goto(report.as_uri())
    first = page.locator("main > *").first
    assert first.get_attribute("role") == "alert"
    assert "broken failed" in first.inner_text()
    first.locator("a").click()
    expect(page).to_have_url(re.compile(r"/broken\.html$"))
    expect(page.locator("main")).to_contain_text("division by zero")


def test_page_one_is_small_and_opens_at_once(any_report, page):
    if any_report.stem != "report":
        pytest.skip("of page one alone")
    assert any_report.stat().st_size < 3_000_000
    begin = time.monotonic()
    page.goto(any_report.as_uri(), wait_until="load")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert time.monotonic() - begin < 10  # 2 s, on a machine five times slower
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "report.png", full_page=True)


def test_an_instrument_lives_in_the_report(report, page):
    page.goto(report.as_uri())
    page.locator(".labkit-twin iframe").scroll_into_view_if_needed()
    cursor = page.locator(".labkit-twin iframe").content_frame.locator("canvas[role=slider]")
    cursor.press("Home")
    expect(cursor).to_have_attribute("aria-valuenow", "0")
    cursor.press("ArrowRight")
    expect(cursor).to_have_attribute("aria-valuenow", "1")


def test_contents_and_skip_link_work_by_keyboard(report, page):
    page.goto(report.as_uri())
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))
