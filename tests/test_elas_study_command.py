"""The study's plan, its record, and a rehearsal of the command with a resume."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from labkit.elas import ARMS, checkpoints, load_text
from labkit.elas.checkpoints import load_checkpoint
from labkit.studies import harness
from labkit.studies.elas import ffn, variants
from labkit.studies.elas.ffn import FORMS
from labkit.studies.elas.journal import Journal, chosen
from labkit.studies.elas.plan import RECORDED, TRACED, TUNE_SEED, plan, rates, settings
from labkit.studies.elas.records import load_curves
from labkit.studies.elas.runs import How, work
from labkit.studies.elas.study import STUDY, prepare
from labkit.traces import TrainTrace

BASE = settings(4, tiny=True)
RATES = {arm: rates(arm)[0] for arm in ARMS}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.mark.parametrize("base", [settings(700, tiny=False), BASE], ids=["12m", "tiny"])
def test_the_jobs_of_every_stage(base):
    jobs = [job for stage in (*RECORDED, *TRACED) for job in plan(stage, base, 8, RATES)]
    assert len({job.name for job in jobs}) == len(jobs)
    of = {stage: [job for job in jobs if job.stage == stage] for stage in RECORDED}
    assert Counter(job.shown for job in of["tune"]) == dict.fromkeys(ARMS, 4)  # one budget for all
    assert {job.config.seed for job in of["tune"]} == {TUNE_SEED}
    assert Counter(job.shown for job in of["arms"]) == dict.fromkeys(ARMS, 8)
    assert Counter(job.shown for job in of["rules"]).total() == 24
    assert TUNE_SEED not in {job.config.seed for job in of["arms"]}
    for job in of["arms"]:  # the same text, order, steps and schedule for every arm of a seed
        assert asdict(replace(job.config, arm=base.arm, lr=base.lr)) == asdict(
            replace(base, seed=job.config.seed)
        )
    for job in of["rules"]:
        assert job.config.lr == RATES["elas_ste"]
    assert jobs[0].shown == "elas_ste"  # first, for the rules wait for its rate


def test_no_arm_is_judged_before_its_rate_is_chosen():
    known = {"lowrank_relu2": 0.01, "elas_ste": None}
    assert {job.shown for job in plan("arms", BASE, 2, known)} == {"lowrank_relu2"}
    assert plan("rules", BASE, 2, known) == []


def tuned(arm, lr, nats, seed=TUNE_SEED):
    return {"stage": "tune", "arm": arm, "lr": lr, "seed": seed, "validation_nats": nats}


def test_the_rate_is_the_best_on_validation_once_all_were_tried():
    runs = [
        tuned("elas_ste", lr, nats)
        for lr, nats in zip(rates("elas_ste"), (3.0, 3.1, None, 2.9), strict=True)
    ]
    runs += [tuned("dense_relu2", lr, None) for lr in rates("dense_relu2")]
    *tried, last = rates("lowrank_relu2")
    runs += [*(tuned("lowrank_relu2", lr, 1.0) for lr in tried), tuned("lowrank_relu2", last, 1.0, seed=0)]
    assert chosen(runs) == {"dense_relu2": None, "elas_ste": rates("elas_ste")[3]}


@pytest.fixture
def record(tmp_path):
    text = load_text(BASE.source, vocab_size=BASE.vocab_size, max_bytes=BASE.max_bytes)
    return partial(Journal, tmp_path, BASE, text, "the command")


def trace_of(job, **meta):
    about = {
        "arm": job.shown,
        "seed": job.config.seed,
        "steps_done": 4,
        "parameters": 9,
        "seconds": 1.23456,
    }
    about |= {"findings": [], "validation_nats": 2.0}
    return TrainTrace(np.arange(2), {"loss": np.array([3.0, np.nan])}, meta=about | meta)


def test_the_record_is_strict_json_and_a_second_call_goes_on(record, tmp_path):
    first, jobs = record(), plan("arms", BASE, 5, RATES)[:5]
    broken = [{"step": 2, "where": "loss", "what": "is nan"}]
    first.add(jobs[0], trace_of(jobs[0], test_nats=math.nan, test_bits_per_byte=math.inf, findings=broken))
    first.add(jobs[4], trace_of(jobs[4], test_nats=2.5, test_bits_per_byte=1.5))
    first.add(plan("times", BASE, 1, {})[0], {"ms": {"p50": 1.0}})
    body = json.loads((tmp_path / "study.json").read_text(), parse_constant=pytest.fail)
    assert body["runs"][0]["test_nats"] is None
    assert body["runs"][0]["findings"] == broken
    assert body["runs"][1]["seconds"] == 1.2
    assert body["text"]["validation_tokens"] > 0 < body["text"]["test_tokens"]
    second = record()
    assert [second.done(job) for job in jobs] == [True, False, False, False, True]
    assert second.done(plan("times", BASE, 1, {})[0])
    assert second.body["runs"] == body["runs"]
    assert len(second.body["resumed"]) == 1
    (kept,) = load_curves(tmp_path / "curves.npz")  # of the first seeds
    assert kept.meta["seed"] == 0
    np.testing.assert_array_equal(kept.series["loss"], [3.0, np.nan])
    with pytest.raises(ValueError, match="out must be new, or a study of the same config: "):
        Journal(tmp_path, replace(BASE, steps=9), record.args[2], "the command")


def test_a_process_runs_jobs_and_keeps_a_checkpoint(tmp_path, monkeypatch):
    how = How("cpu", False, False, tmp_path, "the command", float("inf"))
    plain = next(job for job in plan("arms", BASE, 1, RATES) if job.shown == "lowrank_relu2")
    trace = work(plain, how)
    after = trace.meta["posthoc_nats"]
    assert set(after) == set(variants.RULES)
    assert all(abs(nats - trace.meta["test_nats"]) < 0.1 for nats in after.values())
    assert trace.meta["provenance"]["command"] == "the command"
    assert work(replace(plain, stage="tune"), how).meta.keys().isdisjoint({"test_nats", "posthoc_nats"})
    assert work(plain, replace(how, deadline=0)) is None  # cut short: not a result
    kept = plan("checkpoints", BASE, 1, {})[1]
    work(kept, how)
    assert TrainTrace.load(tmp_path / "elas-3m.npz").meta["arm"] == "elas_ste"
    assert "4 of 4 planned steps" in (tmp_path / "elas-3m" / "README.md").read_text()
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    model, tokenizer = load_checkpoint("lab/elas-3m")
    assert model.activations()[0].sparse
    assert tokenizer.get_vocab_size() == model.config.vocab_size


def test_a_rehearsal_of_the_command_and_its_resume(tmp_path, capsys):
    words = ["--out", str(tmp_path), "--device", "cpu", "--tiny", "--arms", "lowrank_relu2", "elas_ste"]
    assert harness.run(STUDY, [*words, "--stages", "times", "tune"]) == 0
    first = json.loads((tmp_path / "study.json").read_text())
    assert (
        set(first["times"]) == set(first["tried"]) == set(first["chosen"]) == {"lowrank_relu2", "elas_ste"}
    )
    for arm, tried in first["tried"].items():
        assert len(tried) == 4
        assert tried[f"{first['chosen'][arm]:g}"] == min(tried.values())
    assert harness.run(STUDY, words) == 0
    body = json.loads((tmp_path / "study.json").read_text())
    assert body["times"] == first["times"]  # gone on with, not done again
    assert [run for run in body["runs"] if run["stage"] == "tune"] == first["runs"]
    judged = Counter((run["stage"], run["arm"]) for run in body["runs"] if "test_nats" in run)
    rules = ("elas_soft", "elas_soft_scaled", "elas_no_warmup")
    assert judged == {("arms", "lowrank_relu2"): 2, ("arms", "elas_ste"): 2} | {
        ("rules", r): 2 for r in rules
    }
    assert len(load_curves(tmp_path / "curves.npz")) == 10
    assert not (tmp_path / "errors.txt").exists()
    capsys.readouterr()
    assert harness.run(STUDY, words) == 0
    assert "nats" not in capsys.readouterr().out  # nothing was left to do
    assert harness.run(STUDY, [*words, "--steps", "5"]) == 2
    assert "out must be new, or a study of the same config" in capsys.readouterr().err


def test_arms_need_a_chosen_rate(tmp_path, capsys):
    words = ["--out", str(tmp_path), "--device", "cpu", "--tiny", "--stages", "arms"]
    assert harness.run(STUDY, words) == 2
    assert "stages must be with tune, or --out a study whose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages", "arm"], "stages must be one of 'memory', .*; got 'arm'"),
        (["--arms", "arm"], "arms must be one of 'dense_swiglu', .*; got 'arm'"),
        (["--steps", "0"], "steps must be an integer >= 1; got 0"),
        (["--cards", "0"], "cards must be an integer >= 1; got 0"),
    ],
)
def test_a_bad_command_is_one_line(words, message, tmp_path, capsys):
    assert harness.run(STUDY, ["--out", str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("elas: ")
    assert not (tmp_path / "out").exists()


def test_memory_and_speed_run_through_on_a_cpu_and_one_may_fail(tmp_path, monkeypatch):
    words = ["--out", str(tmp_path), "--stages", "memory", "speed", "--device", "cpu", "--tiny"]
    assert harness.run(STUDY, words) == 0
    memory = json.loads((tmp_path / "memory.json").read_text())
    assert {row["form"] for row in memory["ffn"]} == set(FORMS)
    for row in memory["ffn"]:
        assert row["saved_bytes"] == row.get("formula_bytes", row["saved_bytes"])
    assert "--out OUT" in memory["provenance"]["command"]
    speed = json.loads((tmp_path / "speed.json").read_text())["ffn"]
    assert all(row["ms"]["p50"] > 0 for row in speed)
    errors = tmp_path / "errors.txt"
    assert not errors.exists()
    monkeypatch.setattr(ffn, "speed", lambda *_, **__: 1 / 0)
    assert harness.run(STUDY, [*words, "--again"]) == 1
    assert errors.read_text().count("ZeroDivisionError") == 1
    assert json.loads((tmp_path / "speed.json").read_text())["ffn"] == speed  # as it was


def test_the_checkpoints_need_no_text_but_their_own(monkeypatch):
    read = []
    monkeypatch.setattr("labkit.elas.data.load_text", lambda source, **how: read.append(source))
    assert (
        prepare(SimpleNamespace(stages=("checkpoints",), options=SimpleNamespace(steps=700), tiny=False))
        is None
    )
    assert read == ["sympy"]  # the study's own text is a download
