"""What is read off the SOAR study's records, on made-up ones: order, rivals, verdicts, what was not run."""

import numpy as np
import pytest

from labkit.studies.soar import recorded
from labkit.studies.soar.study import FAMILIES

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
        for rule, (_, speed) in recorded.RULES.items()
        if of != "greedy" and 50 / calls[of] >= speed
    }
    return {
        "test": outcomes, "validation": outcomes, "chosen": chosen, "kernel": kernel,
        "tried": {of: int(of in solved) for of in FAMILIES},
        "puzzles": {"validation": 400, "test": PUZZLES},
    }  # fmt: skip


@pytest.fixture
def three():
    shares = {"greedy": 0.8, "adaptive": 0.79, "adaptive uncapped": 0.9, "pbs": 0.88, "soar": 0.85}
    return {seed: record(seed, shares) for seed in range(3)}


def test_the_strongest_rival_stands_above_ours_where_it_wins(three):
    rows = recorded.summary(three, "accurate, 3x")
    assert [row.family for row in rows] == ["adaptive uncapped", "soar", "greedy", "adaptive"]
    rows = recorded.summary(three, "accurate")
    assert [row.family for row in rows][:3] == ["adaptive uncapped", "pbs", "soar"]
    text = recorded.claim(three)
    assert text.index("adaptive uncapped a: +10") < text.index("soar a: +")
    assert "3 seeds, 2,000 puzzles each) against greedy, more solved, 6.2x fewer forward calls" in text
    assert "against adaptive uncapped a, fewer solved" in text
    assert "not run: parallel" in text


def test_a_rival_is_chosen_on_validation_puzzles(three):
    assert recorded.strongest_rival(three, "accurate") == "adaptive uncapped"
    for one in three.values():
        one["validation"] = [{**o, "accuracy": 0.99 if o["family"] == "pbs" else 0.5} for o in one["test"]]
    assert recorded.strongest_rival(three, "accurate") == "pbs"
    assert recorded.strongest_rival(three, "accurate, 3x") in ("adaptive", "adaptive uncapped")


def test_the_arm_with_the_fewest_calls_is_named_where_it_is_neither_ours_nor_the_rival(three):
    assert "fewest calls" not in recorded.claim(three)  # it is the strongest rival already
    for one in three.values():
        one["validation"] = [{**o, "accuracy": 0.99 if o["family"] == "pbs" else 0.5} for o in one["test"]]
    assert "fewest calls: adaptive uncapped a, +10" in recorded.claim(three, "accurate")


def test_two_seeds_claim_nothing(three):
    del three[2]
    text = recorded.claim(three)
    assert text.count("2 seeds, no interval") == 3
    assert "solved" not in text
    assert "95 %" not in recorded.table("lab/nine", three)


def test_the_table_counts_the_settings_tried_and_marks_the_old_kernel(three):
    text = recorded.table("lab/nine", three)
    tried = "greedy 1, parallel 0, adaptive 1, adaptive uncapped 1, pbs 1, soar 1"
    assert f"settings tried on 400 validation puzzles: {tried}" in text
    assert recorded.OLD_KERNEL not in text
    three[1]["kernel"] = None
    assert recorded.OLD_KERNEL in recorded.table("lab/nine", three)


def test_an_outcome_that_is_not_there_is_named(three):
    with pytest.raises(ValueError, match="name must be one of 'greedy', 'adaptive a'.*; got 'soar b'"):
        recorded.tested(three[0], "soar b")
    with pytest.raises(ValueError, match="rule must be one of 'fast', 'accurate'.*; got 'best'"):
        recorded.summary(three, "best")
    assert len(recorded.parted(three[0], "soar a")) == pytest.approx(0.05 * PUZZLES, rel=0.4)


def test_the_lab_keeps_a_study_whose_answers_give_its_shares():
    study = recorded.load_study()
    assert {"lab/sudoku9", "lab/sudoku9-early"} <= set(study)
    for records in study.values():
        for one in records.values():
            for outcome in one["test"]:
                assert outcome["right"].mean() == pytest.approx(outcome["accuracy"])
            assert {o["label"] for o in one["test"]} == {"greedy", *one["chosen"].values()}
