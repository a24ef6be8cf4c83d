"""Every notebook in real JupyterLab: Run All with the smoke preset, no error anywhere."""

import pytest

from labkit.presets import find_notebooks

STEMS = [path.stem for path in find_notebooks()]


@pytest.mark.parametrize("stem", STEMS)
def test_run_all(lab, open_notebook, stem):
    notebook = open_notebook(lab.prepare(stem))
    notebook.run_all()
    notebook.screenshot(f"{stem}_end")
    assert notebook.output_errors() == []
    assert notebook.console_errors == []
