"""A saved notebook opened again without a kernel: pages that work, pictures where scripts are stripped."""

import json
from functools import partial

import nbformat
import pytest
from browser.lab import PICTURES, TOKEN, Notebook, book, comes
from playwright.sync_api import expect

BOOK = """
from functools import partial
import torch
import numpy as np
from ipywidgets import IntSlider
from labkit.figures import theme
from labkit.progress import bar
from labkit.soar import decode
from labkit.traces import MaskTrace, TrainTrace
from labkit.widgets import beam_tree, explore, mask_grid, scrubber
from matplotlib import pyplot
theme.apply()
for _ in bar(True, range(3), desc="bar"): pass
---
def logits(tokens):
    source = torch.Generator().manual_seed(1)
    place, digit = torch.randn(16, 5, generator=source), torch.randn(5, 5, generator=source)
    return 3 * (place + digit[tokens].mean(1, keepdim=True) + digit[tokens])
run = partial(decode, logits)
trace = run([[0] * 12 + [1, 2, 3, 4]], "soar", mask_id=0, beam=3, threshold=0.95)
tree = beam_tree(trace, run, side=4)
---
values = np.random.default_rng(0).normal(size=(2, 6, 32)).clip(0).astype("f") ** 2
kept = np.tile([True, True, False, False], (2, 6, 8))
grid = mask_grid(MaskTrace(values, kept, list("tokens")))
---
samples = [{"step": step, "text": f"written at {step}"} for step in (2, 4)]
curves = scrubber(TrainTrace(np.arange(1, 6), {"loss": np.arange(5.0)}, samples))
---
def line(n):
    figure, axes = pyplot.subplots()
    axes.plot(range(n)); axes.set_title(f"{n} points")
    return figure
explore(line, name="line", n=IntSlider(3, 2, 9))
"""


@pytest.fixture(scope="session")  # of a module it would be made anew between stolen tests
def saved(lab, window):
    """The notebook after Run All and Save in JupyterLab; its kernel is gone."""
    name = lab.add(book(*map(str.strip, BOOK.split("---"))), "kept.ipynb")
    window.set_viewport_size({"width": 1440, "height": 1000})
    notebook = Notebook(lab, window, name)
    notebook.run_all()
    assert notebook.output_errors() == []
    outputs = notebook.page.locator(".jp-OutputArea-output")
    expect(outputs.locator(".lk")).to_have_count(3)
    expect(outputs.locator(".labkit-twin")).to_have_count(4)
    for twin in outputs.locator(".labkit-twin").all():  # the live widget has taken its place
        expect(twin).to_be_hidden()
    notebook.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    expect(notebook.page.locator(".jp-mod-dirty")).to_have_count(0)
    notebook.close()
    return name


def reopen(lab, page, name):
    """Open a notebook without running it, scrolled through once: frames load when they are near."""
    page.goto(f"{lab.url}/lab/tree/{name}?reset&token={TOKEN}")
    page.wait_for_selector(".labkit-twin", timeout=90_000)
    expect(page.locator(".labkit-twin")).to_have_count(4)


def test_the_reopened_notebook_is_alive(saved, lab, page):
    page.set_viewport_size({"width": 1440, "height": 1000})
    reopen(lab, page, saved)
    page.wait_for_timeout(1000)  # for the widget manager to find out that the models are gone
    lost = page.get_by_text("model not found")
    assert [one.is_visible() for one in lost.all()] == [False] * lost.count()
    page.locator(".labkit-twin iframe").first.scroll_into_view_if_needed()
    tree = page.locator(".labkit-twin iframe").first.content_frame
    tree.locator("canvas[role=application]").wait_for()  # it comes with the first drawing
    scrub = tree.get_by_role("slider", name="after call")
    before = int(scrub.input_value())
    scrub.press("ArrowLeft")
    expect(scrub).to_have_value(str(before - 1))
    expect(tree.get_by_text("Force", exact=True)).to_have_count(0)
    outer, inner = page.locator(".labkit-twin iframe").first, tree.locator("#instrument")
    comes(
        lambda: outer.bounding_box()["height"] - inner.bounding_box()["height"],
        lambda more: abs(more) <= 60,
        "the frame's height less its page's",
    )
    page.screenshot(path=PICTURES / "without_kernel.png")
    picture = page.locator(".labkit-twin").last.locator("img")  # of explore: Python alone can redraw it
    picture.scroll_into_view_if_needed()
    expect(picture).to_be_visible()


def test_somebody_elses_notebook_shows_pictures(saved, lab, page):
    """Not trusted, its frames and scripts are taken out."""
    book = json.loads((lab.notebooks / saved).read_text())
    book["cells"][0]["source"] += "# changed elsewhere"
    (lab.notebooks / "strange.ipynb").write_text(json.dumps(book))
    reopen(lab, page, "strange.ipynb")
    assert page.locator(".labkit-twin iframe").count() == 0
    for twin in page.locator(".labkit-twin").all():
        picture = twin.locator("img").first
        picture.scroll_into_view_if_needed()
        expect(picture).to_be_visible()
        comes(partial(picture.evaluate, "image => image.naturalWidth"), lambda width: width > 100)
    assert page.get_by_text("model not found").count() == 0


def test_bars_are_text(saved, lab):
    book = nbformat.read(lab.notebooks / saved, as_version=4)
    _, output = book.cells[0].outputs  # the first is the page's style
    assert output.name == "stdout"
    assert "100%" in output.text


def test_papermill_alone_keeps_the_pictures(saved, lab, tmp_path, monkeypatch):
    import papermill

    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    done = papermill.execute_notebook(lab.notebooks / saved, tmp_path / "out.ipynb", progress_bar=False)
    for cell in done.cells[1:]:
        assert any(output.get("data", {}).get("image/png") for output in cell.outputs)
        assert any("<img " in output.get("data", {}).get("text/html", "") for output in cell.outputs)
