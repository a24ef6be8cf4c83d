"""explore: the static twin headless, visible errors live, and nothing left behind by re-runs."""

import threading
import types

import ipywidgets
import nbformat
import plotly.graph_objects as go
import pytest
from nbclient import NotebookClient
from notebook_maker import write_notebook

from labkit.widgets import base, explore


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(base, "display", lambda thing, **_: found.append(thing))
    return found


def fail_at_three(size):
    if size == 3:
        raise ValueError("size must not be 3; got 3")
    return go.Figure(layout={"title": f"size {size}"})


def test_headless_shows_one_figure_says_what_is_missing_and_raises(shown, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    explore(fail_at_three, name="a", size=ipywidgets.IntSlider(2, 0, 5))
    figure, missing = shown
    assert figure.layout.title.text == "size 2"
    assert missing.data.startswith("Moving the controls of this picture needs Python")
    with pytest.raises(ValueError, match="size must not be 3"):
        explore(fail_at_three, name="a", size=ipywidgets.IntSlider(3, 0, 5))


def test_live_redraws_and_shows_errors(shown, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    slider = ipywidgets.IntSlider(1, 0, 5)
    explore(fail_at_three, name="b", size=slider)
    panel = shown[-1]
    problem = next(child for child in panel.children if isinstance(child, ipywidgets.HTML))
    slider.value = 3
    assert "size must not be 3; got 3" in problem.value
    assert "role='alert'" in problem.value
    slider.value = 4
    assert problem.value == ""
    titles = [item.layout.title.text for item in shown if isinstance(item, go.Figure)]
    assert titles == ["size 1", "size 4"]


def test_twenty_re_runs_leak_nothing(shown, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    counts = []
    for _ in range(20):
        explore(fail_at_three, name="c", size=ipywidgets.IntSlider(1, 0, 5))
        counts.append(len(ipywidgets.widgets.widget._instances))
    assert counts[-1] == counts[1]


def test_panels_of_one_name_in_two_cells_are_two(shown, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    shell, panels = types.SimpleNamespace(), []
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    monkeypatch.setattr(base, "_flush_in_turn", lambda: None)
    for cell in ("first", "second", "first"):
        shell.get_parent = lambda cell=cell: {"metadata": {"cellId": cell}}
        panels.append(base.present(lambda: base.Panel(go.Figure, {}), name="tree"))
    assert [panel.comm is None for panel in panels] == [True, False, False]


def test_the_end_of_a_cell_waits_for_a_callback_that_draws(monkeypatch):
    from IPython.core.events import EventManager
    from matplotlib_inline import backend_inline

    flushed = []

    def flush_figures():
        flushed.append(True)

    shell = types.SimpleNamespace()
    shell.events = EventManager(shell, {"post_execute": lambda: None})
    shell.events.register("post_execute", flush_figures)
    monkeypatch.setattr(backend_inline, "flush_figures", flush_figures)
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    base._flush_in_turn()
    base._flush_in_turn()  # once is enough
    assert len(shell.events.callbacks["post_execute"]) == 1
    with base._drawing:
        cell = threading.Thread(target=shell.events.trigger, args=("post_execute",))
        cell.start()
        cell.join(0.2)
        assert not flushed
    cell.join(5)
    assert flushed == [True]


def test_a_figure_in_a_notebook_has_its_title_as_text(tmp_path):
    source = (
        "from matplotlib import pyplot\nfrom labkit.figures import theme\n"
        "from labkit.widgets.base import show\ntheme.apply()\n"
        "figure, _ = pyplot.subplots()\nfigure.suptitle('a finding')\nshow(figure)"
    )
    book = nbformat.read(write_notebook(tmp_path / "title.ipynb", source, parameters="n: int = 1  # x"), 4)
    NotebookClient(book).execute()
    _, picture = book.cells[2].outputs  # the first is the page's style
    assert picture.data["text/plain"] == "Figure: a finding"
