"""Baselines: directions, missing and new metrics, and tolerances that are too loose to mean anything."""

import io
import json

import pytest

from labkit import baselines
from labkit.__main__ import main
from labkit.baselines import check_entry, propose
from labkit.compare import accept, compare_runs, proposals


def entry(value=2.0, absolute=0.0, relative=0.1, direction="equal", **more):
    return {"value": value, "abs": absolute, "rel": relative, "direction": direction, "why": "test", **more}


@pytest.mark.parametrize(
    ("value", "direction", "verdict"),
    [
        (2.2, "equal", "ok"), (2.21, "equal", "regressed"), (1.79, "equal", "regressed"),
        (9.0, "higher", "ok"), (1.8, "higher", "ok"), (1.79, "higher", "regressed"),
        (0.1, "lower", "ok"), (2.2, "lower", "ok"), (2.21, "lower", "regressed"),
        (float("nan"), "lower", "regressed"),
    ],
)  # fmt: skip
def test_directions(value, direction, verdict):
    assert baselines.verdict(value, entry(direction=direction)) == verdict


def test_missing_and_new_metrics_are_told_apart():
    found = baselines.compare({"a": 2.0, "c": 1.0}, {"a": entry(), "b": entry()})
    assert found == {"a": "ok", "b": "missing", "c": "new"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(relative=1.0), "must not let 0 pass; got value 2"),
        (entry(absolute=2.5, direction="higher"), "must not let 0 pass"),
        (entry(relative=0.5, direction="higher", trivial=1.5), "must not let 1.5 pass"),
        (entry(relative=0.5, direction="lower", trivial=2.5), "must not let 2.5 pass"),
        (entry(relative=-1), "rel must be a number >= 0; got -1"),
        (entry(direction="up"), "direction must be one of 'higher', 'lower', 'equal'; got 'up'"),
        ({**entry(), "why": " "}, "why must say why this tolerance"),
        ({"value": 1.0}, "it lacks abs, direction, rel, why"),
    ],
)
def test_loose_or_unexplained_tolerances_are_refused(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        baselines.save(tmp_path / "b.json", {"metric": bad})
    assert not list(tmp_path.iterdir())


def test_an_exact_zero_and_a_loss_are_fine(tmp_path):
    good = {"zero": entry(value=0.0, relative=0.0), "loss": entry(direction="lower", trivial=2.3)}
    baselines.save(tmp_path / "b.json", good)
    assert baselines.load(tmp_path / "b.json") == good


def write_run(folder, value, **more):
    folder.mkdir()
    item = {"notebook": "n", "error": "", "ours": True, "metrics": {"m": {"value": value, "unit": ""}}}
    run = {"preset": "smoke", "device_class": "cpu", "overrides": {}, "seconds": 1.0, "provenance": {}}
    run |= {"notebooks": [item], **more}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_other_seeds_set_the_tolerance_of_a_new_metric():
    seeds = [
        {"new": 2.2, "still": 3, "sign": -1, "old": 1},
        {"new": 1.9, "still": 3, "sign": 4, "old": 1.5},
    ]
    old = {"old": {"value": 1, "abs": 0.1, "rel": 0, "direction": "lower", "why": "guessed"}}
    metrics = {"new": 2.0, "still": 3, "sign": 1.0, "old": 1.0, "absent": 7.0}
    entries = propose(metrics, old, seeds)
    for name, entry in entries.items():
        check_entry(name, entry)
    assert (entries["new"]["abs"], entries["new"]["rel"]) == (0.3, 0.0)
    assert "3 seeds (0.2)" in entries["new"]["why"]
    assert (entries["still"]["abs"], entries["still"]["rel"]) == (0.0, 1e-6)
    assert entries["sign"]["abs"] == 0.9  # moves by 3: a wrong sign is still refused
    assert (entries["old"]["abs"], entries["old"]["direction"]) == (0.75, "lower")  # 0.1 was broken
    assert entries["absent"]["rel"] == 0.05  # no other run has it
    assert propose({"old": 1.0}, old, [{"old": 1.05}]) == old  # the old tolerance holds


def test_update_keeps_tolerances_and_shows_what_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "FOLDER", tmp_path / "baselines")
    first = write_run(tmp_path / "a", 2.0)
    changes, rows = proposals(first)
    assert rows == [("n.smoke.cpu", "m", "-", "2", "±0.1")]
    accept(changes)
    assert proposals(first) == ({}, [])
    path = baselines.path_of("n", "smoke", "cpu")
    kept = baselines.load(path)
    kept["m"] |= {"rel": 0.01, "why": "three seeds"}
    baselines.save(path, kept)
    changes, rows = proposals(write_run(tmp_path / "b", 3.0))
    assert rows == [("n.smoke.cpu", "m", "2", "3", "±0.03")]
    assert changes[path]["m"]["why"] == "three seeds"
    assert compare_runs(tmp_path / "a", tmp_path / "b") == [("n", "m", "2", "3", "+1")]


def test_without_an_answer_nothing_is_accepted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baselines, "FOLDER", tmp_path / "baselines")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # as in CI
    run = str(write_run(tmp_path / "a", 2.0))
    assert main(["baseline", "update", run]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert not (tmp_path / "baselines").exists()
    assert main(["baseline", "update", "--yes", run]) == 0  # the order does not matter
    assert (tmp_path / "baselines").exists()


def test_no_baseline_from_a_failed_or_changed_run(tmp_path):
    failed = {"notebook": "n", "error": "boom", "metrics": {}}
    with pytest.raises(ValueError, match="without failures; n failed"):
        proposals(write_run(tmp_path / "a", 1.0, notebooks=[failed]))
    with pytest.raises(ValueError, match="must come from a named preset"):
        proposals(write_run(tmp_path / "c", 1.0, preset="../mine.yaml"))
    with pytest.raises(ValueError, match="a preset alone"):
        proposals(write_run(tmp_path / "b", 1.0, overrides={"seed": 3}))


def test_seeds_are_runs_that_differ_only_in_their_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "FOLDER", tmp_path / "baselines")
    run, seed = write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 1.2, overrides={"seed": 1})
    assert proposals(run, [seed])[1] == [("n.smoke.cpu", "m", "-", "1", "±0.3")]
    for i, other in enumerate(({"preset": "full"}, {"device_class": "cuda"}, {"overrides": {"steps": 1}})):
        with pytest.raises(
            ValueError, match="seeds must be runs of smoke on cpu that set the seed alone; .*"
        ):
            proposals(run, [seed, write_run(tmp_path / f"other{i}", 3.0, **other)])


def test_no_baseline_for_a_notebook_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "FOLDER", tmp_path / "baselines")
    item = {"notebook": "07_kernels", "error": "", "metrics": {"m": {"value": 1.0, "unit": ""}}}
    assert proposals(write_run(tmp_path / "old", 1.0, notebooks=[item]))[1]  # from before `ours` was kept
    run = write_run(tmp_path / "a", 1.0, notebooks=[{**item, "ours": True}])
    assert proposals(run)[1]
    for i, stranger in enumerate(({**item, "ours": False}, {**item, "notebook": "mine"})):
        other = write_run(tmp_path / f"stranger{i}", 1.0, notebooks=[stranger])
        with pytest.raises(ValueError, match=f"own notebooks; {stranger['notebook']} came from elsewhere"):
            proposals(other)
        with pytest.raises(ValueError, match="came from elsewhere"):
            proposals(run, [other])


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'"\xe9"'])
@pytest.mark.parametrize("command", ["compare", "report", "baseline update"])
def test_a_broken_run_json_is_one_error_that_names_it(tmp_path, capsys, command, content):
    (tmp_path / "run.json").write_bytes(content)
    folders = [str(tmp_path)] * (2 if command == "compare" else 1)
    assert main([*command.split(), *folders]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "run.json") in error
    assert error.count("\n") == 1
