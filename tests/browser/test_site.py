"""The static site as a reader gets it: any file server, no other host, by keyboard, accessible."""

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.lab import PICTURES, comes, drawn, free_port
from playwright.sync_api import expect
from site_maker import small_site, wrong_links

from labkit.paths import runs_dir


@contextmanager
def served(folder):
    """The address of Python's own file server over a folder."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        server.stdout.readline()  # "Serving HTTP on"
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    folder = small_site(tmp_path_factory.mktemp("runs")).parent
    with served(folder) as address:
        yield folder, address


@pytest.fixture(params=["small", "lab"])
def site(request):
    """(folder, address) of a small site, and of the lab's if `make site` has left one."""
    if request.param == "small":
        yield request.getfixturevalue("small")
        return
    if not (folder := runs_dir() / "site").is_dir():
        pytest.skip("no runs/site; `make site` writes it")
    with served(folder) as address:
        yield folder, address


def test_every_page_opens_and_asks_no_other_host(site, page):
    folder, address = site
    reference = sorted(folder.glob("api/**/*.html"))
    some = reference[:: len(reference) // 8 + 1]
    every = [*folder.glob("*.html"), *folder.glob("instruments/*.html"), *some]
    said = []
    page.on("request", lambda one: None if one.url.startswith((address, "data:")) else said.append(one.url))
    page.on("response", lambda one: said.append(f"{one.status} {one.url}") if one.status >= 400 else None)
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for path in every:
        page.goto(address + path.relative_to(folder).as_posix(), wait_until="load")
        if path.parent.name == "instruments":
            page.locator("#instrument .lk").wait_for()
        assert page.title()
        assert said == [], path


def test_links_lead_to_places_of_the_site(site):
    assert wrong_links(site[0]) == []


@pytest.mark.parametrize("width", [400, 1280])
def test_accessible(site, page, width):
    folder, address = site
    page.set_viewport_size({"width": width, "height": 900})
    first = min(path.name for path in folder.glob("instruments/*.html"))
    for name in ("index.html", f"instruments/{first}", f"{first.rpartition('-')[0]}.html"):
        page.goto(address + name)
        page.wait_for_load_state("networkidle")
        drawn(page)
        result = Axe().run(page)
        assert result.violations_count == 0, f"{name}: {result.generate_report()}"


def test_from_the_gallery_to_an_instrument_by_keyboard_and_on_to_its_notebook(small, page):
    page.goto(small[1])
    expect(page.locator(".gallery img")).to_have_count(2)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.gallery img')].every(one => one.naturalWidth > 0)"
    )
    page.locator(".gallery a").first.press("Enter")
    cursor = page.locator("canvas[role=slider]")
    cursor.press("Home")
    expect(cursor).to_have_attribute("aria-valuenow", "1")
    cursor.press("ArrowRight")
    expect(cursor).to_have_attribute("aria-valuenow", "2")
    page.locator("nav a").press("Enter")
    page.get_by_role("heading", name="A question <of> tests").wait_for()
    page.locator(".plotly svg.main-svg").first.wait_for()


def test_what_needs_python_is_said_within_the_frame(small, page):
    page.goto(small[1] + "n.html")
    frame = page.locator("iframe").nth(1)
    frame.scroll_into_view_if_needed()
    line = frame.content_frame.get_by_text("needs Python: open the notebook")
    line.wait_for()

    def end(one):
        return (box := one.bounding_box())["y"] + box["height"]

    comes(lambda: end(line) - end(frame), lambda below: below <= 0, "the line's end below the frame's")


def test_the_start_page_opens_at_once(site, page):
    begin = time.monotonic()
    page.goto(site[1], wait_until="load")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert time.monotonic() - begin < 10  # 2 s, on a machine five times slower
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "site.png", full_page=True)
