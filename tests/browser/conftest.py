"""Fixtures of the browser tests: ``browser`` and ``page`` need only Chromium, ``lab`` and ``open_notebook``
a JupyterLab too. ``make test-browser`` runs this folder, ``make test`` leaves it out."""

import pytest
from browser.lab import CHROMIUM_ARGUMENTS, MISSING, PATIENCE, Lab, Notebook, book, find_chromium


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
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE)

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


@pytest.fixture(scope="session")
def window(lab, browser):
    """One page per process that has loaded JupyterLab, which takes as long as to run a notebook."""
    context = browser.new_context()
    yield lab.load(context.new_page())
    context.close()


@pytest.fixture
def open_notebook(lab, window):
    """open_notebook(name, width=1280, height=900) -> Notebook with its own kernel; closed in the end."""
    opened = []

    def open_(name, *, width=1280, height=900):
        window.set_viewport_size({"width": width, "height": height})
        opened.append(Notebook(lab, window, name))
        return opened[-1]

    yield open_
    for notebook in reversed(opened):
        notebook.close()


@pytest.fixture(scope="session")
def kernel(lab, browser):
    """A notebook per process, in a page of its own, whose kernel has imported the lab."""
    context = browser.new_context()
    notebook = Notebook(lab, lab.load(context.new_page()), lab.add(book(""), "cells.ipynb"))
    yield notebook
    context.close()


@pytest.fixture
def show(kernel):
    """show(*sources, width=1280, height=900) -> the Notebook of ``kernel`` with these cells, run."""

    def show_(*sources, width=1280, height=900):
        kernel.page.set_viewport_size({"width": width, "height": height})
        kernel.show(*sources)
        return kernel

    return show_
