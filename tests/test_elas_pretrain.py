"""pretrain on the real text: it learns, repeats itself, and goes on after a kill as if nothing happened."""

import dataclasses
import math
import os
import shutil

import numpy as np
import pytest
import torch

from labkit.elas import ARMS, ElasForCausalLM, Loro, PretrainConfig, build_model, evaluate, pretrain
from labkit.elas.data import load_text, windows
from labkit.elas.evaluation import unigram
from labkit.traces import TrainTrace

SMALL = {
    "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
    "rank": 8, "intermediate_size": 64,
}  # fmt: skip
BASE = PretrainConfig(
    arm="elas_masked", model=SMALL, vocab_size=300, max_bytes=100_000, seq_len=32, batch_size=4,
    steps=12, lr_warmup=2, dense_steps=5, exact_every=4, log_every=2, eval_every=4, eval_tokens=512,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


def train(config=BASE, **options) -> TrainTrace:
    return pretrain(config, progress=False, **options)


def same(a: TrainTrace, b: TrainTrace) -> None:
    assert a.step.tolist() == b.step.tolist()
    assert a.series.keys() == b.series.keys()
    for name in a.series:
        assert np.array_equal(a.series[name], b.series[name], equal_nan=True), name


def test_the_trace_of_a_run():
    trace = train()
    assert trace.curve("loss")[0].tolist() == [2, 4, 6, 8, 10, 12]
    assert trace.curve("eval_nats")[0].tolist() == [0, 4, 8, 12]
    assert trace.curve("eval_nats")[1][0] == pytest.approx(math.log(300), abs=0.1)
    assert trace.curve("mask_on")[1].tolist() == [0, 0, 1, 1]  # five dense steps
    for name in ("natural_zeros", "crowded_groups", "energy_kept"):
        assert trace.series[name].shape == (len(trace.step), 2)
        assert ((trace.curve(name)[1] > 0) & (trace.curve(name)[1] < 1)).all()
    assert trace.meta["eval_nats"] == trace.curve("eval_nats")[1][-1]
    assert "train_runtime" not in trace.series


def test_it_beats_the_unigram_baseline():
    config = PretrainConfig(model={"num_hidden_layers": 2}, max_bytes=300_000, steps=110, eval_tokens=4096)
    meta = train(config).meta
    assert meta["eval_bits_per_byte"] < meta["unigram_bits_per_byte"] - 0.3


def test_a_run_that_breaks_is_recorded_with_its_findings():
    trace = train(dataclasses.replace(BASE, lr=1e30, lr_warmup=0))
    assert not np.isfinite(trace.meta["eval_nats"])
    assert trace.curve("learning_rate")[0].tolist() == [2, 4, 6, 8, 10, 12]  # to the end
    found = trace.meta["findings"]
    assert {"step": 4, "what": "not finite: no parameter moved"}.items() <= found[0].items()
    assert [(one["step"], one["where"]) for one in found[-1:]] == [(2, "loss")]


def test_a_seed_decides_everything():
    first, again, other = train(), train(), train(dataclasses.replace(BASE, seed=1))
    same(first, again)
    assert other.meta["eval_nats"] != first.meta["eval_nats"]


def test_paired_arms_start_alike_and_part_when_the_mask_comes():
    plain, elas = train(dataclasses.replace(BASE, arm="lowrank_relu2")), train()
    a, b = plain.curve("eval_nats")[1], elas.curve("eval_nats")[1]
    assert a[0] == b[0]
    assert a[1] == b[1]
    assert a[2] != b[2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_run_resumes_to_the_same_curve_and_model(tmp_path, monkeypatch, dtype):
    config = dataclasses.replace(BASE, save_every=6, dtype=dtype)
    whole = train(config, output_dir=tmp_path / "whole")
    taken, step = [], Loro.step

    def killed(self, closure=None):
        taken.append(1)
        if len(taken) == 9:  # three steps beyond the checkpoint
            raise KeyboardInterrupt
        return step(self, closure)

    monkeypatch.setattr(Loro, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, output_dir=tmp_path / "cut")
    monkeypatch.undo()
    (tmp_path / "cut" / "checkpoint-8").mkdir()  # cut short while it was being written
    same(train(config, output_dir=tmp_path / "cut", resume=True), whole)
    models = [ElasForCausalLM.from_pretrained(tmp_path / side / "model") for side in ("whole", "cut")]
    for (name, a), b in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert models[0].activations()[0].sparse
    same(TrainTrace.load(tmp_path / "cut" / "trace.npz"), whole)


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path):
    config = dataclasses.replace(BASE, steps=6, save_every=4)
    whole = train(config, output_dir=tmp_path)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    for trace_is_there in (True, False):  # without it: killed between the last step and the trace
        if not trace_is_there:
            (tmp_path / "trace.npz").unlink()
        again = train(config, output_dir=tmp_path, resume=True)
        same(again, whole)
        assert again.meta["eval_nats"] == whole.meta["eval_nats"]
        assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
            "checkpoint-4",
            "checkpoint-6",
        ]
        assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
        same(TrainTrace.load(tmp_path / "trace.npz"), whole)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory, runs):
    """The folder of a run that ended behind its checkpoint at step 4 of 6, without a trace."""
    folder = tmp_path_factory.mktemp("half")
    train(dataclasses.replace(BASE, steps=6, save_every=4), output_dir=folder)
    shutil.rmtree(folder / "checkpoint-6")
    (folder / "trace.npz").unlink()
    return folder


@pytest.mark.parametrize(
    ("part", "pattern"),
    [
        ("optimizer.pt", "optimizer.pt"),
        ("scheduler.pt", "scheduler.pt"),
        ("rng_state.pth", r"rng_state\*.pth"),
        ("model.safetensors", r"\*.safetensors"),
    ],
)
def test_a_checkpoint_without_a_part_or_with_half_of_it_is_refused(half_done, tmp_path, part, pattern):
    config = dataclasses.replace(BASE, steps=6, save_every=4)
    for told in (f"{part} is damaged", f"{pattern} is missing"):
        folder = shutil.copytree(half_done, tmp_path / told[-7:])
        path = folder / "checkpoint-4" / part
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.unlink() if "missing" in told else path.write_bytes(half)
        with pytest.raises(
            ValueError, match=f"^output_dir must be a folder with a whole checkpoint-4: its {told}; got "
        ):
            train(config, output_dir=folder, resume=True)
        assert (folder / "checkpoint-4").is_dir()


def test_a_folder_of_another_name_beside_the_checkpoints_is_none(half_done, tmp_path):
    folder = shutil.copytree(half_done, tmp_path / "run")
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-best")
    trace = train(dataclasses.replace(BASE, steps=6, save_every=4), output_dir=folder, resume=True)
    assert trace.curve("loss")[0].tolist() == [2, 4, 6]


def test_a_checkpoint_put_aside_is_not_rotated_away(tmp_path):
    kept = tmp_path / "checkpoint-best"
    kept.mkdir()
    os.utime(kept, (1, 1))  # older than all that Trainer writes
    train(dataclasses.replace(BASE, steps=8, save_every=2), output_dir=tmp_path)
    found = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert found == ["checkpoint-6", "checkpoint-8", "checkpoint-best"]


def test_checkpoints_of_another_program_are_not_cleared_away(tmp_path):
    weights = tmp_path / "checkpoint-7" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"days of work")
    with pytest.raises(
        ValueError, match="output_dir must be new, empty or of an earlier run: it holds checkpoint-7; got"
    ):
        train(dataclasses.replace(BASE, steps=2), output_dir=tmp_path)
    assert weights.read_bytes() == b"days of work"


def test_only_the_main_process_clears_checkpoints_away(half_done, tmp_path, monkeypatch):
    from labkit.elas.trainer import _last_checkpoint

    folder = shutil.copytree(half_done, tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    assert _last_checkpoint(folder, resume=False) is None
    assert (folder / "checkpoint-4").is_dir()
    monkeypatch.setenv("RANK", "0")
    assert _last_checkpoint(folder, resume=False) is None
    assert not (folder / "checkpoint-4").exists()


@pytest.mark.parametrize("fields", [{"batch_size": 10**6}, {"max_bytes": 1, "batch_size": 10**4}])
def test_a_text_of_less_than_one_batch_is_refused(fields, tmp_path):
    with pytest.raises(
        ValueError, match=r"batch_size must be at most \d+ rows: the training text of max_b"
    ):
        train(dataclasses.replace(BASE, **fields), output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_configuration_is_not_resumed(tmp_path):
    config = dataclasses.replace(BASE, steps=2, save_every=2)
    train(config, output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"config must be that of .*, which differs in lr; got"):
        train(dataclasses.replace(config, lr=0.5), output_dir=tmp_path, resume=True)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains(arm):
    trace = train(dataclasses.replace(BASE, arm=arm, steps=3))
    assert np.isfinite(trace.meta["eval_nats"])
    assert ("natural_zeros" in trace.series) == ("swiglu" not in arm)


def test_equal_flops_rank():
    h384 = {"hidden_size": 384, "intermediate_size": 1536, "rank": 96, "num_attention_heads": 6}
    config = PretrainConfig(arm="equal_flops", model=h384).model_config(512)
    assert config.mlp_rank == 77  # the design's example: 0.8 of 96


def test_the_evaluator_counts_every_token_once():
    text = load_text(vocab_size=300, max_bytes=100_000)
    model, rows = build_model(BASE, text), windows(text.held_out, 32)[:7]
    sizes = (1, 3, 7)  # 3 leaves a short last batch
    losses = [evaluate(model, rows, text.token_bytes, batch_size=size) for size in sizes]
    batch = torch.from_numpy(rows.astype(np.int64))
    mean = model(input_ids=batch, labels=batch).loss.item()
    for loss in losses:
        assert loss.nats == pytest.approx(mean, rel=1e-5)
        assert loss.tokens == 7 * 32
        total_bytes = text.token_bytes[rows[:, 1:]].sum()
        assert loss.bits_per_byte == pytest.approx(mean * 7 * 32 / math.log(2) / total_bytes, rel=1e-5)
    assert model.training


def test_the_unigram_baseline_is_the_cross_entropy_of_counts():
    text = load_text(vocab_size=300, max_bytes=100_000)
    rows = windows(text.held_out, 32)[:7]
    p = (np.bincount(text.train, minlength=300) + 1) / (len(text.train) + 300)
    expected = np.mean([-math.log(p[t]) for t in rows[:, 1:].ravel()])
    assert unigram(text, rows).nats == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arm": "elas"}, "arm must be one of 'dense_swiglu', .*; got 'elas'"),
        ({"steps": 0}, "steps must be an integer >= 1; got 0"),
        ({"seed": -1}, "seed must be an integer between 0 and 4294967295; got -1"),
        ({"lr": "0.1"}, "lr must be a number >= 0; got '0.1'"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'bfloat16'; got 'float16'"),
        ({"save_every": 3, "log_every": 2}, "save_every must be a multiple of log_every=2; got 3"),
        ({"eval_tokens": 5}, "eval_tokens must be an integer >= 32; got 5"),
        ({"seq_len": 10**8}, "seq_len must be an integer between 1 and 1024; got 100000000"),
        ({"seed": 2**32}, "seed must be an integer between 0 and 4294967295; got 4294967296"),
        ({"model": {1: 2}}, "model must be a mapping of ElasConfig fields by name; got {1: 2}"),
        (
            {"model": {"vocab_size": 10}},
            "model must be without vocab_size, which follows from the field vocab",
        ),
        (
            {"model": {"warmup_steps": 1}},
            "model must be without warmup_steps, .* from the field dense_steps",
        ),
        ({"arm": "equal_flops", "model": {"mlp_rank": 3}}, "model must be without mlp_rank, .* from arm="),
        ({"arm": "equal_flops", "model": {"rank": None}}, "model must be one with a rank for arm="),
        ({"model": {"rank": 0}}, "rank must be an integer between 1 and"),
        ({"model": {"num_key_value_heads": 3}}, "num_key_value_heads must be a divisor of num_attention"),
        ({"model": {"num_key_value_heads": 0}}, "num_key_value_heads must be an integer >= 1; got 0"),
        ({"model": {"head_dim": 7}}, "head_dim must be even: rotary embeddings turn pairs; got 7"),
        ({"model": {"attention_dropout": 2.0}}, r"attention_dropout must be a number in \[0, 1\]; got 2.0"),
        ({"model": {"hidden_act": "bad"}}, "hidden_act must be one of .*; got 'bad'"),
        ({"save_every": 2}, "output_dir must be a folder where checkpoints are saved"),
    ],
)
def test_bad_configurations(fields, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(BASE, **fields))


def test_the_function_hides_the_submodule_of_its_name():
    import labkit.elas
    import labkit.elas.pretrain

    assert callable(labkit.elas.pretrain)
