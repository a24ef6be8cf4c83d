"""Every notebook in real JupyterLab: Run All, no error, and every control moves a trait and a picture."""

import pytest

from labkit.presets import NOTEBOOKS, find_notebooks

STEMS = [path.stem for path in find_notebooks()]


@pytest.mark.parametrize("stem", STEMS)
def test_run_all_and_move_every_control(lab, open_notebook, stem):
    notebook = open_notebook(lab.prepare(stem))
    notebook.run_all()
    assert notebook.output_errors() == []
    controls, still = notebook.controls(), {}
    source = (NOTEBOOKS / f"{stem}.ipynb").read_text()
    live = any(call in source for call in ("explore(", "widgets.", "mask_grid(", "run_panel("))
    assert bool(controls) == live, "a notebook with an instrument has controls"
    for control in controls:
        if any(failed := notebook.move(control)):
            name = control.evaluate("node => node.closest('.widget-inline-hbox, label')?.textContent ?? ''")
            still[name or control.get_attribute("aria-label")] = failed
    notebook.screenshot_instruments(stem)
    assert still == {}
    assert notebook.output_errors() == []
    assert notebook.console_errors == []
