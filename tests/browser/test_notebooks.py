"""Every notebook in real JupyterLab: Run All, no error, and every control moves a trait and a picture."""

import re

import nbformat
import pytest

from labkit.notebooks import NOTEBOOKS, find_notebooks

LIVE = r"(^|widgets\.|= )(explore|beam_tree|mask_grid|scrubber)\("
STEMS = [path.stem for path in find_notebooks()]


@pytest.mark.parametrize("stem", STEMS)
def test_run_all_and_move_every_control(lab, open_notebook, stem):
    notebook = open_notebook(lab.prepare(stem))
    notebook.run_all()
    assert notebook.output_errors() == []
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
