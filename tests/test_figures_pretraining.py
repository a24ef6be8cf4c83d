"""Figures and tables of pre-training runs: pairing by seed, honest titles, escaped cells."""

import re

import numpy as np
import pytest
from matplotlib import pyplot

from labkit.figures import elas_tables, pretraining
from labkit.studies.claims import Claim
from labkit.traces import TrainTrace


def run(arm: str, seed: int, nats: float) -> TrainTrace:
    return TrainTrace(
        step=np.array([0, 5, 10]),
        series={
            "eval_nats": np.array([6.0, np.nan, nats]),
            "eval_bits_per_byte": np.array([4.0, np.nan, nats / 2]),
            "loss": np.array([np.nan, 5.5, 5.0]),
            "natural_zeros": np.array([[0.5, 0.5], [np.nan, np.nan], [0.6, 0.7]]),
        },
        meta={
            "arm": arm, "seed": seed, "eval_nats": nats, "eval_bits_per_byte": nats / 2, "parameters": 1234,
            "unigram_nats": 5.9, "unigram_bits_per_byte": 3.5, "text": "sympy-<512>",
            "config": {"dense_steps": 2, "steps": 10}, "provenance": {"device": "CPU"},
        },
    )  # fmt: skip


@pytest.fixture
def runs():
    pairs = [
        ("elas_ste", 1, 4.1),
        ("lowrank_relu2", 1, 4.0),
        ("lowrank_relu2", 0, 4.3),
        ("elas_ste", 0, 4.2),
    ]
    return [run(*pair) for pair in pairs]


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def test_differences_pair_the_seeds(runs):
    found = pretraining.differences(runs, "lowrank_relu2")["elas_ste"]
    assert found.values == pytest.approx((-0.1, 0.1))  # seed 0, seed 1
    assert found.low is None


def test_a_finding_stands_in_the_table(runs):
    assert "seed 1, step" not in pretraining.run_table(runs).data
    runs[0].meta["findings"] = [{"step": 8, "where": "layer 3", "what": "not finite"}]
    assert "ELAS, straight-through, seed 1, step 8, layer 3: not finite" in pretraining.run_table(runs).data


def test_a_seed_without_partner_and_a_run_that_gave_nan_are_left_out(runs):
    extra = [*runs, run("elas_ste", 7, 3.0), run("elas_masked", 9, 3.0), run("elas_soft", 0, float("nan"))]
    found = pretraining.differences(extra, "lowrank_relu2")
    assert found.keys() == {"elas_ste"}
    assert found["elas_ste"].n == 2


def test_two_seeds_are_marks_without_a_verdict(runs):
    figure = pretraining.paired_differences(runs)
    assert [note.get_text() for note in figure.axes[0].texts] == ["2 seeds, no interval"]


def test_three_seeds_have_an_interval(runs):
    more = [*runs, run("elas_ste", 2, 4.6), run("lowrank_relu2", 2, 4.3)]
    (axis,) = pretraining.paired_differences(more).axes
    ends = (0.1 - 4.302653 * 0.2 / 3**0.5, 0.1 + 4.302653 * 0.2 / 3**0.5)  # of -0.1, 0.1 and 0.3
    assert any(line.get_xdata() == pytest.approx(ends, abs=1e-5) for line in axis.lines)
    assert [note.get_text() for note in axis.texts] == ["+0.100 (-0.397 to +0.597)"]


def test_every_run_is_a_curve_and_every_arm_one_legend_entry(runs):
    figure = pretraining.loss_curves(runs, "loss", start=5, title="found: $5")
    assert figure.get_suptitle() == r"found: \$5"
    (axis,) = figure.axes
    assert [list(line.get_xdata()) for line in axis.lines] == 4 * [[5, 10]]
    assert len({(line.get_color(), line.get_marker()) for line in axis.lines}) == 2
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["low-rank ReLU², no mask", "ELAS, straight-through"]


def test_tables_escape_and_label(runs):
    table = pretraining.run_table(runs).data
    assert "4.200 and 4.100" in table  # two seeds are listed
    assert "-0.100 and +0.100 (2 seeds, no interval)" in table
    assert "sympy-&lt;512&gt;" in table
    assert "reference" in table
    ours = {"elas_ste": np.array([50.0, 60.0]), "elas_soft": np.array([55.0])}
    published = {"ELAS": ((34.1, 24.8), "secondary"), "GaLore": ((34.9, 25.4), "theirs")}
    table = elas_tables.perplexity_table(published, ("60M", "130M"), ours).data
    assert "34.10" in table
    assert "50.00 and 60.00" in table
    assert table.index("GaLore") < table.index("not run") < table.index("soft thresholding")
    rows = [Claim("ELAS", "a<b", "no", "CPU", published="yes")]
    assert "<td" in (claims := elas_tables.claims_table(rows).data)
    assert "a&lt;b" in claims


def test_the_table_of_bytes_tells_the_change():
    table = elas_tables.byte_table({"a": 200.0, "b": 100.0, "c": 40.0}).data
    assert "c keeps 40 bytes a token, 60 % less than b" in table
    assert [table.count(change) for change in ("+100 %", "-60 %")] == [1, 1]


def test_curves_begin_where_they_are_told_to(runs):
    (axis,) = pretraining.loss_curves(runs, "eval_nats", start=5, title="").axes
    assert {tuple(line.get_xdata()) for line in axis.lines} == {(10,)}


def test_the_main_table_shows_loss_time_and_what_was_tried():
    nats = {"elas_ste": (2.0, 2.2, 2.4), "lowrank_relu2": (2.1, 2.2, 2.5), "equal_flops": (1.0, np.nan)}
    runs = []
    for arm, values in {**nats, "elas_soft": (9.0,)}.items():
        for seed, value in enumerate(values):
            one = run(arm, seed, 7.0)
            one.meta |= {"test_nats": value, "test_bits_per_byte": value / 2}
            one.meta["stage"] = "rules" if arm == "elas_soft" else "arms"
            runs.append(one)
    ms = {"ms": {"p50": 9.5}, "exact_ms": 350.0, "tokens_per_second": 1.7e6, "peak_bytes": 2**31}
    record = {
        "times": {"elas_ste": ms}, "chosen": {"elas_ste": 0.01, "lowrank_relu2": 0.02, "equal_flops": 0.01},
        "tried": {arm: {"0.005": 3.0, "0.01": 2.0, "0.02": None} for arm in ("elas_ste", "lowrank_relu2")},
        "text": {"name": "t-<1>", "unigram_nats": 5.0, "unigram_bits_per_byte": 2.5}, "loro_revision": 1,
        "config": {"steps": 7, "batch_size": 2, "seq_len": 600, "exact_every": 100},
        "provenance": {"device": "Card 9"},
    }  # fmt: skip
    table = elas_tables.arm_table(record, runs).data
    by_arm = {row.split("<", 1)[0]: row for row in re.split(r"<tr><td[^>]*>", table)[1:]}
    assert list(by_arm)[-1] == "counting tokens alone"
    elas = by_arm["ELAS, straight-through"]
    assert "0.01 (best of 3)" in elas
    assert "2.200 (2.000 to 2.400, 3 seeds)" in elas  # nats
    assert "1.100 (1.000 to 1.200, 3 seeds)" in elas  # bits
    assert f"{np.exp([2, 2.2, 2.4]).mean():.2f} (7.39 to 11.02" in elas  # perplexity
    assert "-0.067 (95 % -0.210 to +0.077, 3 seeds)" in elas
    assert ">9.50 (350 every 100th)<" in elas
    assert ">1.70<" in elas
    assert ">2.00<" in elas
    assert "0.02 (best of 3, at the edge)" in by_arm["low-rank ReLU², no mask"]
    equal = by_arm["low-rank ReLU², equal FLOPs"]
    assert "2, 1 broke" in equal
    assert "0.01 (not tuned)" in equal
    assert "not timed" in equal
    assert "ELAS, soft thresholding" not in by_arm
    assert "7 steps of 1,200 tokens, text t-&lt;1&gt;, Card 9; run before Loro" in table


def test_bad_arguments(runs):
    with pytest.raises(ValueError, match="traces must be at least one TrainTrace; got"):
        pretraining.loss_curves([], "loss", start=0, title="")
    with pytest.raises(ValueError, match="against must be one of 'lowrank_relu2', 'elas_ste'; got 'dense'"):
        pretraining.paired_differences(runs, "dense")
    with pytest.raises(ValueError, match="traces must be runs of another arm"):
        pretraining.paired_differences(runs[1:3])
