"""The study's statistics and its figures."""

from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot

from labkit.figures import quality_speed, theme
from labkit.soar import study
from labkit.soar.sudoku import puzzles


def guessing(tokens):
    """Avoids digits of the own row, else a noisy guess: right now and then."""
    source = torch.Generator().manual_seed(4)
    noise = torch.randn(16, 5, generator=source)
    seen = torch.nn.functional.one_hot(tokens, 5).view(-1, 4, 4, 5).sum(2)
    return noise - 3 * seen.repeat_interleave(4, dim=1)


guessing.mask_id = 0


@pytest.fixture(scope="module")
def outcomes():
    boards, truths = puzzles(60, clues=(12, 14), seed=1)
    settings = study.grid([2], [0.5, 0.9], [2])
    return study.compare(guessing, boards, truths, settings, progress=False)


@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_test_is_exact_and_symmetric(gained, lost):
    p = study.sign_test(gained, lost)
    total, far = gained + lost, abs(gained - lost)
    by_hand = sum(comb(total, k) for k in range(total + 1) if abs(total - 2 * k) >= far) / 2**total
    assert p == pytest.approx(min(1, by_hand))
    assert p == study.sign_test(lost, gained)


def test_sign_test_by_hand():
    assert study.sign_test(0, 0) == 1
    assert study.sign_test(5, 0) == 2 / 32
    assert study.sign_test(27, 7) == pytest.approx(8.2e-4, rel=0.01)


def test_a_comparison_is_paired_with_the_first_setting(outcomes):
    base_line = outcomes[0]
    assert base_line["label"] == "greedy"
    assert (base_line["difference"], base_line["gained"], base_line["lost"]) == (0, 0, 0)
    assert (base_line["p"], base_line["speed"]) == (1, 1)
    assert 0.05 < base_line["accuracy"] < 0.95  # else there is nothing to gain or to lose
    for o in outcomes:
        assert o["difference"] == pytest.approx((o["gained"] - o["lost"]) / 60)
        assert o["accuracy"] == pytest.approx(base_line["accuracy"] + o["difference"])
        assert o["low"] <= o["accuracy"] <= o["high"]
        assert o["difference_low"] <= o["difference"] <= o["difference_high"]
        assert o["speed"] == pytest.approx(base_line["calls"] / o["calls"])
        assert o["z"] == pytest.approx((o["gained"] - o["lost"]) / max(1, o["gained"] + o["lost"]) ** 0.5)
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(o["right"]), np.uint8), count=60)
        assert bits.mean() == pytest.approx(o["accuracy"])
    parallel = next(o for o in outcomes if o["label"] == "parallel 2")
    assert 1.3 < parallel["speed"] <= 2


def test_a_comparison_repeats_itself():
    boards, truths = puzzles(20, seed=2)
    settings = [{"strategy": "greedy"}, {"strategy": "pbs"}]
    one, two = (study.compare(guessing, boards, truths, settings, progress=False) for _ in range(2))
    for outcome in one + two:
        assert outcome.pop("seconds") > 0
    assert one == two


def test_a_study_that_runs_out_of_time_keeps_what_it_has():
    boards, truths = puzzles(5, seed=2)
    settings = study.grid([2], [0.5], [2])
    found = study.compare(guessing, boards, truths, settings, progress=False, seconds=0)
    assert [o["label"] for o in found] == ["greedy"]


def test_the_grid_takes_each_setting_once():
    labels = [study.label(s) for s in study.grid([1, 2], [0.5, 0.9], [2], ("mean", "sum"), (1, 2))]
    assert len(set(labels)) == len(labels)
    assert labels[0] == "greedy"
    assert {"soar 1, .5, collapse 1", "soar 2, .9, sum", "pbs 2"} <= set(labels)
    assert "pbs 1" not in labels  # that is greedy
    assert sum(label.startswith("soar 1") for label in labels) == 2


def fake(label, accuracy, calls):
    return {
        "setting": {"strategy": label.split()[0]},
        "label": label,
        "accuracy": accuracy,
        "calls": calls,
        "speed": 10 / calls,
    }


def test_the_rules_of_choice():
    greedy = fake("greedy", 0.8, 10)
    soar = [fake("soar a", 0.7, 2), fake("soar b", 0.8, 4), fake("soar c", 0.9, 6), fake("soar d", 0.9, 7)]
    assert study.choose([greedy, *soar])["label"] == "soar b"
    assert study.choose([greedy, *soar], want="accurate")["label"] == "soar c"
    assert study.choose([fake("greedy", 0.95, 10), *soar])["label"] == "soar c"
    with pytest.raises(ValueError, match="strategy must be a strategy of one of the outcomes.*; got .pbs."):
        study.choose([greedy, *soar], "pbs")
    assert study.choose([greedy, *soar], want="accurate", speed=2.5)["label"] == "soar b"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"strategy": "greedy"}, "greedy"),
        ({"strategy": "parallel", "max_parallel": 2}, "parallel 2"),
        ({"strategy": "soar", "beam": 4, "threshold": 0.9995}, "soar 4, .9995"),
    ],
)
def test_labels(setting, text):
    assert study.label(setting) == text


def test_bad_studies():
    with pytest.raises(ValueError, match="settings, boards and truths must be non-empty"):
        study.compare(guessing, np.zeros((0, 16), int), np.zeros((0, 16), int), [{"strategy": "greedy"}])


def test_the_plane_shows_every_outcome_and_the_published_points(outcomes):
    figure = quality_speed.plane(outcomes, ["soar 2, .9"], count=60)
    ours, paper = figure.axes
    shown = sum(len(bars.lines[0].get_xdata()) for bars in ours.containers)
    assert shown == len(outcomes)
    assert len(paper.lines) == len(quality_speed.PUBLISHED)
    title = theme.describe(figure)
    assert "not ours" in title
    difference = next(o["difference"] for o in outcomes if o["label"] == "soar 2, .9")
    assert f"{100 * difference:+.1f} points" in title
    pyplot.close(figure)


def test_the_table_tells_what_the_outcomes_hold(outcomes):
    table = quality_speed.table(outcomes, 60)
    assert table.index.tolist() == [o["label"] for o in outcomes]
    parallel = table.loc["parallel 2"]
    o = next(o for o in outcomes if o["label"] == "parallel 2")
    assert parallel["won, lost"] == f"{o['gained']}, {o['lost']}"
    assert parallel["solved (%)"].startswith(f"{100 * o['accuracy']:.2f} [")
    assert (table["puzzles"] == 60).all()


def test_strategies_differ_in_colour_and_marker():
    colours, markers = zip(*quality_speed.LOOKS.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == 5


def test_paired_differences_say_what_is_noise(outcomes):
    figure = quality_speed.paired(outcomes)
    others = outcomes[1:]
    noise = sum(o["difference_low"] <= 0 <= o["difference_high"] for o in others)
    assert f"{noise} within noise" in theme.describe(figure)
    assert len(figure.axes[0].texts) == len(others)
    pyplot.close(figure)
