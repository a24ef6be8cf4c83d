"""Fixtures of the browser tests: ``browser`` and ``page`` need only Chromium, ``lab`` and ``open_notebook``
a JupyterLab too. ``make test-browser`` runs this folder, ``make test`` leaves it out."""

import pytest
from browser.lab import CHROMIUM_ARGUMENTS, MISSING, Lab, Notebook, find_chromium


def pytest_addoption(parser):
    parser.addoption("--require-chromium", action="store_true", help="a missing chromium is an error")


def pytest_sessionstart(session):
    if session.config.getoption("--require-chromium") and find_chromium() is None:
        pytest.exit(MISSING, returncode=1)


@pytest.fixture(scope="session")
def browser():
    """One headless Chromium per process. Skips, saying what to install, if there is none."""
    if (path := find_chromium()) is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A fresh page, 1280 x 900, in a context of its own. Any site; nothing of JupyterLab."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """One JupyterLab per process, serving a copy of notebooks/."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture
def open_notebook(lab, browser):
    """open_notebook(name, theme="light", width=1280, height=900) -> Notebook, closed after the test."""
    opened = []

    def open_(name, *, theme="light", width=1280, height=900):
        lab.set_theme(theme)
        context = browser.new_context(viewport={"width": width, "height": height})
        opened.append(context)
        notebook = Notebook(lab, context.new_page(), name)
        opened.append(notebook)
        return notebook

    yield open_
    for thing in reversed(opened):
        thing.close()
