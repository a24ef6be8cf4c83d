"""What is read off recorded studies, by hand on made-up traces, and the figures that show it."""

import json

import numpy as np
import pytest
from matplotlib import pyplot

from labkit.fgo.lab.groups import sample_sums
from labkit.fgo.lab.reasoner import build_char_model, load_reasoner
from labkit.fgo.tasks import is_correct, verbose_sums
from labkit.figures import arms as figures
from labkit.studies import published, report
from labkit.studies.fgo import claims, records
from labkit.studies.fgo.arms import ARMS as PLANNED
from labkit.studies.fgo.frontier import at_equal_length, frontier, strongest_rival, without_entropy
from labkit.traces import TrainTrace


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def exam(accuracy, length, token=0.2, **more):
    return {
        "accuracy": accuracy, "length": length, "act": 5.0,
        "entropy": 2.0, "entropy_per_token": token, "entropy_choice": 0.4, "entropy_result": 0.1,
        "choice_share": 0.1, "checks": 1.0, **more,
    }  # fmt: skip


def run(arm, seed, after, tokens=(0.3, 0.2, 0.1), invalid=(10, 20, 40), greedy=None):
    step = np.arange(4)
    nan = np.nan
    series = {
        "exam/entropy_per_token": np.array([*tokens, nan]),
        "fgo/invalid_groups": np.array([nan, *invalid], float),
        "fgo/constant_groups": np.array([nan, 1, 2, 3]),
        **{f"exam/{k}": np.array([1, 2, 3, nan]) for k in ("entropy_choice", "entropy_result", "checks")},
    }
    meta = {"arm": arm, "seed": seed, "before": exam(0.5, 60), "after": after, "learning_rate": 5e-5}
    meta |= {"steps": 3, "questions": 2}
    meta |= {"before_greedy": exam(0.55, 50), "after_greedy": greedy or after}
    return TrainTrace(step=step, series=series, meta=meta)


ARMS = {
    "GRPO": [run("GRPO", 0, exam(0.80, 50)), run("GRPO", 1, exam(0.82, 50))],
    "FGO": [
        run("FGO", 0, exam(0.83, 30, entropy=1.0), tokens=(0.3, 0.3, 0.05), greedy=exam(0.7, 25)),
        run("FGO", 1, exam(0.83, 30, entropy=1.0), tokens=(0.3, 0.3, 0.05), greedy=exam(0.7, 25)),
    ],
    "mean entropy": [run("mean entropy", 0, exam(0.8, 60), tokens=(0.3, 0.3, 0.3))],
}


def line(name, ends, seeds=2):
    """An arm of so many seeds that ends at (accuracy, length)."""
    return [run(name, seed, exam(*ends)) for seed in range(seeds)]


# Seven arms whose places are easy to see: the linear penalty's line passes above FGO.
PLACED = {
    "GRPO": line("GRPO", (0.80, 50)),
    "linear penalty 0.06": line("linear penalty 0.06", (0.90, 40)),
    "linear penalty 1": line("linear penalty 1", (0.80, 20)),
    "ShorterBetter 0.08": line("ShorterBetter 0.08", (0.78, 28)),
    "FGO": line("FGO", (0.83, 30)),
    "FGO, alpha 1": line("FGO, alpha 1", (0.82, 10)),
    "w/o entropy, alpha 1": line("w/o entropy, alpha 1", (0.81, 12)),
}


def test_two_seeds_are_two_differences_without_an_interval():
    found = claims.difference(ARMS)
    assert found["length"].values == pytest.approx((-0.4, -0.4))
    assert found["accuracy"].values == pytest.approx((0.03, 0.01))
    assert (found["length"].low, found["accuracy"].low) == (None, None)
    assert claims.describe_difference(ARMS) == (
        "accuracy +3.0 and +1.0 points (2 seeds, no interval), length -40 and -40 % (2 seeds, no interval)"
    )
    with pytest.raises(ValueError, match="arm must be one of 'GRPO', 'FGO', 'mean entropy'; got 'PPO'"):
        claims.difference(ARMS, "PPO")


def test_three_seeds_have_a_t_interval_and_a_verdict():
    arms = {
        "GRPO": [run("GRPO", seed, exam(0.8, 50)) for seed in range(3)],
        "FGO": [run("FGO", seed, exam(0.8 + 0.01 * seed, 30)) for seed in (2, 0, 1)],
    }
    gap = claims.difference(arms)["accuracy"]
    assert gap.values == pytest.approx((0, 0.01, 0.02))
    assert gap.high - gap.estimate == pytest.approx(4.302653 * 0.01 / 3**0.5)
    assert claims.sentence(arms, "FGO", "GRPO") == (
        "FGO minus GRPO: accuracy +1.0 points (95 % -1.5 to +3.5, 3 seeds): not resolved at n = 3 seeds, "
        "length -40 % (95 % -40 to -40, 3 seeds): shorter"
    )


def test_the_difference_of_greedy_answers():
    found = claims.difference(ARMS, exam="greedy")
    assert found["length"].values == pytest.approx((-0.5, -0.5))
    assert found["accuracy"].values == pytest.approx((-0.1, -0.12))
    with pytest.raises(ValueError, match="exam must be one of 'sampled', 'greedy'; got 'oral'"):
        claims.difference(ARMS, exam="oral")


def test_the_strongest_rival_writes_no_more_and_is_the_most_accurate_of_those():
    assert strongest_rival(PLACED) == "linear penalty 1"  # GRPO and the weaker penalty write more
    assert strongest_rival(PLACED, "w/o entropy, alpha 1") == "linear penalty 1"  # none is so short
    assert without_entropy(PLACED, "FGO, alpha 1") == "w/o entropy, alpha 1"
    assert [without_entropy(PLACED, arm) for arm in ("FGO", "GRPO")] == [None, None]
    assert claims.twins(PLACED) == [("FGO, alpha 1", "w/o entropy, alpha 1")]


def test_at_equal_length_an_arm_stands_against_the_line_between_two_strengths():
    gap = at_equal_length(PLACED, "FGO", "linear penalty")  # at 30 tokens the line has 85 %
    assert gap.values == pytest.approx((-0.02, -0.02))
    assert at_equal_length(PLACED, "FGO, alpha 1", "linear penalty") is None  # shorter than the line
    assert at_equal_length(PLACED, "FGO", "ShorterBetter") is None  # one strength is no line


def test_the_frontier_has_every_arm_and_tells_the_best():
    points = frontier(PLACED)
    best = {arm for arm, point in points["sampled"].items() if point["best"]}
    assert best == {"linear penalty 0.06", "FGO", "FGO, alpha 1"}
    assert points["sampled"]["FGO"] == {
        "family": "FGO", "rival": False, "seeds": 2, "learning_rate": 5e-5, "best": True,
        "length": [30, None, None], "accuracy": [pytest.approx(83), None, None],
    }  # fmt: skip
    assert points["greedy"]["GRPO"]["rival"]
    assert points["before"] == {"sampled": [60, 50], "greedy": [50, pytest.approx(55)]}


def test_entropy_lost_names_the_step_from_which_it_stays_below_for_each_seed():
    found = claims.entropy_lost(ARMS)
    assert found["step"] == [2, 2]
    assert found["sum_ratio"] == pytest.approx([0.5, 0.5])
    assert claims.describe_lost(ARMS) == (
        "FGO's entropy per token ends below GRPO's in 2 of 2 seeds (from step 2 on), at 100 and 100 % "
        "(2 seeds, no interval) of it"
    )
    assert claims.entropy_lost(ARMS, "mean entropy")["step"] == [None]
    low = {**ARMS, "low": [run("low", 0, exam(1, 1), (0.1, 0, 0))]}
    assert claims.entropy_lost(low, "low")["step"] == [0]


def test_the_table_begins_with_the_most_accurate_and_pairs_each_with_grpo():
    rows = claims.summary(ARMS)
    assert [row["arm"] for row in rows] == ["before", "FGO", "GRPO", "mean entropy"]
    assert rows[2]["accuracy"] == pytest.approx([80, 82])
    assert rows[1]["greedy_length"] == [25, 25]
    assert rows[2]["invalid"] == [70, 70]
    head, lines = claims.table(ARMS)
    cells = dict(zip(head, lines[1], strict=True))
    assert cells["accuracy minus GRPO's, points"] == "+3.0 and +1.0"
    assert (cells["arm"], cells["tokens"], cells["invalid groups"]) == ("FGO", "30.0 and 30.0", "70")
    found = {name: (value, unit) for name, value, unit in claims.metrics(ARMS)}
    assert found["study: accuracy, FGO"] == (pytest.approx(83), "%")
    assert found["study: length, GRPO"] == (50, "tokens")
    assert "GRPO 65.6 % at 578 tokens, ACT 11.3, invalid groups 1,584 to 2,617;" in claims.paper_words()
    assert published.QUESTIONS == 3200


def test_the_frontier_is_drawn_where_the_arms_end_and_rivals_are_hollow():
    arms = {arm: line(arm, (0.8, 40), 3) for arm in PLACED}
    for seed, trace in enumerate(arms["FGO"]):
        trace.meta["after"] = exam(0.8 + 0.01 * seed, 30)
    figure = figures.frontier(frontier(arms), {"sampled": "finding", "greedy": "other"}, ["FGO"])
    shown = [part for part in figure.data if part.visible]
    assert len(shown) == len(figure.data) / 2, "one exam"
    drawn = {part.name: part for part in shown if part.xaxis == "x"}
    best, _ = drawn.pop("frontier: no arm shorter and more accurate"), drawn.pop("before")
    assert list(best.x) == [30]
    assert set(drawn) == {"GRPO", "linear penalty", "ShorterBetter", "FGO", "w/o entropy"}
    fgo = drawn["FGO"]
    assert (list(fgo.x), list(fgo.y)) == ([30, 40], [pytest.approx(81), pytest.approx(80)])
    assert fgo.error_y.array[0] == pytest.approx(4.302653 / 3**0.5, abs=1e-3)
    assert fgo.error_x.array[0] == 0
    assert fgo.hovertext[0].split("<br>") == [
        "<b>FGO</b>", "accuracy 81.0 % (95 % 78.5 to 83.5, 3 seeds)",
        "length 30.0 tokens (95 % 30.0 to 30.0, 3 seeds)", "learning rate 5e-05", "on the frontier",
    ]  # fmt: skip
    assert drawn["GRPO"].marker.symbol.endswith("-open")
    looks = {(part.line.color, part.marker.symbol) for part in drawn.values()}
    assert len(looks) == len({symbol for _, symbol in looks}) == len(drawn)
    low, high = figure.layout.xaxis2.range  # FGO alone is not 1.3 times as long as the shortest
    assert low < 30 < high < 40
    assert [list(part.text) for part in shown if part.name == "FGO"] == [["", ""], ["FGO", ""]]
    assert figure.layout.title.text == "finding"
    assert [b.args[1]["title.text"] for b in figure.layout.updatemenus[0].buttons] == ["finding", "other"]


def test_sample_sums_is_a_trace_like_any_other():
    rows = verbose_sums(3)
    model = build_char_model(hidden=16, layers=1, heads=2)
    trace, again = (sample_sums(model, rows, group=4, max_tokens=12, seed=1) for _ in range(2))
    assert trace.texts == again.texts
    assert trace.length.tolist() == [[len(text) for text in line] for line in trace.texts]
    for line, right, answer in zip(trace.texts, trace.correct, trace.answers, strict=True):
        assert right.tolist() == [is_correct(text, answer) for text in line]
    assert set(trace.entropy) == {"sampled_sum", "full_sum", "full_mean"}
    assert np.abs(trace.advantages["fgo"]).max() > 0
    np.testing.assert_allclose(
        trace.entropy["full_mean"] * trace.length, trace.entropy["full_sum"], rtol=1e-5
    )


def test_the_lab_keeps_a_whole_study_and_its_report_says_what_the_files_say():
    arms = records.runs()
    assert list(arms) == [arm for arm in PLANNED if arm in arms]
    not_run = "; ".join(arm for arm in PLANNED if arm not in arms) or "nothing of the plan"
    assert f"Not run: {not_run}." in report.pages()["fgo"]
    for runs in arms.values():
        assert [run.meta["seed"] for run in runs] == list(range(8))
        for run in runs:  # one model: only the draws differ
            assert run.meta["steps"] * run.meta["questions"] == published.QUESTIONS
            assert run.meta["before_greedy"]["length"] == runs[0].meta["before_greedy"]["length"]
            assert abs(run.meta["before"]["accuracy"] - runs[0].meta["before"]["accuracy"]) < 0.05
            family = PLANNED[run.meta["arm"]].family
            assert run.meta["learning_rate"] == records.tuned()[family]["chosen"]
    assert records.RESULTS.joinpath("README.md").read_text() == report.pages()["fgo"]
    kept = json.loads(records.RESULTS.joinpath("frontier.json").read_text())
    assert kept == frontier(arms), "python -m labkit.studies report"


def test_the_shipped_model_is_the_one_that_the_study_began_from():
    model, about = load_reasoner()
    before = records.runs()["FGO"][0].meta["before"]
    rows = verbose_sums(40, seed=1, **about["task"] | {"split": "test"})
    trace = sample_sums(model, rows, group=2, max_tokens=about["max_tokens"])
    assert trace.correct.mean() == pytest.approx(before["accuracy"], abs=0.15)  # 80 draws: 3 errors
    assert trace.length.mean() == pytest.approx(before["length"], rel=0.2)
