"""The study's machinery: the fast loop, the other rules, what ships, a rehearsal of the command."""

import json

import numpy as np
import pytest
import torch

from labkit.elas import (
    ElasConfig,
    ElasForCausalLM,
    PretrainConfig,
    claims,
    load_text,
    recorded,
    study,
    variants,
)
from labkit.elas.data import windows
from labkit.elas.fastloop import FastRun, logits_of
from labkit.elas.recorded import load_checkpoint, results, runs
from labkit.elas.study_ffn import FORMS, RELU2, shape
from labkit.traces import TrainTrace

SMALL = {
    "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
    "rank": 8, "intermediate_size": 64,
}  # fmt: skip
CONFIG = PretrainConfig(
    arm="elas_masked", model=SMALL, vocab_size=300, max_bytes=50_000, seq_len=32, batch_size=4, steps=6,
    lr_warmup=2, dense_steps=3, exact_every=4, log_every=2, eval_every=2, eval_tokens=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield load_text(vocab_size=300, max_bytes=50_000)


def fast(text, **options) -> FastRun:
    return FastRun(CONFIG, text, "cpu", compiled=False, dtype=torch.float32, **options)


def test_the_fast_loop_repeats_itself_and_tells_what_pretrain_tells(text):
    a, b = fast(text).train(), fast(text).train()
    for name in a.series:
        assert np.array_equal(a.series[name], b.series[name], equal_nan=True), name
    assert a.curve("mask_on")[1].tolist() == [0, 0, 1, 1]  # three dense steps
    assert a.curve("loss")[0].tolist() == [2, 4, 6]
    assert a.series["gradient_cosine"].shape == (4, 2)
    assert a.curve("eval_nats")[1][-1] < a.curve("eval_nats")[1][0]
    assert a.meta["steps_done"] == 6


def test_its_steps_are_those_of_the_model_and_loro(text):
    """The copy's gradients are the model's own, and the weights move as Loro moves them."""
    run = fast(text)
    rows = run._batch().long()
    twin = ElasForCausalLM(run.model.config)
    twin.load_state_dict(run.model.state_dict())
    twin(input_ids=rows, labels=rows).loss.backward()
    from labkit.elas import Loro
    from labkit.elas.fastloop import TrainStep

    TrainStep(run.net, rows, compiled=False)(rows)
    run._update(0.01)
    Loro.for_model(twin, lr=0.01, exact_every=4).step()
    for (name, a), b in zip(run.model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    for a, b in zip(run.net.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_deadline_stops_at_an_evaluation(text):
    assert fast(text).train(deadline=0).meta["steps_done"] == 2


def test_logits_without_the_look_for_packed_rows_are_the_same():
    net = ElasForCausalLM(ElasConfig.from_name("tiny", vocab_size=64, num_hidden_layers=2))
    tokens = torch.randint(64, (2, 9))
    assert torch.equal(logits_of(net, tokens), net(tokens, use_cache=False).logits)


def test_soft_thresholding_worked_by_hand():
    x = torch.tensor([3.0, 1.0, 2.0, -1.0, 1.0, 1.0, 1.0, 1.0], requires_grad=True)
    soft = variants.StudyReLU2("soft")
    y = soft(x)
    assert y.tolist() == [8, 0, 3, 0, 0, 0, 0, 0]  # squares 9 1 4 0, minus the largest dropped: 1
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.tolist() == [6, 2, 4, 0, 2, 2, 2, 2]  # straight-through: 2 relu(x)
    scaled = variants.StudyReLU2("soft scaled")(x)
    factor = (9 * 8 + 4 * 3) / (64 + 9)
    torch.testing.assert_close(scaled[:4], torch.tensor([8 * factor, 0, 3 * factor, 0]))


@pytest.mark.parametrize("scale", [1.0, 2.0**-12])
def test_magnitude_in_the_study_is_the_activation_of_elas(scale):
    x = scale * torch.randn(5, 16)
    plain = variants.Sparse24ReLU2()(x)
    assert torch.equal(variants.StudyReLU2()(x), plain)


def test_float16_overflows_beyond_256_and_is_counted():
    x = torch.tensor([255.0, 257.0, 0.0, -300.0], requires_grad=True)
    half = variants.StudyReLU2(half=True)
    y = half(x)
    assert y.tolist() == [65024, float("inf"), 0, 0]
    assert half.overflows.item() == 1
    assert half.peak.item() == 257**2
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.tolist() == [510, 514, 0, 0]  # the backward pass does not see float16
    half.eval()(x)
    assert half.overflows.item() == 1


def test_use_keeps_the_switch():
    net = ElasForCausalLM(ElasConfig.from_name("tiny", vocab_size=64, num_hidden_layers=2, warmup_steps=3))
    net.advance()
    made = variants.use(net, "soft", half=True)
    assert len(made) == 2
    assert [a.dense_steps_left.item() for a in net.activations()] == [2, 2]
    with pytest.raises(ValueError, match="rule must be one of 'magnitude', 'soft', 'soft scaled'; got 'x'"):
        variants.StudyReLU2("x")


def test_recorded_memory_is_the_formula_of_the_design():
    """Packed saved bytes within 1 % of 9/16; peak of a 1B step falls; recompute keeps 84 % less."""
    record = results("memory")
    assert "H100" in record["provenance"]["device"]
    rows = {(row["form"], row["batch"]): row for row in record["ffn"]}
    for row in record["ffn"]:
        if "formula_bytes" in row:
            assert abs(row["saved_bytes"] / row["formula_bytes"] - 1) < 0.01
    plain, packed = rows["LORO ReLU²", 128], rows["ELAS packed, straight-through", 128]
    wide = 2 * 8192 * plain["tokens"]  # one wide tensor, bfloat16
    assert abs((plain["saved_bytes"] - packed["saved_bytes"]) / wide - 7 / 16) < 0.0044
    recomputed = rows["LORO ReLU², recomputed", 128]["saved_bytes"]
    assert 1 - recomputed / plain["saved_bytes"] == pytest.approx(0.84, abs=0.01)
    model = {(row["form"], row["batch"]): row["peak_bytes"] for row in record["model"]}
    assert model["ELAS packed, masked gradient", 64] < 0.9 * model["LORO ReLU²", 64]
    assert model["LORO ReLU²", 128] is None


def test_recorded_runs_are_whole_and_paired():
    arms = runs("arms-")
    assert len(arms) == 21
    assert {run.meta["steps_done"] for run in arms} == {700}
    assert {run.meta["text"] for run in arms} == {arms[0].meta["text"]}
    with pytest.raises(ValueError, match="prefix must be one of .*; got 'nothing'"):
        runs("nothing")
    with pytest.raises(ValueError, match="stage must be one of 'memory', 'speed'; got 'arms'"):
        results("arms")


def test_the_checkpoint_is_as_good_as_its_card_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    model, tokenizer = load_checkpoint("lab/elas-3m")
    assert model.activations()[0].sparse
    (trace,) = runs("elas-3m")
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


def test_every_job_of_the_plan_is_a_valid_configuration():
    for stage in study.STAGES[2:]:
        jobs = [job for jobs in study.plan(stage, 3, 700, 800, tiny=False) for job in jobs]
        assert len({job["name"] for job in jobs}) == len(jobs)
        for job in jobs:
            PretrainConfig(**job["config"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages", "arm"], "stages must be one of 'memory', .*; got 'arm'"),
        (["--stages", "arms+memory"], "stages must be one of 'arms', .*; got 'memory'"),
        (["--steps", "0"], "steps must be an integer >= 1; got 0"),
    ],
)
def test_a_bad_command_is_one_line(words, message, tmp_path, capsys):
    assert study.main(["--out", str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("study: ")
    assert not (tmp_path / "out").exists()


def test_memory_and_speed_run_through_on_a_cpu(tmp_path):
    words = ["--out", str(tmp_path), "--stages", "memory,speed", "--device", "cpu", "--tiny"]
    assert study.main(words) == 0
    memory = json.loads((tmp_path / "memory.json").read_text())
    assert {row["form"] for row in memory["ffn"]} == set(FORMS)
    for row in memory["ffn"]:
        assert row["saved_bytes"] == row.get("formula_bytes", row["saved_bytes"])
    assert "--out OUT" in memory["provenance"]["command"]
    speed = json.loads((tmp_path / "speed.json").read_text())["ffn"]
    assert all(row["ms"]["p50"] > 0 for row in speed)


def test_windows_of_the_held_out_side_are_what_is_judged(text):
    run = fast(text)
    assert np.array_equal(run.some, windows(text.held_out, 32, 4))
    assert len(run.held_out) == min(40, len(windows(text.held_out, 32)))


def test_claims_are_computed_from_the_records():
    rows = claims.claims()
    assert all(set(row) == {"claim", "paper", "measured", "conditions"} for row in rows)
    measured = {row["claim"]: row["measured"] for row in rows}
    assert "-43.75% of the tensor that is packed" in measured["FFN activation memory"]
    assert "3 seeds" in next(row["conditions"] for row in rows if "gate" in row["claim"])
    elas, plain = runs("arms-elas_ste-"), runs("arms-lowrank_relu2-")
    pairs = zip(elas, plain, strict=True)
    by_hand = np.mean([a.meta["held_out_nats"] - b.meta["held_out_nats"] for a, b in pairs])
    (mask,) = (told for claim, told in measured.items() if "for the mask" in claim)
    assert f"{by_hand:+.3f} nats" in mask
    assert claims.paired(elas, plain[::-1]).mean() == pytest.approx(by_hand)  # by seed, not by place
    found = claims.perplexities(elas)["elas_ste"]
    np.testing.assert_allclose(np.log(found), [run.meta["held_out_nats"] for run in elas])


def test_an_error_of_an_earlier_study_is_not_this_ones(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no card")

    words = ["--out", str(tmp_path), "--stages", "memory", "--device", "cpu", "--tiny"]
    monkeypatch.setattr(study, "run_stage", fails)
    assert study.main(words) == 1
    monkeypatch.setattr(study, "run_stage", lambda *_: None)
    assert study.main(words) == 0
    assert (tmp_path / "errors.txt").read_text().count("no card") == 2  # the line of code and the error


def test_a_process_of_the_study_survives_a_job_that_fails(tmp_path, monkeypatch, tmp_path_factory):
    from labkit.elas import study_runs

    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path_factory.getbasetemp() / "cache"))
    (plain,) = study.plan("arms", 1, 4, 4, tiny=True)[3]
    (kept,) = study.plan("checkpoints", 1, 4, 4, tiny=True)[1]
    wrong = plain | {"name": "wrong", "config": plain["config"] | {"arm": "none"}}
    how = {"device": "cpu", "compiled": False, "graph": False}
    study_runs.work([wrong, plain, kept], tmp_path, how, "the command", float("inf"), None, None)
    assert "arm must be one of" in (tmp_path / "errors.txt").read_text()
    trace = TrainTrace.load(tmp_path / "arms-lowrank_relu2-0.npz")
    after = trace.meta["posthoc_nats"]
    assert set(after) == set(variants.RULES)
    assert all(abs(nats - trace.meta["held_out_nats"]) < 0.1 for nats in after.values())
    assert trace.meta["provenance"]["command"] == "the command"
    card = (tmp_path / "elas-3m" / "README.md").read_text()
    assert "4 of 4 planned steps" in card
    monkeypatch.setattr(recorded, "CHECKPOINTS", tmp_path)
    model, tokenizer = load_checkpoint("lab/elas-3m")
    assert model.activations()[0].sparse
    assert tokenizer.get_vocab_size() == model.config.vocab_size
