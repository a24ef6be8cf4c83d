"""Every notebook in real JupyterLab: Run All, no error, and every control moves a trait and a picture."""

import re

import nbformat
import pytest
from browser.lab import INSTRUMENTS, comes
from playwright.sync_api import expect

from labkit.notebooks import NOTEBOOKS, find_notebooks

LIVE = r"(^|widgets\.|= )(explore|beam_tree|mask_grid|scrubber)\(|Comparison\("
PAGE = 6000  # pixels of all cells, 1440 wide: what one reads in a sitting
STEMS = [path.stem for path in find_notebooks()]


@pytest.mark.parametrize("stem", STEMS)
def test_run_all_and_move_every_control(lab, open_notebook, stem):
    notebook = open_notebook(lab.prepare(stem), width=1440, height=1000)
    notebook.run_all()
    assert notebook.output_errors() == []
    assert notebook.height() <= PAGE
    first = notebook.page.locator(INSTRUMENTS).first
    comes(lambda: first.bounding_box()["y"], lambda y: 0 <= y < 500, "the first instrument's top")
    expect(notebook.page.locator(".ex")).to_have_count(2)
    told = [notebook.predict(one) for one in notebook.page.locator(".ex").all()]
    assert [bool(re.match(r"[✓✗] .*\d", text)) for text in told] == [True, True]
    notebook.screenshot_instruments(stem)
    controls, still = notebook.controls(), {}
    cells = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4).cells
    live = re.search(LIVE, "\n".join(cell.source for cell in cells if cell.cell_type == "code"), re.M)
    assert bool(controls) == bool(live), "a notebook with an instrument has controls"
    for control in controls:
        if any(failed := notebook.move(control)):
            name = control.evaluate("node => node.closest('.widget-inline-hbox, label')?.textContent ?? ''")
            still[name or control.get_attribute("aria-label")] = failed
    assert still == {}
    assert notebook.output_errors() == []
    assert notebook.console_errors == []
