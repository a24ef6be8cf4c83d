"""What ships of the ELAS study: the records, the claims computed from them, the trained model."""

import json

import numpy as np
import pytest
import torch

from labkit.elas import ARMS
from labkit.elas.checkpoints import load_checkpoint
from labkit.figures import elas_tables
from labkit.studies.elas import claims, claims60m, gaps, records
from labkit.studies.elas.ffn import FORMS, RELU2, shape
from labkit.studies.elas.plan import RULES
from labkit.studies.elas.records import curves, results, runs, traces


def test_recorded_memory_is_the_formula_of_the_design():
    """Straight-through keeps one wide tensor less; peak of a 1B step falls; recompute keeps 84 % less."""
    record = results("memory")
    assert "NVIDIA H" in record["provenance"]["device"]
    rows = {(row["form"], row["batch"]): row for row in record["ffn"]}
    for row in record["ffn"]:
        if "formula_bytes" in row:
            assert abs(row["saved_bytes"] / row["formula_bytes"] - 1) < 0.01
    plain, packed = rows["LORO ReLU²", 128], rows["ELAS packed, straight-through", 128]
    wide = 2 * 8192 * plain["tokens"]  # one wide tensor, bfloat16
    assert abs((plain["saved_bytes"] - packed["saved_bytes"]) / wide - 1) < 0.01
    recomputed = rows["LORO ReLU², recomputed", 128]["saved_bytes"]
    assert 1 - recomputed / plain["saved_bytes"] == pytest.approx(0.84, abs=0.01)
    model = {(row["form"], row["batch"]): row["peak_bytes"] for row in record["model"]}
    assert model["ELAS packed, masked gradient", 64] < 0.9 * model["LORO ReLU²", 64]
    assert model["ELAS packed, straight-through", 128] < 0.9 * model["LORO ReLU²", 128]


def test_recorded_runs_are_whole_and_paired():
    record, of = results("study"), {}
    for run in runs():
        of.setdefault(run.meta["arm"], []).append(run.meta["seed"])
        whole = run.meta["steps"] == record["config"]["steps"]
        assert whole == np.isfinite(run.meta["test_nats"])
        assert whole or run.findings
        assert (
            run.meta["lr"]
            == record["chosen"][run.meta["arm"] if run.meta["stage"] == "arms" else "elas_ste"]
        )
    assert set(of) == {*ARMS, *RULES}
    assert all(seeds == list(range(len(of["elas_ste"]))) for seeds in of.values())
    assert set(record["times"]) == set(ARMS)
    for run in curves():  # the curves are of the runs that were runs
        (row,) = (r for r in runs(run.meta["arm"]) if r.meta["seed"] == run.meta["seed"])
        assert row.meta["test_nats"] == pytest.approx(run.meta["test_nats"], abs=1e-6, nan_ok=True)
        assert run.step[-1] == row.meta["steps"]
    with pytest.raises(ValueError, match="prefix must be one of .*; got 'nothing'"):
        traces("nothing")
    with pytest.raises(ValueError, match="stage must be one of 'memory', 'speed', .*; got 'arms'"):
        results("arms")
    for read in (runs, curves):
        with pytest.raises(ValueError, match="arms must be one of 'dense_relu2', .*; got 'elas'"):
            read("elas")


def test_the_checkpoint_is_as_good_as_its_card_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    model, tokenizer = load_checkpoint("lab/elas-3m")
    assert model.activations()[0].sparse
    (trace,) = traces("elas-3m")
    from labkit.elas import sources

    lines = dict(sources.documents("sympy"))["core/mod.py"]
    ids = torch.tensor([tokenizer.encode(lines).ids[:512]])
    with torch.no_grad():
        nats = model(input_ids=ids, labels=ids, use_cache=False).loss.item()
    assert nats < trace.meta["unigram_nats"] - 1
    with pytest.raises(ValueError, match="name must be one of 'lab/elas-3m'; got 'elas'"):
        load_checkpoint("elas")


def test_the_forms_share_one_shape():
    configs = [shape(RELU2 | options, tiny=False) for options in FORMS.values()]
    sizes = {(c.hidden_size, c.intermediate_size, c.rank, c.num_hidden_layers) for c in configs}
    assert sizes == {(2048, 8192, 512, 24)}


def test_claims_are_computed_from_the_records():
    rows = claims.claims()
    assert all(row.claim and row.measured and row.conditions and row.published for row in rows)
    measured = {row.claim: row.measured for row in rows}
    assert "-100% of the wide tensor behind ReLU²" in measured["FFN activation memory"]
    nats = {arm: [r.meta["test_nats"] for r in runs(arm)] for arm in ("elas_ste", "lowrank_relu2")}
    by_hand = np.mean(np.subtract(*nats.values()))
    (mask,) = (told for claim, told in measured.items() if "for the mask" in claim)
    assert f"{by_hand:+.3f} nats (95 % " in mask
    assert f"{len(nats['elas_ste'])} seeds" in mask
    found = gaps.perplexities()["elas_ste"]
    np.testing.assert_allclose(np.log(found), nats["elas_ste"])
    assert "elas_soft" not in gaps.perplexities()
    assert "equal FLOPs" in measured["time of a training step, end to end"]
    low_rank = measured["FFN speed against low-rank ReLU²"]
    assert "straight-through forward + backward 1.01x" in low_rank


def test_the_words_of_a_difference(monkeypatch):
    values = {"a": {0: 2.0, 1: 2.1, 2: 2.2, 3: 9.0}, "b": {0: 1.9, 1: 2.0, 2: 2.1}}
    monkeypatch.setattr(gaps, "nats", values.__getitem__)
    assert gaps.describe_gap(gaps.gap("a", "b")) == "+0.100 nats (95 % +0.100 to +0.100, 3 seeds): worse"
    assert gaps.describe_gap(gaps.gap("b", "a")).endswith(": better")
    values["b"] = {0: 2.001, 1: 2.099, 2: 2.2}
    assert gaps.describe_gap(gaps.gap("a", "b")).endswith("3 seeds): no difference larger than 0.02")


def test_a_record_of_the_older_optimiser_says_so(tmp_path, monkeypatch):
    older = {"loro_revision": records.LORO_REVISION - 1}
    for meta in ({}, older):
        assert records.note(meta) == "run before Loro's exact step and schedule were corrected"
    assert records.note({"loro_revision": records.LORO_REVISION}) == ""
    record = results("study")
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    for revision in (1, records.LORO_REVISION):
        record["loro_revision"] = revision
        (tmp_path / "study.json").write_text(json.dumps(record))
        row, _ = claims.loss_headline()
        tables = elas_tables.arm_table(results("study"), runs()).data
        for place in (row.conditions, tables, claims._loss()[0].conditions):
            assert ("were corrected" in place) == (revision == 1)


def test_the_60m_runs_are_one_run_of_each_arm_to_the_same_token():
    """Four curves, their last losses by hand from the JSON, and no verdict from one seed."""
    found = records.runs_60m()
    assert set(found) == {"dense_swiglu", "lowrank_swiglu", "lowrank_relu2", "elas_ste"}
    by_hand = {
        arm: json.loads((records.RESULTS / f"60m-{arm}.json").read_text())["test_nats"] for arm in found
    }
    mask = by_hand["elas_ste"] - by_hand["lowrank_relu2"]
    assert {run.meta["tokens_done"] for run in found.values()} == {9500 * 512 * 256}
    for run in found.values():
        steps, nats = run.curve("eval_nats")
        assert steps[-1] == run.meta["steps_done"] == run.meta["config"]["steps"]
        assert abs(nats[-1] - run.meta["validation_nats"]) < 0.01  # on a tenth of the same text
        assert 0.1 < run.meta["mfu"] < 1
    assert found["elas_ste"].series["natural_zeros"].shape[1] == 8
    (row,) = claims60m.headline_60m()
    assert f"(the mask alone) {mask:+.4f} nats" in row.measured
    assert "one seed: not resolved" in row.measured
    assert row.published.startswith("34.12 against 33.96")
    loss, cost = claims60m.claims_60m()
    assert "9,500 of 10,000 steps" in loss.conditions
    assert cost.measured.count("M tokens/s, MFU 0.") == 4
