"""Text from people in figures: a formula is drawn as one, everything else as it was written."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from matplotlib import pyplot

from labkit.figures import arms, curves, quality_speed, theme
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


def test_half_a_character_is_drawn_as_its_number():
    figure = pyplot.figure()
    drawn = figure.text(0, 0, theme.drawable("run \udcff"))
    figure.canvas.draw()
    assert drawn.get_text() == r"run \udcff"


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


def test_a_plotly_title_is_cut_into_lines_and_gets_their_room():
    figure = theme.plotly_title(go.Figure(), "one two three", letters=7)
    assert figure.layout.title.text == "one two<br>three"
    assert figure.layout.margin.t > theme.plotly_title(go.Figure(), "one").layout.margin.t


def test_what_plotly_draws_is_seen_on_light_and_on_dark_paper():
    """WCAG asks a contrast of 3; Okabe and Ito's bright colours do not have it on white."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    used = {look[0] for look in quality_speed.LOOKS.values()} | {*arms.COLOURS}
    for colour in used:
        assert (light(colour) + 0.05) / (light("#111111") + 0.05) >= 3, colour
        least = 2 if colour in (theme.ORANGE, theme.SKY, theme.PURPLE) else 3
        assert 1.05 / (light(colour) + 0.05) >= least, colour
