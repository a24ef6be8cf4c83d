"""Text from people in figures: a formula is drawn as one, everything else as it was written."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from labkit.figures import curves, theme
from labkit.figures.sweep import sweep_curves
from labkit.traces import TrainTrace

BAD = (r"cost $x_$", "$$", r"from $5 \nope $6", r"$\frac{1}$")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def test_a_formula_stays_one():
    assert theme.drawable(r"loss at $\lambda = 0.1$") == r"loss at $\lambda = 0.1$"


@pytest.mark.parametrize("text", [*BAD, "5 $", "plain", r"a\b"])
def test_everything_else_is_drawn_as_it_was_written(text):
    """Matplotlib tells what it would draw: the text, and whether as a formula."""
    figure = pyplot.figure()
    drawn = figure.text(0, 0, theme.drawable(text))
    assert drawn._preprocess_math(drawn.get_text()) == (text, False)
    figure.canvas.draw()


@pytest.mark.parametrize("name", BAD)
def test_a_sweep_draws_any_name(name):
    table = pd.DataFrame({f"x{name}": [1, 2, 1, 2], name: [1.0, 2, 3, 4], "g$": ["$a_$", "$a_$", "b", "b"]})
    figure = sweep_curves(table, [f"x{name}", "g$"], [name])
    figure.canvas.draw()
    assert theme.describe(figure) == f"Figure: {name}: 2 to 3 over x{name}"


@pytest.mark.parametrize("name", BAD)
def test_training_curves_draw_any_name(name):
    trace = TrainTrace(step=np.arange(1, 4), series={"reward": np.ones(3)}, meta={})
    figure = curves.training_curves({name: trace}, {"reward": name}, title=name)
    figure.canvas.draw()
    assert theme.describe(figure) == f"Figure: {name}; {name}"
