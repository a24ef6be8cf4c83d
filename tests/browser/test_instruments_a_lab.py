"""mask_grid, scrubber and run_panel in JupyterLab with a kernel: traits, keys, Run and Stop, re-runs."""

from browser.lab import comes
from playwright.sync_api import expect

TRACES = """
import time
import numpy as np, torch
import sparse24
from ipywidgets import BoundedIntText, IntSlider
from labkit.figures import theme
from labkit.traces import MaskTrace, TrainTrace
from labkit.widgets import Comparison, mask_grid, run_panel, scrubber
theme.apply()
x = np.random.default_rng(0).normal(size=(4, 96, 1400)).clip(0).astype("f") ** 2
mask = MaskTrace(x, sparse24.mask24(torch.from_numpy(x)).numpy(), ["word"] * 96, {})
"""
WORK = """
def work(steps, seed=0, progress=False):
    rows = []
    for step in range(steps):
        rows.append({"step": step + 1, "reward": np.cos(step + 1 + seed), "entropy": 1 / (step + 1)})
        time.sleep(0.05)
        if progress:
            progress.rows(rows)
            progress(step + 1, steps)
    at = np.arange(1, steps + 1)
    samples = [{"step": int(s), "text": f"seed {seed} at {s}"} for s in at]
    return TrainTrace(at, {"reward": np.cos(at + seed), "entropy": 1 / at}, samples, {"seed": seed})
"""
GRID = "grid = mask_grid(mask, layer=0, token=3, feature=8)"
SCRUB = "scrub = scrubber({'a': [work(12), work(12, 1)], 'b': work(12, 2)}, step=4)"
PANEL = """panel = run_panel(
    work, Comparison(), notebook="06", result=work(9),
    steps=IntSlider(900, 1, 900, description="steps"), seed=BoundedIntText(1, 0, 9, description="seed"),
)"""
AGAIN = """tiny = MaskTrace(mask.activations[:1, :2, :8], mask.kept[:1, :2, :8], ["a", "b"], {})
grid = mask_grid(tiny)
scrub = scrubber(work(2))
panel = run_panel(work, Comparison(), notebook="06", result=work(2), steps=IntSlider(60, 1, 90))"""


def test_the_instruments_in_jupyterlab(show):
    notebook = show(TRACES, WORK, GRID, SCRUB, PANEL, "'again'", height=1300)
    page, press = notebook.page, notebook.page.keyboard.press
    cells = page.locator(".jp-Cell").count()

    # The browser holds three of the four layers: the fourth comes from the kernel.
    assert notebook.evaluate("grid.held") == [0, 1, 2]
    page.locator("canvas.mg-grid").focus()  # so that none of the keys is a shortcut of the notebook
    for key in (
        "]",
        "]",
        "]",
        "ArrowDown",
        "d",
        "d",
        "a",
        "b",
        "x",
        "m",
    ):  # and none of Lab's own shortcuts
        press(key)
    page.get_by_text("layer 3: zero by itself").wait_for()
    notebook.comes("[grid.layer, grid.token, 3 in grid.held, grid.problem]", [3, 4, True, ""])
    assert page.locator(".jp-Cell").count() == cells
    notebook.evaluate("setattr(grid, 'layer', 7)")
    page.get_by_role("alert").get_by_text("layer must be an integer between 0 and 3; got 7").wait_for()
    notebook.evaluate("setattr(grid, 'layer', 1)")
    page.get_by_text("layer 1: zero by itself").wait_for()

    # A kernel that is slow to answer loses no key.
    notebook.evaluate("grid.observe(lambda change: time.sleep(0.2), 'token')")
    page.locator("canvas.mg-grid").focus()
    for _ in range(12):
        press("ArrowDown")
        page.wait_for_timeout(60)
    notebook.comes("grid.token", 16)

    # Completions come from the kernel for the step that is chosen.
    page.locator("canvas[role=slider]").first.focus()
    press("ArrowRight")
    page.get_by_text("seed 2 at 5").wait_for()
    notebook.comes("scrub.step", 5)
    page.get_by_label("a, seed 1").press("Space")
    page.get_by_text("seed 1 at 5").wait_for(state="detached")
    notebook.comes("scrub.shown", [0, 2])

    # A run is stopped, the notebook stays usable meanwhile, and a second run joins the first picture.
    run, stop = (page.locator("button.jupyter-button", has_text=word) for word in ("Run", "Stop"))
    page.get_by_label("seed", exact=True).or_(page.locator("input[type=number]")).first.fill("7")
    press("Enter")
    page.get_by_text("changed: press Run").wait_for()
    page.get_by_text("Copy as preset").click()
    expect(page.get_by_label("YAML")).to_contain_text("seed: 7")
    run.click()
    page.get_by_text("of 900 steps").wait_for()
    assert notebook.evaluate("1 + 1") == 2
    page.get_by_text("run 2, seed 7", exact=True).wait_for()  # its curves grow while it runs
    reached = "max(n for run, panel, first, n in panel._picture.children[0].extent if run == 1)"
    before = notebook.evaluate(reached)
    assert notebook.comes(reached, lambda now: now > before) < 900
    stop.click()
    page.get_by_text("its curves are kept").wait_for()
    page.get_by_text("run 2, seed 7, stopped", exact=True).first.wait_for()
    notebook.comes("panel._job.running", False)
    notebook.evaluate("setattr(panel._inputs['steps'], 'value', 5)")
    run.click()
    page.get_by_text("done in").wait_for()
    page.get_by_text("run 3, steps 5, seed 7", exact=True).first.wait_for()
    notebook.screenshot("run_panel")

    last = "window.jupyterapp.shell.currentWidget.content.widgets[5]"
    page.evaluate(f"source => {last}.model.sharedModel.setSource(source)", AGAIN)
    notebook.run_cell(5)
    before = notebook.comms()
    for _ in range(6):
        notebook.run_cell(5)
    comes(notebook.comms, before)
    assert notebook.output_errors() == []
    assert notebook.console_errors == []
