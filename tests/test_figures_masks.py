"""Mask figures say what the trace says: their numbers, their marks, their windows."""

import numpy as np
import pytest
from matplotlib import pyplot

from labkit.figures import masks
from labkit.traces import MaskTrace


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    activations = np.maximum(rng.normal(size=(2, 6, 16)), 0) ** 2
    order = np.argsort(np.argsort(-activations.reshape(2, 6, 4, 4), axis=-1, kind="stable"), axis=-1)
    return MaskTrace(
        activations, (order < 2).reshape(activations.shape), ["a", "\n", " b", "$x", "é", "z" * 20]
    )


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def drawn(axis):
    """{size: number of marks} of the scatters; crosses have size 34, dots 12, squares 105."""
    found = {}
    for collection in axis.collections:
        for size in {float(s) for s in collection.get_sizes()} if len(collection.get_offsets()) else ():
            found[size] = found.get(size, 0) + len(collection.get_offsets())
    return found


def test_every_cell_of_the_window_is_drawn_once_with_its_mark(trace):
    grid = masks.mask_grid(trace, layer=1, tokens=6, groups=4).axes[0]
    values, kept = trace.activations[1], trace.kept[1]
    zero, dropped = (values == 0).sum(), ((values != 0) & ~kept).sum()
    marks = drawn(grid)
    assert marks[12.0] == zero
    assert marks[34.0] == dropped
    assert marks[105.0] == values.size - zero
    assert len(grid.patches) == 6 * 4  # one box per group


def test_the_title_counts_the_window(trace):
    trace.activations[0, :2, :8] = [[1, 2, 3, 0, 0, 0, 0, 0]] * 2
    trace.kept[0, :2, :8] = [[False, True, True, False, True, True, False, False]] * 2
    title = masks.mask_grid(trace, layer=0, tokens=2, groups=2).get_suptitle()
    assert title == "Layer 0, this window: 62% zero by itself, 12% more by the mask"


def test_white_space_is_visible_and_dollars_are_no_formula(trace):
    axis = masks.mask_grid(trace).axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["a", "↵", "␣b", r"\$x", "é", "zzzzzzzzzzz…"]


def test_the_window_stays_inside(trace):
    axis = masks.mask_grid(trace, token=5, group=3, tokens=3, groups=2).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["8", "12"]
    assert len(axis.get_yticklabels()) == 3


def test_shares_add_up_to_everything(trace):
    left = masks.layer_shares(trace).axes[0]
    widths = np.array([bar.get_width() for bar in left.patches]).reshape(3, 2)
    np.testing.assert_allclose(widths.sum(0), 100)
    np.testing.assert_allclose(widths[1], 100 * trace.enforced_zeros)
    assert len({bar.get_hatch() for bar in left.patches}) == 3  # told apart without colour


def test_group_counts_are_shares_of_groups(trace):
    figure = masks.group_counts(start=trace, after_training=trace)
    for axis in figure.axes:
        for line in axis.lines:
            assert line.get_ydata().sum() == pytest.approx(100)
        measured = [line.get_ydata()[3:].sum() for line in axis.lines[1:]]
        np.testing.assert_allclose(measured, 100 * trace.crowded_groups)
    assert figure.axes[1].get_title(loc="left") + figure.axes[1].get_title() == "after training"
    assert f"{100 * trace.crowded_groups.mean():.1f} %" in figure.get_suptitle()


@pytest.mark.parametrize(("value", "layers"), [(np.nan, 1), (np.inf, 1), (np.nan, 2)])
def test_layers_without_an_energy_are_told(trace, value, layers):
    trace.activations[:layers, 0, 0] = value
    figure = masks.layer_shares(trace)
    figure.canvas.draw()
    assert figure.get_suptitle().endswith(f"of the energy; NaN or infinity in {layers} of 2 layers")
    assert len(figure.axes[1].texts) == 2 - layers
    masks.mask_grid(trace).canvas.draw()


def test_all_zero_activations_draw(trace):
    trace.activations[:] = 0
    masks.mask_grid(trace)
    masks.layer_shares(trace)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, "layer must be an integer between 0 and 1; got 2"),
        ({"token": 6}, "token must be an integer between 0 and 5; got 6"),
        ({"group": -1}, "group must be an integer between 0 and 3; got -1"),
        ({"tokens": 0}, "tokens must be an integer >= 1; got 0"),
    ],
)
def test_bad_windows(trace, options, message):
    with pytest.raises(ValueError, match=message):
        masks.mask_grid(trace, **options)
