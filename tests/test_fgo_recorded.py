"""What is read off recorded studies, by hand on made-up traces, and the figures that show it."""

import numpy as np
import pytest
from matplotlib import pyplot

from labkit.fgo.lab.groups import sample_sums
from labkit.fgo.lab.reasoner import build_char_model, load_reasoner
from labkit.fgo.tasks import is_correct, verbose_sums
from labkit.figures import arms as figures
from labkit.studies import published, report
from labkit.studies.fgo import claims, records
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


def run(arm, seed, after, tokens=(0.3, 0.2, 0.1), invalid=(10, 20, 40)):
    step = np.arange(4)
    nan = np.nan
    series = {
        "exam/entropy_per_token": np.array([*tokens, nan]),
        "fgo/invalid_groups": np.array([nan, *invalid], float),
        "fgo/constant_groups": np.array([nan, 1, 2, 3]),
        **{f"exam/{k}": np.array([1, 2, 3, nan]) for k in ("entropy_choice", "entropy_result", "checks")},
    }
    for name, value in (
        ("length", 40 if arm == "GRPO" else 20),
        ("accuracy", 0.6 if arm == "GRPO" else 0.7),
    ):
        series[f"exam/{name}"] = np.array([value, value, value, nan])
    meta = {"arm": arm, "seed": seed, "questions": 1600, "before": exam(0.5, 60), "after": after}
    return TrainTrace(step=step, series=series, meta=meta)


ARMS = {
    "GRPO": [run("GRPO", 0, exam(0.80, 50)), run("GRPO", 1, exam(0.82, 50))],
    "FGO": [
        run("FGO", 0, exam(0.83, 30, entropy=1.0), tokens=(0.3, 0.3, 0.05)),
        run("FGO", 1, exam(0.83, 30, entropy=1.0), tokens=(0.3, 0.3, 0.05)),
    ],
    "mean entropy": [run("mean entropy", 0, exam(0.8, 60), tokens=(0.3, 0.3, 0.3))],
}


def test_two_seeds_are_two_differences_without_an_interval():
    found = claims.difference(ARMS)
    assert found["length"].values == pytest.approx((-0.4, -0.4))
    assert found["accuracy"].values == pytest.approx((0.03, 0.01))
    assert (found["length"].low, found["accuracy"].low) == (None, None)
    assert claims.describe_difference(ARMS) == (
        "length -40 and -40 % (2 seeds, no interval), accuracy +3.0 and +1.0 points (2 seeds, no interval)"
    )
    with pytest.raises(ValueError, match="arm must be one of 'GRPO', 'FGO', 'mean entropy'; got 'PPO'"):
        claims.difference(ARMS, "PPO")


def test_three_seeds_have_a_t_interval():
    arms = {
        "GRPO": [run("GRPO", seed, exam(0.8, 50)) for seed in range(3)],
        "FGO": [run("FGO", seed, exam(0.8 + 0.01 * seed, 30)) for seed in (2, 0, 1)],
    }
    gap = claims.difference(arms)["accuracy"]
    assert gap.values == pytest.approx((0, 0.01, 0.02))
    assert gap.high - gap.estimate == pytest.approx(4.302653 * 0.01 / 3**0.5)


def test_the_difference_at_an_exam_on_the_way():
    found = claims.difference(ARMS, when=1)
    assert found["length"].values == pytest.approx((-0.5, -0.5))
    assert found["accuracy"].values == pytest.approx((0.1, 0.1))
    assert claims.paper_step(ARMS) == 2
    with pytest.raises(ValueError, match="when must be one of 'after', 0, 1, 2; got 3"):
        claims.difference(ARMS, when=3)


def test_entropy_lost_names_the_step_from_which_it_stays_below_for_each_seed():
    found = claims.entropy_lost(ARMS)
    assert found["step"] == [2, 2]
    assert found["sum_ratio"] == pytest.approx([0.5, 0.5])
    assert claims.entropy_lost(ARMS, "mean entropy")["step"] == [None]
    low = {**ARMS, "low": [run("low", 0, exam(1, 1), (0.1, 0, 0))]}
    assert claims.entropy_lost(low, "low")["step"] == [0]


def test_summary_counts_the_first_3200_groups_and_sets_the_paper_beside():
    rows = claims.summary(ARMS)
    assert [row["arm"] for row in rows] == ["before", *ARMS]
    assert rows[1]["accuracy"] == pytest.approx([80, 82])
    assert rows[1]["invalid"] == [30, 30]  # two steps of 1,600 questions
    assert rows[1]["paper"]["invalid"] == published.INVALID["GRPO"]
    assert rows[3]["paper"] is None
    page = figures.study_table(rows, "A <caption>").data
    assert ">80.0 and 82.0</td>" in page
    assert "65.6 / 578 / 11.3 / 1,584 to 2,617" in page
    assert "A &lt;caption&gt;" in page


def test_trade_off_draws_every_seed_where_it_belongs():
    figure = figures.trade_off(ARMS, {2: "early", "after": "late"}, "finding")
    assert [note.text for note in figure.layout.annotations[:2]] == ["early", "late"]
    at = [
        {
            (part.name, *point)
            for part in figure.data
            if part.xaxis == x
            for point in zip(part.x, part.y, strict=True)
        }
        for x in ("x", "x2")
    ]
    assert ("GRPO", 40, 60) in at[0]
    assert {("before", 60, 50)} == at[0] & at[1]
    assert ("GRPO", 50, 80) in at[1]
    assert ("FGO", 30, 83) in at[1]
    tips = [text for part in figure.data for text in part.text]
    assert "GRPO, seed 0" in tips
    assert len(tips) == 2 * (1 + sum(map(len, ARMS.values())))
    assert figure.layout.title.text == "finding"


def test_entropy_places_marks_the_step():
    figure = figures.entropy_places({"FGO": ARMS["FGO"]}, [2, None])
    assert len(figure.axes) == len(figures.PLACES)
    assert all(axis.lines[-1].get_xdata()[0] == 2 for axis in figure.axes)


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
    assert {"GRPO", "FGO", "mean entropy"} <= set(arms)
    steps = {run.meta["steps"] for runs in arms.values() for run in runs}
    assert len(steps) == 1, "arms stop together"
    for runs in arms.values():
        assert len(runs) >= 2
        for run in runs:  # one model: only the draws differ
            assert run.meta["before_greedy"]["length"] == runs[0].meta["before_greedy"]["length"]
            assert abs(run.meta["before"]["accuracy"] - runs[0].meta["before"]["accuracy"]) < 0.05
    assert records.RESULTS.joinpath("README.md").read_text() == report.pages()["fgo"]


def test_the_shipped_model_is_the_one_that_the_study_began_from():
    model, about = load_reasoner()
    before = records.runs()["FGO"][0].meta["before"]
    rows = verbose_sums(40, seed=1, **about["task"] | {"split": "test"})
    trace = sample_sums(model, rows, group=2, max_tokens=about["max_tokens"])
    assert trace.correct.mean() == pytest.approx(before["accuracy"], abs=0.15)  # 80 draws: 3 errors
    assert trace.length.mean() == pytest.approx(before["length"], rel=0.2)
