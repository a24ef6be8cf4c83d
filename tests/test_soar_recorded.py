"""What is read off the SOAR study's records, on made-up ones: order, rivals, verdicts, what was not run."""

from dataclasses import replace

import numpy as np
import pytest

from labkit.studies.soar import claims, page, records
from labkit.studies.soar.outcomes import FAMILIES, gain_words
from labkit.studies.stats import Estimate

PUZZLES = 2000


def record(seed, solved, kernel="new"):
    """One seed from {family: share solved}; a better family solves all that a worse one does."""
    luck = np.random.default_rng(seed).random(PUZZLES)
    calls = {"greedy": 50.0, "pbs": 50.0, "soar": 12.5, "adaptive": 10.0, "adaptive uncapped": 8.0}
    outcomes = [
        {"label": f"{of} a", "family": of, "right": luck < share, "accuracy": share, "calls": calls[of],
         "rows": 1.0, "speed": 50 / calls[of], "seconds": 1.0}
        for of, share in solved.items()
    ]  # fmt: skip
    outcomes[0]["label"] = "greedy"
    chosen = {
        f"{of}, {rule}": f"{of} a"
        for of in solved
        for rule, (_, speed) in records.RULES.items()
        if of != "greedy" and 50 / calls[of] >= speed
    }
    return {
        "test": outcomes, "validation": outcomes, "chosen": chosen, "kernel": kernel,
        "tried": {of: int(of in solved) for of in FAMILIES},
        "puzzles": {"validation": 400, "test": PUZZLES},
        "training": {"steps": 9, "training_seconds": 1.0},
        "provenance": {"device": "Card 9", "time": "2026-01-02T03:04:05+00:00", "dtype": "bfloat16"},
    }  # fmt: skip


@pytest.fixture
def three():
    shares = {"greedy": 0.8, "adaptive": 0.79, "adaptive uncapped": 0.9, "pbs": 0.88, "soar": 0.85}
    return {seed: record(seed, shares) for seed in range(3)}


def test_the_strongest_rival_stands_above_ours_where_it_wins(three):
    rows = claims.summary(three, "accurate, 3x")
    assert [row.family for row in rows] == ["adaptive uncapped", "soar", "greedy", "adaptive"]
    rows = claims.summary(three, "accurate")
    assert [row.family for row in rows][:3] == ["adaptive uncapped", "pbs", "soar"]
    text = claims.sentence(three)
    assert text.index("adaptive uncapped a: +10") < text.index("soar a: +")
    assert "3 seeds, 2,000 puzzles each) against greedy, more solved, 6.2x fewer forward calls" in text
    assert "against adaptive uncapped a, fewer solved" in text
    assert "not run: parallel" in text


def test_a_puzzle_in_ten_thousand_is_no_finding(three):
    (row,) = (row for row in claims.summary(three, "accurate") if row.family == "adaptive")
    tiny = replace(row, gain=Estimate(-0.0003, -0.0006, -0.0001, 3, "seeds", "t", (-0.0003,) * 3))
    told = "-0.03 points (95 % -0.06 to -0.01, 3 seeds) against greedy, no difference larger than 0.1"
    assert gain_words(tiny) == told


def test_a_rival_is_chosen_on_validation_puzzles(three):
    assert claims.strongest_rival(three, "accurate") == "adaptive uncapped"
    for one in three.values():
        one["validation"] = [{**o, "accuracy": 0.99 if o["family"] == "pbs" else 0.5} for o in one["test"]]
    assert claims.strongest_rival(three, "accurate") == "pbs"
    assert claims.strongest_rival(three, "accurate, 3x") in ("adaptive", "adaptive uncapped")


def test_the_arm_with_the_fewest_calls_is_named_where_it_is_neither_ours_nor_the_rival(three):
    assert "fewest calls" not in claims.sentence(three)  # it is the strongest rival already
    for one in three.values():
        one["validation"] = [{**o, "accuracy": 0.99 if o["family"] == "pbs" else 0.5} for o in one["test"]]
    assert "fewest calls: adaptive uncapped a, +10" in claims.sentence(three, "accurate")


def test_two_seeds_claim_nothing(three):
    del three[2]
    text = claims.sentence(three)
    assert text.count("2 seeds, no interval") == 3
    assert "solved" not in text
    assert "95 %" not in "\n".join(page.study_lines("lab/nine", three))


def test_the_table_counts_the_settings_tried_and_marks_the_old_kernel(three):
    text = "\n".join(page.study_lines("lab/nine", three))
    tried = "greedy 1, parallel 0, adaptive 1, adaptive uncapped 1, factor 0, eb 0, klass 0, pbs 1, "
    tried += "order_token 0, soar 1"
    assert f"Settings tried on 400 puzzles: {tried}" in text
    assert records.OLD_KERNEL not in text
    three[1]["kernel"] = None
    assert records.OLD_KERNEL in "\n".join(page.study_lines("lab/nine", three))


def test_an_outcome_that_is_not_there_is_named(three):
    with pytest.raises(ValueError, match="name must be one of 'greedy', 'adaptive a'.*; got 'soar b'"):
        records.tested(three[0], "soar b")
    with pytest.raises(ValueError, match="rule must be one of 'fast', 'accurate'.*; got 'best'"):
        claims.summary(three, "best")
    assert len(records.solved_only_by(three[0], "soar a")) == pytest.approx(0.05 * PUZZLES, rel=0.4)


def test_the_lab_keeps_a_study_whose_answers_give_its_shares():
    study = records.study()
    assert {"lab/sudoku9", "lab/sudoku9-early"} <= set(study)
    for by_seed in study.values():
        for one in by_seed.values():
            for outcome in one["test"]:
                assert outcome["right"].mean() == pytest.approx(outcome["accuracy"])
            assert {o["label"] for o in one["test"]} == {"greedy", *one["chosen"].values()}


def test_the_kernel_digest_is_of_code_and_not_of_comments(tmp_path, monkeypatch):
    kernel = tmp_path / "beam_kernel.py"
    monkeypatch.setattr(records, "BEAM_KERNEL", kernel)
    kernel.write_text("x = 1  # one\n\n# more\ny = 2\n")
    of_code = records.kernel_digest()
    kernel.write_text("x = 1\ny = 2  # two\n")
    assert records.kernel_digest() == of_code
    kernel.write_text("x = 1\ny = 3\n")
    assert records.kernel_digest() != of_code
