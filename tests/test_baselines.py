"""Baselines: directions, missing and new metrics, and tolerances that are too loose to mean anything."""

import io
import json
import re

import nbformat
import pytest

from labkit.__main__ import main
from labkit.notebooks import find_notebooks
from labkit.paths import write_json
from labkit.runner import baselines, cost, runs
from labkit.runner.baselines import check_entry, load, propose
from labkit.runner.compare import accept, compare_runs, proposals, read_run


def entry(value=2.0, absolute=0.0, relative=0.1, direction="equal", **more):
    return {"value": value, "abs": absolute, "rel": relative, "direction": direction, "why": "test", **more}


def baseline(recorded=None, **entries):
    return {"recorded": recorded or {}, "seconds": 1.0, "metrics": entries}


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
        accept({tmp_path / "b.json": baseline(metric=bad)})
    assert not list(tmp_path.iterdir())


def test_an_exact_zero_and_a_loss_are_fine(tmp_path):
    good = baseline(zero=entry(value=0.0, relative=0.0), loss=entry(direction="lower", trivial=2.3))
    accept({tmp_path / "b.json": good})
    assert baselines.load(tmp_path / "b.json") == good


def write_run(folder, value, **more):
    folder.mkdir()
    item = {"notebook": "n", "error": "", "ours": True, "seconds": 2.0}
    item["metrics"] = {"m": {"value": value, "unit": ""}}
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
    assert (entries["new"]["abs"], entries["new"]["rel"]) == (0.202, 0.0)
    assert entries["new"]["why"] == "the largest move over 3 runs"
    assert (entries["still"]["abs"], entries["still"]["rel"]) == (0.0, 1e-6)
    assert entries["sign"]["abs"] == 0.9  # moves by 3: a wrong sign is still refused
    assert (entries["old"]["abs"], entries["old"]["direction"]) == (0.505, "lower")  # 0.1 was broken
    assert entries["absent"]["rel"] == 0.05  # no other run has it
    assert propose({"old": 1.0}, old, [{"old": 1.05}]) == old  # the old tolerance holds


def test_update_keeps_tolerances_and_shows_what_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path / "baselines")
    first = write_run(tmp_path / "a", 2.0)
    changes, rows = proposals(first)
    assert rows == [("n.smoke.cpu", "m", "-", "2", "±0.1")]
    accept(changes)
    assert proposals(first) == ({}, [])
    path = baselines.path_of("n", "smoke", "cpu")
    kept = baselines.load(path)
    kept["metrics"]["m"] |= {"rel": 0.01, "why": "three seeds"}
    write_json(path, kept)
    changes, rows = proposals(write_run(tmp_path / "b", 3.0))
    assert rows == [("n.smoke.cpu", "m", "2", "3", "±0.03")]
    assert changes[path]["metrics"]["m"]["why"] == "three seeds"
    assert compare_runs(tmp_path / "a", tmp_path / "b") == [("n", "m", "2", "3", "+1")]


def test_without_an_answer_nothing_is_accepted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path / "baselines")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # as in CI
    run = str(write_run(tmp_path / "a", 2.0))
    assert main(["baseline", "update", run]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert not (tmp_path / "baselines").exists()
    assert main(["baseline", "update", "--yes", run]) == 0  # the order does not matter
    assert (tmp_path / "baselines").exists()


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_a_notebook_says_what_its_baselines_cost(path):
    said = [cell["source"] for cell in nbformat.read(path, 4).cells if cost.START in cell["source"]]
    assert len(said) == 1
    assert cost.line(path.stem) in said[0].split("\n")


def test_the_cost_names_each_device_that_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path)
    assert cost.line("n") == "**Cost.** Smoke preset: not measured. Full preset: not measured."
    for device, seconds, where in (("cpu", 12.4, {"threads": "1"}), ("cuda", 8.6, {"processor": "H100"})):
        write_json(baselines.path_of("n", "smoke", device), baseline(where) | {"seconds": seconds})
    write_json(baselines.path_of("n", "full", "cuda"), baseline({"processor": "H100"}) | {"seconds": 99})
    smoke, full = cost.line("n").removeprefix(cost.START).split(". ")
    assert smoke == "Smoke preset: 12 s on one CPU core, 9 s on an H100"
    assert full == "Full preset: 99 s on an H100; on a CPU not measured."


def test_no_baseline_from_a_failed_or_changed_run(tmp_path):
    failed = {"notebook": "n", "error": "boom", "metrics": {}}
    with pytest.raises(ValueError, match="without failures; n failed"):
        proposals(write_run(tmp_path / "a", 1.0, notebooks=[failed]))
    with pytest.raises(ValueError, match="must come from a named preset"):
        proposals(write_run(tmp_path / "c", 1.0, preset="../mine.yaml"))
    with pytest.raises(ValueError, match="a preset alone"):
        proposals(write_run(tmp_path / "b", 1.0, overrides={"seed": 3}))


def test_seeds_are_runs_that_differ_only_in_their_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path / "baselines")
    run, seed = write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 1.2, overrides={"seed": 1})
    assert proposals(run, [seed])[1] == [("n.smoke.cpu", "m", "-", "1", "±0.202")]
    strangers = [{"preset": "full"}, {"device_class": "cuda"}]
    strangers += [{"overrides": {"steps": 1}}, {"overrides": {"seeds": 3}}]  # a count is no other draw
    for i, other in enumerate(strangers):
        with pytest.raises(
            ValueError, match="seeds must be runs of smoke on cpu that set the seed alone; .*"
        ):
            proposals(run, [seed, write_run(tmp_path / f"other{i}", 3.0, **other)])


def test_tolerances_are_measured_over_seeds_and_pythons_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path / "baselines")
    here = {"Python": "3.11", "torch": "2.13.0+cpu"}
    run = write_run(tmp_path / "a", 1.0, setting=here)
    there = write_run(tmp_path / "b", 1.02, setting=here | {"Python": "3.13"})
    lists = write_run(tmp_path / "c", 0.9, setting=here, overrides={"seeds": [2, 3]})
    accept(proposals(run, [there, lists])[0])
    saved = baselines.load(baselines.path_of("n", "smoke", "cpu"))
    assert saved["recorded"] == here
    why = "the largest move over 3 runs: 2 seeds; Python 3.11, 3.13"
    assert (saved["metrics"]["m"]["abs"], saved["metrics"]["m"]["why"]) == (0.101, why)
    (alone,) = proposals(write_run(tmp_path / "d", 2.0, setting=here), [there])[0].values()
    assert alone["metrics"]["m"]["abs"] == 0.101  # the same seed elsewhere measures no tolerance


def test_a_metric_that_is_off_says_where_its_baseline_comes_from():
    recorded = {"Python": "3.11", "torch": "2.13.0+cpu", "text": "sympy-1.14.0-512-aa"}
    entries = {"loss": entry(value=2.9, direction="lower", relative=0.03), "gone": entry(), "same": entry()}
    item = {
        "metrics": {
            name: {"value": v, "unit": ""} for name, v in {"loss": 3.5, "same": 2, "mine": 4}.items()
        },
        "baseline": {"recorded": recorded, "seconds": 1.0, "metrics": entries},
        "verdicts": {"gone": "missing", "loss": "regressed", "mine": "new", "same": "ok"},
    }
    here = recorded | {"Python": "3.12", "text": "sympy-1.13.3-unpinned-512-bb"}
    item["origin"] = baselines.origin(recorded, here)
    words = "recorded on Python 3.11, text sympy-1.14.0-512-aa; "
    words += "this is Python 3.12, text sympy-1.13.3-unpinned-512-bb"
    assert baselines.off(item) == [
        f"gone: missing, no value against 2 ± 0.2, equal, {words}",
        f"loss: regressed, 3.5 against 2.9 ± 0.087, lower, {words}",
        "mine: new, 4",
    ]
    assert baselines.origin(recorded, recorded) == "recorded on the same setting"
    assert baselines.origin({}, {"threads": "2"}) == "recorded on threads ?; this is threads 2"


def test_two_runs_say_where_they_ran(tmp_path, capsys):
    item = {"notebook": "n", "error": "", "metrics": {"m": {"value": 1.0, "unit": ""}}}
    read = [{**item, "inputs": {"text": name}} for name in ("sympy-a", "sympy-b")]
    a = write_run(tmp_path / "a", 1.0, notebooks=read[:1], setting={"Python": "3.11", "threads": "1"})
    b = write_run(tmp_path / "b", 1.0, notebooks=read[1:], setting={"Python": "3.12", "threads": "1"})
    assert main(["compare", str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "A ran on Python 3.11, n text sympy-a",
        "B ran on Python 3.12, n text sympy-b",
    ]
    assert main(["compare", str(a), str(a)]) == 0
    assert "ran on" not in capsys.readouterr().out


def test_a_baseline_says_where_it_was_recorded(tmp_path):
    for content in ({"m": entry()}, [], {"recorded": "3.11", "seconds": 1.0, "metrics": {}}):
        (tmp_path / "old.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="recorded and metrics, and seconds; old.json does not"):
            baselines.load(tmp_path / "old.json")


def test_no_baseline_for_a_notebook_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path / "baselines")
    item = {
        "notebook": "07_kernels",
        "error": "",
        "seconds": 2.0,
        "metrics": {"m": {"value": 1.0, "unit": ""}},
    }
    assert proposals(write_run(tmp_path / "old", 1.0, notebooks=[item]))[1]  # from before `ours` was kept
    run = write_run(tmp_path / "a", 1.0, notebooks=[{**item, "ours": True}])
    assert proposals(run)[1]
    for i, stranger in enumerate(({**item, "ours": False}, {**item, "notebook": "mine"})):
        other = write_run(tmp_path / f"stranger{i}", 1.0, notebooks=[stranger])
        with pytest.raises(ValueError, match=f"own notebooks; {stranger['notebook']} came from elsewhere"):
            proposals(other)
        with pytest.raises(ValueError, match="came from elsewhere"):
            proposals(run, [other])


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'"\xe9"', b"[" * 100_000, b"9" * 5000])
@pytest.mark.parametrize("command", ["compare", "report", "baseline update"])
def test_a_broken_run_json_is_one_error_that_names_it(tmp_path, capsys, command, content):
    (tmp_path / "run.json").write_bytes(content)
    folders = [str(tmp_path)] * (2 if command == "compare" else 1)
    assert main([*command.split(), *folders]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "run.json") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["../mine", "/tmp/mine", "a\\b", "..", ".", "", "a\0b"])
@pytest.mark.parametrize("command", ["report", "baseline update"])
def test_no_name_in_a_run_json_leaves_its_folder(tmp_path, monkeypatch, capsys, command, name):
    monkeypatch.setattr(baselines, "BASELINES", tmp_path / "baselines")
    item = {"notebook": name, "error": "", "ours": True, "metrics": {"m": {"value": 1.0, "unit": ""}}}
    folder = write_run(tmp_path / "a", 1.0, notebooks=[item])
    assert main([*command.split(), str(folder), *["--yes"][: command.count(" ")]]) == 2
    assert f"{folder / 'run.json'}: notebook must be the name of a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "run.json"]


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"seconds": "1"}, "['seconds']"), ({"overrides": []}, "['overrides']"),
        ({"provenance": {"time": 3}}, "['provenance']['time']"),
        ({"setting": {"x": 2}}, "['setting']['x']"),
        ({"device_class": "../x"}, "device_class"), ({"notebooks": {}}, "['notebooks']"),
        ({"preset": 3}, "['preset']"),
    ],
)  # fmt: skip
def test_a_run_json_of_other_types_is_one_error_that_names_the_place(tmp_path, changed, place):
    with pytest.raises(ValueError, match=re.escape(place)) as caught:
        read_run(write_run(tmp_path / "a", 1.0, **changed))
    assert str(tmp_path / "a" / "run.json") in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "n.json: m must be a dict"),
        ({"value": "1"}, "n.json: m.value must be a number"), ({"value": float("nan")}, "m.value must be"),
        ({"trivial": []}, "n.json: m.trivial must be a number"), ({"direction": []}, "m.direction must be"),
    ],
)  # fmt: skip
def test_a_baseline_of_other_types_is_one_error(tmp_path, entry, message):
    fine = {"value": 1.0, "abs": 0.1, "rel": 0.0, "direction": "equal", "why": "measured"}
    content = {
        "recorded": {},
        "seconds": 1.0,
        "metrics": {"m": fine | entry if isinstance(entry, dict) else entry},
    }
    (tmp_path / "n.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "n.json")


def test_a_run_counts_its_verdicts_and_names_the_three_that_moved_most(tmp_path, monkeypatch, capsys):
    entries = dict.fromkeys("abcdef", entry(value=10.0, absolute=2.0, relative=0.0))
    values = {"a": 10.0, "b": 10.5, "c": 11.5, "d": 9.0, "e": 11.9, "f": 13.0}
    metrics = {name: {"value": value, "unit": ""} for name, value in values.items()}
    told = runs.NotebookRun("n", {}, metrics=metrics, baseline={"recorded": {}, "metrics": entries})
    told.compare({})
    monkeypatch.setattr(runs, "run", lambda *_: (tmp_path, [told]))
    assert main(["run"]) == 3
    out = capsys.readouterr().out
    assert "5 ok, 1 regressed" in out
    assert re.findall(r"^ n +([a-f]) .* (\d+%) *$", out, re.M) == [("e", "95%"), ("c", "75%"), ("d", "50%")]
