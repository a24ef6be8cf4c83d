"""The study's statistics and its figures."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from labkit.figures import quality_speed, theme
from labkit.figures.threshold import at_threshold
from labkit.soar import decode
from labkit.soar.tasks.sudoku import puzzles
from labkit.studies.soar import outcomes as study


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


def test_every_row_is_paired_with_the_first_setting(outcomes):
    assert outcomes[0]["label"] == "greedy"
    assert 0.05 < outcomes[0]["accuracy"] < 0.95  # else there is nothing to gain or to lose
    rows = study.against(outcomes)
    assert (rows[0].gain.estimate, rows[0].tests, rows[0].speed) == (0, ((0, 0, 1.0),), 1)
    for row, o in zip(rows, outcomes, strict=True):
        assert row.label == o["label"]
        gained = int((o["right"] & ~outcomes[0]["right"]).sum())
        lost = int((outcomes[0]["right"] & ~o["right"]).sum())
        assert row.tests[0][:2] == (gained, lost)
        assert row.gain.estimate == pytest.approx((gained - lost) / 60)
        assert row.gain.low <= row.gain.estimate <= row.gain.high
        assert row.share.estimate == pytest.approx(o["right"].mean())
        assert (row.gain.n, row.gain.unit) == (60, "puzzles")
        assert row.speed == pytest.approx(outcomes[0]["calls"] / o["calls"])
    parallel = next(o for o in outcomes if o["label"] == "parallel 2")
    assert 1.3 < parallel["speed"] <= 2


def test_adaptive_decoding_without_a_cap_fills_all_that_is_sure():
    empty = np.zeros((1, 16), int)
    settings = [s for s in study.grid((), (0.0,), ()) if s["strategy"] == "adaptive"]
    capped, free = study.compare(guessing, empty, empty, settings, progress=False)
    assert (capped["family"], capped["calls"]) == ("adaptive", 4)  # 5, 5, 5 and 1
    assert (free["family"], free["calls"]) == ("adaptive uncapped", 1)


def seed(*right, calls=20.0, of="soar"):
    right = np.array(right, bool)
    return {"label": of, "family": of, "right": right, "accuracy": right.mean(), "calls": calls,
            "rows": 30.0, "speed": 60 / calls, "seconds": 1.0}  # fmt: skip


def test_the_seed_is_the_unit_of_several_trainings():
    own = [seed(1, 1, 1, 0), seed(1, 0, 1, 1, calls=30.0)]
    base = [seed(1, 0, 0, 0, of="greedy"), seed(1, 0, 0, 1, of="greedy")]
    row = study.over_seeds("ours", own, base)
    assert row.gain.values == (0.5, 0.25)
    assert (row.gain.low, row.share.low) == (None, None)
    assert row.tests == ((2, 0, 0.5), (1, 0, 1.0))
    assert (row.calls, row.speed) == (25, 2.5)
    assert "more" not in study.describe(row)
    assert "+50.00 and +25.00 points (2 seeds, no interval) against greedy" in study.describe(row)
    rng = np.random.default_rng(0)
    many = [rng.random(900) for _ in range(3)]
    row = study.over_seeds(
        "x", [seed(*(luck < 0.9)) for luck in many], [seed(*(luck < 0.8)) for luck in many]
    )
    assert row.gain.count == "3 seeds, 900 puzzles each"
    assert study.gain_words(row).endswith("against greedy, more solved")


def test_a_comparison_repeats_itself():
    boards, truths = puzzles(20, seed=2)
    settings = [{"strategy": "greedy"}, {"strategy": "pbs"}]
    one, two = (study.compare(guessing, boards, truths, settings, progress=False) for _ in range(2))
    for outcome in one + two:
        assert outcome.pop("seconds") > 0
        outcome["right"] = outcome["right"].tolist()
    assert one == two


def test_a_study_that_runs_out_of_time_keeps_what_it_has():
    boards, truths = puzzles(5, seed=2)
    settings = study.grid([2], [0.5], [2])
    found = study.compare(guessing, boards, truths, settings, progress=False, deadline=0)
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
        "family": label.split()[0],
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
    with pytest.raises(ValueError, match="of must be the family of one of the outcomes.*; got .pbs."):
        study.choose([greedy, *soar], "pbs")
    assert study.choose([greedy, *soar], want="accurate", speed=2.5)["label"] == "soar b"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"strategy": "greedy"}, "greedy"),
        ({"strategy": "parallel", "max_parallel": 2}, "parallel 2"),
        ({"strategy": "soar", "beam": 4, "threshold": 0.9995}, "soar 4, .9995"),
        ({"strategy": "adaptive", "threshold": 0.9}, "adaptive .9"),
        (
            {"strategy": "adaptive", "threshold": 0.9, "max_parallel": study.UNCAPPED},
            "adaptive .9, uncapped",
        ),
        ({"strategy": "greedy", "block_length": 32}, "greedy blocks of 32"),
        ({"strategy": "klass", "threshold": 0.9, "kl_threshold": 0.01}, "klass .9, .01"),
        (
            {"strategy": "soar", "beam": 4, "threshold": 0.99, "block_length": 64},
            "soar 4, .99, blocks of 64",
        ),
    ],
)
def test_labels(setting, text):
    assert study.label(setting) == text


def test_bad_studies():
    with pytest.raises(ValueError, match="truths must be as many as the boards, 0, at least one"):
        study.compare(guessing, np.zeros((0, 16), int), np.zeros((0, 16), int), [{"strategy": "greedy"}])


def test_the_plane_shows_every_outcome_and_the_published_points(outcomes):
    figure = quality_speed.plane([outcomes, outcomes], ["soar 2, .9"], count=60, name="recorded")
    paper = figure.data[-1]
    ours = [part for part in figure.data[:-1] if part.name != "chosen"]
    drawn = {
        text.split("<b>")[1].split("</b>")[0]: (x, y)
        for part in ours
        for text, x, y in zip(part.hovertext, part.x, part.y, strict=True) if text
    }  # fmt: skip
    assert drawn == {o["label"]: (round(o["speed"], 4), round(100 * o["accuracy"], 4)) for o in outcomes}
    (ring,) = (part for part in figure.data if part.name == "chosen")
    assert (ring.x[0], ring.y[0]) == drawn["soar 2, .9"]
    assert len(paper.x) == len(quality_speed.PUBLISHED)
    assert "no test" in figure.layout.title.text
    assert figure.layout.annotations[0].text == "recorded, 60 puzzles, mean of 2 seeds"


def test_the_table_tells_what_the_rows_hold(outcomes):
    table = quality_speed.table(study.against(outcomes))
    assert table.index.tolist() == [o["label"] for o in outcomes]
    o = next(o for o in outcomes if o["label"] == "parallel 2")
    assert table.loc["parallel 2", "solved (%)"].startswith(f"{100 * o['accuracy']:.2f} (95 % ")
    assert table["against greedy (points)"].iloc[0] == ""


def test_families_differ_in_colour_and_marker():
    assert set(quality_speed.LOOKS) == set(study.FAMILIES)
    for looks in zip(*quality_speed.LOOKS.values(), strict=True):
        assert len(set(looks)) == len(study.FAMILIES)


def test_paired_differences_say_what_is_not_resolved(outcomes):
    rows = study.against(outcomes)
    figure = quality_speed.paired(rows)
    around = sum(row.gain.low <= 0 <= row.gain.high for row in rows[1:])
    assert around  # of so few puzzles no interval lies within the margin
    assert f"0 within 0.1 points, {around} not resolved" in theme.describe(figure)
    assert len(figure.axes[0].texts) == len(rows) - 1
    pyplot.close(figure)


def test_two_seeds_are_drawn_as_marks_without_a_verdict():
    own, base = [seed(1, 1, 0), seed(1, 0, 1)], [seed(1, 0, 0, of="greedy"), seed(0, 0, 1, of="greedy")]
    figure = quality_speed.paired([study.over_seeds("soar 8", own, base)])
    title = theme.describe(figure)
    assert "2 seeds" in title
    assert not any(word in title for word in ("better", "worse", "resolved"))
    (marks,) = (line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert marks.get_xdata() == pytest.approx([100 / 3, 100 / 3])
    pyplot.close(figure)


def test_a_threshold_moves_calls_accuracy_and_one_board(outcomes):
    boards, truths = puzzles(3, seed=5, clues=(6, 6), grids="test")
    prompts = torch.from_numpy(boards)
    own = [o["setting"]["threshold"] for o in outcomes if o["family"] in ("soar", "adaptive")]
    decoded = {t: decode(guessing, prompts, "soar", threshold=t, beam=2) for t in set(own)}
    for wanted in sorted(set(own)):
        figure = at_threshold(outcomes, decoded, truths, threshold=wanted, puzzle=1)
        marks = {part.name: part for part in figure.data if part.type == "scatter"}
        drawn = [size for name in ("soar", "adaptive") for size in marks[name].marker.size]
        assert sum(size > 10 for size in drawn) == own.count(wanted)
        assert f" beams, threshold {wanted:g}: " in figure.layout.title.text
        assert f"greedy: {100 * outcomes[0]['accuracy']:.1f} % in " in figure.layout.title.text
        (board,) = (part for part in figure.data if part.type == "heatmap")
        state = np.array(board.z).ravel()
        assert ((state == 0) == (boards[1] > 0)).all()
        assert ((state == 2) == (decoded[wanted].sequences[1] != truths[1])).all()
    with pytest.raises(ValueError, match="threshold must be one of"):
        at_threshold(outcomes, decoded, truths, threshold=0.123)
    with pytest.raises(ValueError, match="puzzle must be an integer between 0 and 2; got 3"):
        at_threshold(outcomes, decoded, truths, threshold=own[0], puzzle=3)
