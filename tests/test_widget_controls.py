"""run_panel: Run and Stop of real threads, visible errors, a preset that works when pasted, no leaks."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import plotly.graph_objects as go
import pytest
import torch
import yaml
from ipywidgets import HTML, BoundedIntText, Dropdown, FloatSlider, IntSlider, SelectMultiple
from ipywidgets.widgets.widget import _instances
from notebook_maker import write_notebook

from labkit.figures import theme
from labkit.notebooks import NOTEBOOKS
from labkit.paths import ROOT
from labkit.traces import TrainTrace
from labkit.widgets import Comparison, base, controls, run_panel
from labkit.widgets.take_away import preset

PARAMETERS = """steps: int = 3  # a
rate: float = 0.5  # b
kind: str = "x"  # c
seeds: list = [0]  # d"""


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(base, "display", lambda thing, **_: found.append(thing))
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    theme.apply()
    return found


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(
        tmp_path / "trivial.ipynb", "print(steps, rate, kind, seeds)", parameters=PARAMETERS
    )


def picture(result):
    return go.Figure(layout={"title": str(result)})


def title(panel):
    """The title of the figure that the panel shows."""
    (output,) = panel._picture.children[0].outputs
    return output["data"]["application/vnd.plotly.v1+json"]["layout"]["title"]["text"]


def wait(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def count(steps, progress, kind="x"):
    for step in range(steps):
        if kind == "bad":
            raise ValueError("kind must not be bad; got 'bad'")
        progress(step + 1, steps)
    return f"{steps} steps"


def test_run_draws_what_the_function_returns(shown, notebook):
    slider = IntSlider(4, 1, 9)
    panel = run_panel(count, picture, notebook=notebook, result="before", steps=slider)
    assert title(panel) == "before"
    assert "not yet" in panel._strip.value
    slider.value = 7
    panel._run.click()
    wait(lambda: not panel._run.disabled)
    assert title(panel) == "7 steps"
    assert "done in" in panel._state.value
    assert panel._bar.value == 1
    for word in ("device", "backend", "versions", "commit", "ran"):
        assert f"<b>{word}</b>" in panel._strip.value


def test_a_picture_can_be_a_widget_and_the_former_one_is_closed(shown, notebook):
    panel = run_panel(count, HTML, notebook=notebook, result="a", steps=IntSlider(1))
    (former,) = panel._picture.children
    panel.start()
    wait(lambda: not panel._run.disabled)
    assert panel._picture.children[0].value == "1 steps"
    assert former.comm is None


def test_a_moved_control_is_told_apart_from_the_picture(shown, notebook):
    slider = IntSlider(2, 1, 9)
    panel = run_panel(count, picture, notebook=notebook, result="a", steps=slider)
    slider.value = 3
    assert panel._state.value == "changed: press Run"
    slider.value = 2
    assert panel._state.value == ""


def test_stop_ends_the_work_at_its_next_step(shown, notebook):
    steps_done, may_go = [], threading.Semaphore(0)

    def slow(steps, progress):
        for step in range(steps):
            may_go.acquire()
            steps_done.append(step)
            progress(step + 1, steps)
        return "finished"

    panel = run_panel(slow, picture, notebook=notebook, result="before", steps=IntSlider(9, 1, 9))
    panel._run.click()
    may_go.release()
    wait(lambda: len(steps_done) == 1)
    assert panel._run.disabled
    assert not panel._stop.disabled
    panel.start()  # a second press does not start a second run
    panel._stop.click()
    may_go.release(8)  # all that are left, if it went on
    wait(lambda: not panel._job._thread.is_alive())
    assert steps_done == [0, 1]
    assert "stopped after 2 of 9 steps" in panel._state.value
    assert title(panel) == "before"
    assert not panel._run.disabled


def test_curves_grow_while_a_training_runs_and_a_stopped_one_is_kept(shown, notebook, monkeypatch):
    monkeypatch.setattr(controls, "GROW", 0)
    may_go = threading.Semaphore(0)

    def training(steps, progress):
        rows = []
        for step in range(1, steps + 1):
            may_go.acquire()
            rows.append({"step": step, "reward": torch.tensor(step / 2), "note": "text is no curve"})
            progress.rows(rows)
            progress(step, steps)
        return TrainTrace.from_log([row | {"reward": float(row["reward"])} for row in rows])

    def curve():
        (scrubber,) = panel._picture.children
        return {run["arm"]: n for run, (*_, n) in zip(scrubber.runs, scrubber.extent, strict=True)}

    panel = run_panel(training, Comparison(on=["reward"]), notebook=notebook, steps=IntSlider(3, 1, 9))
    panel.start()
    may_go.release()
    wait(lambda: panel._picture.children and curve() == {"run 1, steps 3": 1})
    (grown,) = panel._picture.children
    may_go.release()
    wait(lambda: curve() == {"run 1, steps 3": 2})
    panel.stop()
    may_go.release()
    wait(lambda: not panel._run.disabled)
    assert panel._state.value == "stopped after 3 of 3 steps; its curves are kept"
    assert curve() == {"run 1, steps 3, stopped": 3}
    panel.start()
    may_go.release(3)
    wait(lambda: not panel._run.disabled)
    assert curve() == {"run 1, stopped": 3, "run 2": 3}
    assert panel._picture.children == (grown,)  # one instrument that changed in its place
    assert grown.comm is not None


def test_a_result_from_outside_keeps_its_own_settings(shown, notebook):
    """The first picture may be of another method than the one that the panel offers first."""

    def training(steps, kind, progress):
        return TrainTrace.from_log([{"step": 1, "reward": 0.5}])

    made = TrainTrace.from_log([{"step": 1, "reward": 0.5}], meta={"kind": "fgo"})
    kind = Dropdown(options=["grpo", "fgo"], value="grpo")
    draw = Comparison(on=["reward"])
    panel = run_panel(training, draw, notebook=notebook, result=made, steps=IntSlider(3), kind=kind)
    (scrubber,) = panel._picture.children
    assert [run["arm"] for run in scrubber.runs] == ["run 1, kind fgo"]  # not grpo, and of unknown steps
    assert scrubber.title == "Run 1, kind fgo"
    panel.start()
    wait(lambda: not panel._run.disabled)
    assert [run["arm"] for run in scrubber.runs] == ["run 1, kind fgo", "run 2, kind grpo"]


def test_closing_the_panel_stops_its_run(shown, notebook):
    started = threading.Event()

    def endless(steps, progress):
        for step in range(10**9):
            started.set()
            progress(step, None)
            time.sleep(0.005)

    panel = run_panel(endless, picture, notebook=notebook, result=1, name="closing", steps=IntSlider())
    panel.start()
    assert started.wait(60)
    run_panel(count, picture, notebook=notebook, result=1, name="closing", steps=IntSlider())
    panel._job._thread.join(5)
    assert not panel._job._thread.is_alive()


def test_an_error_is_seen_in_the_panel_and_the_panel_goes_on(shown, notebook):
    kind = Dropdown(options=["x", "bad"], value="bad")
    panel = run_panel(count, picture, notebook=notebook, result=1, steps=IntSlider(2, 1, 3), kind=kind)
    panel._run.click()
    wait(lambda: not panel._run.disabled)
    assert "kind must not be bad" in panel._problem.value
    assert "role='alert'" in panel._problem.value
    kind.value = "x"
    panel._run.click()
    wait(lambda: not panel._run.disabled)
    assert panel._problem.value == ""
    assert title(panel) == "2 steps"


def test_headless_runs_or_draws_and_raises(shown, notebook, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")

    def silent(steps, progress):
        assert progress is False
        return "ran"

    assert run_panel(silent, picture, notebook=notebook, steps=IntSlider(2)) is None
    assert run_panel(silent, picture, notebook=notebook, result="given", steps=IntSlider(2)) is None
    assert [figure.layout.title.text for figure in shown] == ["ran", "given"]
    assert "-f preset.yaml" in capsys.readouterr().out
    with pytest.raises(TypeError):
        run_panel(count, picture, notebook=notebook, steps=IntSlider(2))  # False is no function


def test_bad_use_is_one_clear_error(notebook):
    with pytest.raises(ValueError, match="run must be a function that takes progress="):
        run_panel(lambda steps: steps, picture, notebook=notebook, steps=IntSlider())
    with pytest.raises(ValueError, match="parameter must be one of .*; got 'stepz'"):
        run_panel(count, picture, notebook=notebook, stepz=IntSlider())
    with pytest.raises(ValueError, match="steps must be a int for trivial; got 0.5"):
        run_panel(count, picture, notebook=notebook, steps=FloatSlider(0.5))


def test_the_preset_follows_the_controls_and_comes_back_as_it_was(shown, notebook):
    rate = FloatSlider(1e-5, min=0, max=1, step=1e-5)
    seeds = SelectMultiple(options=[0, 1, 2], value=[0, 2])
    panel = run_panel(
        count, picture, notebook=notebook, result=1, steps=BoundedIntText(3, 0, 9), rate=rate, seeds=seeds,
        kind=Dropdown(options=["yes", "x"], value="yes"),
    )  # fmt: skip
    wanted = {"steps": 3, "rate": 1e-5, "seeds": [0, 2], "kind": "yes"}
    assert panel.values == wanted
    assert yaml.safe_load(panel._copy.preset) == wanted
    rate.value = 0.25
    assert yaml.safe_load(panel._copy.preset) == wanted | {"rate": 0.25}
    assert "rate: 0.25" in panel._copy.command


def test_the_commands_run_when_pasted(notebook):
    _, commands = preset(notebook, {"steps": 8, "rate": 1e-5, "kind": "yes", "seeds": [3, 4]})
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LABKIT_RUNS": str(notebook.parent / "runs"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-e"], input=commands, cwd=notebook.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for executed in (notebook.parent / "out.ipynb", notebook.parent / "runs" / "latest" / "trivial.ipynb"):
        assert "8 1e-05 yes [3, 4]" in executed.read_text()


def test_the_labs_own_notebooks_are_named_from_its_folder():
    _, commands = preset(NOTEBOOKS / "06_fgo_entropy.ipynb", {"steps": 30})
    assert "papermill notebooks/06_fgo_entropy.ipynb out.ipynb --cwd notebooks -f preset.yaml" in commands
    assert "labkit run 06_fgo_entropy --preset preset.yaml" in commands
    assert str(ROOT) not in commands


def test_twenty_re_runs_leak_nothing(shown, notebook):
    counts = []
    for _ in range(20):
        run_panel(count, picture, notebook=notebook, result=1, steps=IntSlider(1, 0, 5))
        counts.append(len(_instances))
    assert counts[-1] == counts[1]
