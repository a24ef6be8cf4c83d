"""The study's machinery: the fast loop, the other rules, what ships."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from labkit.elas import (
    ElasConfig,
    ElasForCausalLM,
    PretrainConfig,
    evaluate,
    load_text,
)
from labkit.elas.data import windows
from labkit.studies.elas import variants
from labkit.studies.elas.fastloop import FastRun, validation_and_test
from labkit.studies.elas.trainstep import TrainStep, logits_of

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


def test_one_build_serves_every_seed_and_rate(text):
    """Runs of a FastRun that has trained others are those of a fresh one; only so much may differ."""
    run, other = fast(text), dataclasses.replace(CONFIG, seed=5, lr=0.02, dense_steps=0)
    first = run.train()
    second = run.train(other)
    for config, trace in ((CONFIG, run.train(CONFIG)), (other, second)):
        fresh = FastRun(config, text, "cpu", compiled=False, dtype=torch.float32).train()
        assert trace.series.keys() == fresh.series.keys()
        for name in trace.series:
            assert np.array_equal(trace.series[name], fresh.series[name], equal_nan=True), name
    assert first.meta["test_nats"] != second.meta["test_nats"]
    assert second.curve("mask_on")[1].tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="config must be but for seed, lr, dense_steps the one of"):
        run.train(dataclasses.replace(CONFIG, steps=7))


def test_a_run_that_breaks_stops_there_with_its_findings(text):
    trace = fast(text).train(dataclasses.replace(CONFIG, lr=1e30))
    assert trace.meta["steps_done"] == 2
    assert not np.isfinite(trace.meta["test_nats"])
    assert [(one["step"], one["where"]) for one in trace.meta["findings"]] == [(2, "loss")]


def test_timing_leaves_the_weights_and_counts_the_exact_steps_in(text):
    run = fast(text)
    before = copy.deepcopy(run.model.state_dict())
    found = run.throughput(3)
    for name, p in run.model.named_parameters():
        if "weight_" not in name:  # an exact step balances the factors and keeps their product
            assert torch.equal(p, before[name]), name
    assert found["ms"]["p20"] <= found["ms"]["p50"] <= found["ms"]["p80"]
    mean = found["ms"]["p50"] + (found["exact_ms"] - found["ms"]["p50"]) / 4
    assert found["tokens_per_second"] == pytest.approx(1000 * 4 * 32 / mean)
    same = run.train()
    assert same.meta["test_nats"] == fast(text).train().meta["test_nats"]


def test_its_steps_are_those_of_the_model_and_loro(text):
    """The copy's gradients are the model's own, and the weights move as Loro moves them."""
    run = fast(text)
    rows = run._batch().long()
    twin = ElasForCausalLM(run.model.config)
    twin.load_state_dict(run.model.state_dict())
    twin(input_ids=rows, labels=rows).loss.backward()
    from labkit.elas import Loro

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


def test_chosen_and_judged_on_texts_apart(text):
    validation, test = validation_and_test(text)
    run = fast(text)
    assert np.array_equal(run.some, windows(validation, 32, 4))
    for rows, side in ((run.validation, validation), (run.test, test)):
        assert np.array_equal(rows, windows(side, 32, 40))
    tuned, told = run.train(judge=False), run.train()
    whole = evaluate(run.net, run.test, text.token_bytes)
    assert told.meta["test_nats"] == pytest.approx(whole.nats, rel=1e-6)
    assert told.meta["validation_nats"] == tuned.meta["validation_nats"] != told.meta["test_nats"]
    assert not any(name.startswith("test") for name in tuned.meta)
