"""The harness of the studies: stages, failures, deadline, resume, options, files and their shape."""

import json
import math

import pytest

from labkit.checks import fail
from labkit.paths import write_json
from labkit.studies import __main__ as command
from labkit.studies import files, harness, report, timing
from labkit.studies.elas import journal
from labkit.studies.harness import Option, Stage, Study
from labkit.studies.soar import study as soar_study

SHAPE = {"rows": [{"ms": float, "name": str | None}], "by_arm": {str: int}}
GOOD = {"rows": [{"ms": 1, "name": None}, {"ms": 1.5, "name": "x", "more": []}], "by_arm": {"a": 1}}


def make(calls, **more):
    """A study of three stages that count their calls; ``more``: other stages."""

    def stage(name, **how):
        def run(context):
            calls.append((name, context.options.size))
            return {"size": context.options.size}

        return Stage(run, f"the stage {name}", shape={"size": int}, **how)

    stages = {
        "first": stage("first", file="first.json", inputs=lambda c: c.pick("size")),
        "second": stage("second", file="both.json", key="second", inputs=lambda c: c.pick("size")),
        "third": stage("third", file="both.json", key="third"),
    }
    options = {"size": Option(9, "of all", tiny=2), "arms": Option(("a",), "some", choices=("a", "b")),
               "rate": Option(None, "of learning", kind=float, least=0)}  # fmt: skip
    return Study("numbers", "Counts.", stages | more, options)


def read(path):
    return json.loads(path.read_text())


def test_stages_run_in_the_studys_order_and_leave_their_provenance(tmp_path):
    calls = []
    words = ["--out", str(tmp_path), "--stages", "third", "first", "--tiny", "--device", "cpu"]
    assert harness.run(make(calls), words) == 0
    assert calls == [("first", 2), ("third", 2)]
    found = read(tmp_path / "first.json")
    about = found.pop("provenance")
    assert found == {"size": 2}
    wanted = "python -m labkit.studies numbers --out OUT --stages third first --tiny --device cpu"
    assert about["command"] == wanted
    assert (about["size"], about["stage_seconds"] >= 0) == (2, True)
    assert set(read(tmp_path / "both.json")) == {"third"}
    assert not (tmp_path / "errors.txt").exists()


def test_a_result_of_the_same_inputs_is_not_made_again(tmp_path, capsys):
    calls, words = [], ["--out", str(tmp_path), "--device", "cpu"]
    for more in ([], [], ["--size", "3"], ["--again"]):
        assert harness.run(make(calls), [*words, *more]) == 0
    whole = ["first", "second", "third"]
    assert [name for name, _ in calls] == [*whole, "third", *whole, *whole]
    assert "first: stands in first.json (--again runs it once more)" in capsys.readouterr().out
    assert set(read(tmp_path / "both.json")) == {"second", "third"}


def test_a_failure_is_told_and_the_others_run(tmp_path, capsys):
    calls, words = [], ["--out", str(tmp_path), "--stages", "bad", "wrong", "second"]
    bad = Stage(lambda c: fail("card", "moon", "a card"), "fails")
    wrong = Stage(lambda c: {"size": "nine"}, "another shape", "wrong.json", shape={"size": int})
    study = make(calls, bad=bad, wrong=wrong)
    assert harness.run(study, words) == 1
    assert calls == [("second", 9)]
    told = (tmp_path / "errors.txt").read_text()
    assert "card must be a card; got 'moon'" in told
    assert "wrong['size'] must be of type int; got 'nine'" in told
    assert told.split() == capsys.readouterr().err.split()
    assert not (tmp_path / "wrong.json").exists()
    assert (
        harness.run(study, ["--out", str(tmp_path), "--stages", "first"]) == 0
    )  # an old error is no new one


def test_nothing_begins_after_the_deadline_and_what_it_cut_short_is_made_again(tmp_path, capsys):
    calls, words = [], ["--out", str(tmp_path), "--stages", "slow", "third"]

    def slow(context):
        calls.append("slow")
        context.deadline = min(context.deadline, 0)
        return {"size": 1}

    study = make(calls, slow=Stage(slow, "takes long", "slow.json", inputs=lambda c: {}))
    order = {"slow": study.stages["slow"], "third": study.stages["third"]}
    study = Study("numbers", "Counts.", order, study.options)
    for _ in range(2):
        assert harness.run(study, words) == 0
    assert calls == ["slow", "slow"]
    assert capsys.readouterr().out.count("third: no time left") == 2
    assert "fingerprint" not in read(tmp_path / "slow.json")["provenance"]


def test_neighbours_that_share_a_function_are_one_call(tmp_path):
    seen = []

    def pool(context):
        seen.append(context.stages)

    stages = {name: Stage(pool, name) for name in ("tune", "arms", "rules")}
    assert (
        harness.run(Study("pool", "", stages), ["--out", str(tmp_path), "--stages", "rules", "tune"]) == 0
    )
    assert seen == [("tune", "rules")]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--stages fourth", "stages must be one of 'first', 'second', 'third'; got 'fourth'"),
        ("--size 0", "size must be an integer >= 1; got 0"),
        ("--rate -1", "rate must be a number >= 0; got -1.0"),
        ("--arms a c", "arms must be one of 'a', 'b'; got 'c'"),
        ("--seconds -1", "seconds must be a number >= 0; got -1.0"),
    ],
)
def test_a_bad_command_is_one_line(words, error, tmp_path, capsys):
    calls = []
    assert harness.run(make(calls), [*words.split(), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"numbers: {error}\n"
    assert not calls
    assert not (tmp_path / "out").exists()


def test_what_is_prepared_is_kept_for_the_stages(tmp_path, capsys):
    seen = []
    stages = {"only": Stage(lambda c: seen.append(c.prepared), "looks")}
    assert (
        harness.run(Study("p", "", stages, prepare=lambda c: "model"), ["--out", str(tmp_path / "a")]) == 0
    )
    assert seen == ["model"]
    refuses = Study("p", "", stages, prepare=lambda c: fail("model", "gone", "there"))
    assert harness.run(refuses, ["--out", str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err == "p: model must be there; got 'gone'\n"
    assert not (tmp_path / "b").exists()


def test_a_shape_is_checked_where_it_differs():
    files.check("body", GOOD, SHAPE)
    for change, error in (
        ({"by_arm": {}, "rows": []}, None),
        ({"rows": {}}, r"body\['rows'\] must be a list; got {}"),
        ({"rows": [{"ms": 1}]}, r"body\['rows'\]\[0\] must be a dict with 'name'; got \['ms'\]"),
        ({"rows": [{"ms": True, "name": None}]}, r"\['ms'\] must be of type float; got True"),
        ({"rows": [{"ms": 1, "name": 2}]}, r"\['name'\] must be of type str \| None; got 2"),
        ({"by_arm": {"a": 1.5}}, r"body\['by_arm'\]\['a'\] must be of type int; got 1.5"),
    ):
        if error is None:
            files.check("body", GOOD | change, SHAPE)
            continue
        with pytest.raises(ValueError, match=error):
            files.check("body", GOOD | change, SHAPE)


@pytest.mark.parametrize("name", ["elas", "soar-bench", "soar-caches", "fgo-bench"])
def test_the_committed_records_have_the_shape_that_is_asked_of_new_ones(name):
    results = report.HERE / name.split("-")[0] / "results"
    stages = [(key, stage) for key, stage in command.load(name).stages.items() if stage.file]
    assert stages
    for key, stage in stages:
        body = read(results / stage.file)
        files.check(key, body[stage.key] if stage.key else body, stage.shape)


def test_the_studies_that_grow_have_their_shape_as_well():
    files.check("elas", read(report.HERE / "elas/results/study.json"), journal.SHAPE)
    for by_seed in read(report.HERE / "soar/results/study.json").values():
        for record in by_seed.values():
            files.check("soar", record, soar_study.RECORD)


def test_json_is_strict_whole_and_beside_what_stands_there(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.put(path, {"x": [1, 2]}, "model", "0")
    files.put(path, {"y": None}, "model", "1")
    files.put(path, {"z": "ü"}, "model", "0")
    assert read(path) == {"model": {"0": {"z": "ü"}, "1": {"y": None}}}
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.put(path, {"x": math.nan}, "model", "2")
    assert path.read_text() == before
    long = {"rows": [{"a": list(range(40))}] * 9, "one": {}}
    write_json(path, long, strict=True)
    assert read(path) == long
    assert len(path.read_text().splitlines()) == 14  # braces, key and bracket, a line a row, the last key


def test_a_digest_follows_the_value_and_the_file(tmp_path):
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest({"a": 1})
    (tmp_path / "a").write_text("x")
    before = files.digest(tmp_path / "a")
    (tmp_path / "a").write_text("y")
    assert files.digest(tmp_path / "a") != before


def test_rivals_take_turns_and_slow_ones_fewer():
    seen = []
    calls = {name: (lambda name=name: seen.append(name) or len(seen)) for name in "ab"}
    turns = timing.take_turns(calls, {"a": 3, "b": 1})
    assert seen == ["a", "b", "a", "a"]
    assert [result for result, _ in turns["a"]] == [1, 3, 4]
    assert all(spent >= 0 for spent in timing.seconds(turns)["a"])
    seen.clear()
    timing.take_turns(calls, 5, deadline=0)
    assert seen == ["a", "b"]  # the first round is whole


def test_the_command_lists_every_study_and_refuses_others(capsys):
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in command.STUDIES:
        study = command.load(name)
        assert study.name == name
        assert all(stage in listed for stage in study.stages)
        assert set(study.default) <= set(study.stages)
        for option in study.options:
            assert option not in {"stages", "out", "seconds", "device", "tiny", "again"}
    assert command.main(["elsa"]) == 2
    assert capsys.readouterr().err.startswith("studies: study must be one of '")
