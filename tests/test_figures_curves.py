"""Figures of training curves and of groups: what they draw is what the trace holds."""

import numpy as np
import pytest
from matplotlib import pyplot

from labkit.figures import curves, groups
from labkit.traces import GroupTrace, TrainTrace


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def run(values, steps=None, **more):
    steps = np.arange(1, len(values) + 1) if steps is None else np.array(steps)
    series = {"reward": np.array(values, float)} | {k: np.array(v, float) for k, v in more.items()}
    return TrainTrace(step=steps, series=series, meta={"arm": "fgo"})


def test_seeds_are_stacked_at_the_common_steps():
    steps, table = curves.stacked([run([1, 2, np.nan, 4]), run([3, 6, 7, 0])], "reward")
    assert steps.tolist() == [1, 2, 4]
    assert table.tolist() == [[1, 2, 4], [3, 6, 0]]


def test_a_series_accumulates():
    assert curves.stacked(run([1, 2, 3, 10]), "reward", cumulative=True)[1].tolist() == [[1, 3, 6, 16]]


@pytest.mark.parametrize(("seeds", "lines", "bands"), [(1, 1, 0), (2, 2, 0), (3, 1, 1)])
def test_two_seeds_are_two_lines_and_three_a_band(seeds, lines, bands):
    arm = [run([index, 2 * index]) for index in range(seeds)]
    (axis,) = curves.training_curves({"FGO": arm}, {"reward": "r"}, columns=1).axes
    assert (len(axis.lines), len(axis.collections)) == (lines, bands)
    assert axis.get_legend_handles_labels()[1] == ["FGO"]
    if bands:
        assert axis.lines[0].get_ydata().tolist() == [1, 2]


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_training_curves_draw_every_panel_with_labels(count):
    names = ["fgo/invalid_groups", *(f"s{i}" for i in range(1, count))]
    arms = {
        "GRPO": [run([1, 2], **{n: [i, i + 1] for i, n in enumerate(names)})],
        "FGO": run([1, 2], **{n: [5, 6] for n in names}),
    }
    panels = {name: name.upper() for name in names}
    figure = curves.training_curves(arms, panels, title="finding", columns=3)
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(panels.values())
    assert figure.get_suptitle() == "finding"
    for index, axis in enumerate(figure.axes):
        grpo, fgo = axis.lines
        assert grpo.get_ydata().tolist() == ([0, 1] if index == 0 else [index, index + 1])
        assert fgo.get_ydata().tolist() == ([5, 11] if index == 0 else [5, 6])
        assert grpo.get_color() != fgo.get_color()
        assert grpo.get_marker() != fgo.get_marker()
        assert grpo.get_linestyle() != fgo.get_linestyle()
    last_row = figure.axes[-1]
    assert last_row.get_xlabel() == "optimiser step"


def test_curves_name_what_they_do_not_know():
    with pytest.raises(ValueError, match=r"name must be one of \['reward'\]; got 'loss'"):
        curves.stacked(run([1]), "loss")
    with pytest.raises(ValueError, match="arm must be a TrainTrace or a non-empty list"):
        curves.stacked([], "reward")
    with pytest.raises(ValueError, match="columns must be an integer >= 1; got 0"):
        curves.training_curves({"a": run([1])}, {"reward": "r"}, columns=0)


def test_sample_table_shows_one_step_and_escapes():
    trace = run([1, 2])
    trace.samples = [
        {"step": 1, "prompt": "Q", "text": "<b>", "correct": True, "length": 3, "entropy": 0.5},
        {"step": 2, "prompt": "Q", "text": "later", "correct": False, "length": 4, "entropy": 0.25},
    ]
    shown = curves.sample_table(trace, 1).data
    assert "&lt;b&gt;" in shown
    assert "✓ right" in shown
    assert "later" not in shown
    with pytest.raises(ValueError, match="step must be one of 1, 2; got 3"):
        curves.sample_table(trace, 3)


def test_what_a_sample_does_not_know_is_left_open():
    sample = {"step": 1, "text": "7", "prompt": None, "length": None, "entropy": None}
    asked = [{"role": "user", "content": "3+4"}]  # a conversation, as TRL has prompts
    trace = TrainTrace(np.arange(2), samples=[sample, sample | {"prompt": asked, "length": 1}])
    shown = curves.sample_table(trace, 1).data
    assert ">7</span>" in shown
    assert "3+4" in shown
    assert "None" not in shown


def test_totals_sum_each_run():
    assert curves.totals([run([1, 2]), run([3, 6])], "reward") == [3, 9]


def test_before_after_states_the_means_over_seeds():
    def seed(accuracy, length):
        trace = run([1])
        for when, scale in (("before", 1), ("after", 2)):
            trace.meta[when] = {"accuracy": accuracy * scale, "length": length / scale}
        return trace

    arms = {"GRPO": seed(0.25, 40), "FGO": [seed(0.3, 20), seed(0.5, 30)]}
    assert curves.before_after(arms) == (
        "GRPO: accuracy 25% → 50%, 40.0 → 20.0 tokens; FGO: accuracy 40% → 80%, 25.0 → 12.5 tokens"
    )


# Groups


def trace_of(correct, fgo, grpo, length=None):
    correct = np.array(correct, bool)
    size = correct.shape
    return GroupTrace(
        prompts=[f"Q{i}" for i in range(size[0])], answers=["3"] * size[0],
        texts=[[f"<{g}>;A3$" for g in range(size[1])]] * size[0],
        correct=correct, length=np.array(length or [range(10, 10 + size[1])] * size[0]),
        entropy={k: np.arange(correct.size, dtype=float).reshape(size) for k in groups.UNITS},
        advantages={"fgo": np.array(fgo, float), "grpo": np.array(grpo, float)},
        meta={"settings": {"entropy": "full_sum", "alpha": 0.01, "beta": 1.0}},
    )  # fmt: skip


MIXED = trace_of([[1, 1, 0, 0]], [[0.7, 0.3, -0.4, -0.6]], [[0.9, 0.9, -0.9, -0.9]])
FINDINGS = [
    (MIXED, "Equally right, yet FGO gives +0.70 to +0.30; GRPO gives each the same +0.90"),
    (
        trace_of([[1, 0, 0]], [[1, -0.4, -0.6]], [[1.1, -0.6, -0.6]]),
        "Equally wrong, yet FGO gives -0.40 to -0.60; GRPO gives each the same -0.60",
    ),
    (
        trace_of([[0, 0]], [[0.1, -0.1]], [[0, 0]]),
        "All 2 wrong: GRPO is silent, FGO spreads -0.10 to +0.10",
    ),
    (trace_of([[1, 1]], [[0, 0]], [[0, 0]]), "2 of 2 right: this group is silent under FGO and GRPO"),
    (
        trace_of([[1, 0]], [[1, -1]], [[0.7, -0.7]]),
        "1 right, 1 wrong: FGO +1.00 and -1.00, as GRPO without scaling",
    ),
]


@pytest.mark.parametrize(("trace", "sentence"), FINDINGS)
def test_finding_is_computed_and_titles_the_figures(trace, sentence):
    assert groups.finding(trace, 0) == sentence
    assert groups.hover_group(trace, 0).layout.title.text == sentence
    assert groups.hover_group(trace, 0, "What if: ").layout.title.text == f"What if: {sentence}"


def test_a_group_draws_each_response_where_it_belongs():
    drawn = {(part.name, part.xaxis): part for part in groups.hover_group(MIXED, 0).data}
    for column, across in (("x", MIXED.length), ("x2", MIXED.entropy["full_sum"])):
        for method in ("fgo", "grpo"):
            right, wrong = (drawn[f"{method.upper()}, {word}", column] for word in ("right", "wrong"))
            assert [*right.x, *wrong.x] == across[0].tolist()
            assert [*right.y, *wrong.y] == MIXED.advantages[method][0].tolist()
            assert right.marker.symbol != wrong.marker.symbol


def test_hover_shows_the_escaped_response():
    figure = groups.hover_group(MIXED, 0)
    assert len(figure.data) == 8  # two methods x right and wrong x two panels
    assert "&lt;0&gt;;<br>A3$" in figure.data[0].hovertext[0]
    assert list(figure.data[0].y) == [0.7, 0.3]


def test_response_table_sorts_by_length_and_escapes():
    trace = trace_of([[1, 0]], [[1, -1]], [[1, -1]], length=[[30, 10]])
    table = groups.response_table(trace, 0).data
    assert table.index("&lt;1&gt;") < table.index("&lt;0&gt;")
    assert "✓ right" in table
    assert "✗ wrong" in table


def test_silent_groups_counts_and_titles():
    trace = trace_of(
        [[1, 1], [0, 0], [1, 0]], [[0.1, -0.1], [0, 0], [1, -1]], [[0, 0], [0, 0], [0.7, -0.7]]
    )
    assert groups.silent_share(trace, "grpo") == pytest.approx(2 / 3)
    figure = groups.silent_groups(trace)
    assert figure.get_suptitle() == "67% of groups teach GRPO nothing; for FGO it is 33%"
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in figure.axes[0].patches}
    assert bars == {0: 1, 1: 1, 2: 1}
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[1].lines}
    assert lines == {"FGO": [0, 1, 0.1], "GRPO": [0, 0.7, 0]}


def test_entropy_kinds_states_the_correlations():
    trace = trace_of([[1, 0, 1, 0]], [[0] * 4], [[0] * 4])
    trace.entropy["full_mean"] = -trace.entropy["full_mean"]
    title = groups.entropy_kinds(trace).get_suptitle()
    assert title == "Correlation with length: 1.00 for the summed entropy, -1.00 per token"


def test_reweighed_says_what_is_a_what_if():
    asked = []

    def run(trace, **settings):
        asked.append((trace, settings))
        return MIXED

    other = trace_of([[0, 0, 0, 0]], MIXED.advantages["fgo"], MIXED.advantages["grpo"])
    traces = {"as graded": MIXED, "all wrong": other}
    titles = [
        groups.reweighed(traces, run, 0, grades, alpha=alpha, entropy="full_sum").layout.title.text
        for grades, alpha in (("as graded", 0.01), ("as graded", 2.0), ("all wrong", 0.01))
    ]
    assert titles == [FINDINGS[0][1], *[f"What if: {FINDINGS[0][1]}"] * 2]
    assert [trace for trace, _ in asked] == [MIXED, MIXED, other]
    assert asked[1][1] == {"alpha": 2.0, "entropy": "full_sum"}
    with pytest.raises(ValueError, match="group must be an integer between 0 and 0; got 1"):
        groups.reweighed(traces, run, 1, "as graded")
