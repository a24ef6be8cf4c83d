"""labkit train elas: presets, one clear error, a run that is killed and resumed, two processes as one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_export import shown

from labkit.elas import PretrainConfig, cli
from labkit.traces import TrainTrace

TINY = {
    "max_bytes": 100_000, "vocab_size": 300, "seq_len": 32, "batch_size": 4, "steps": 8, "lr_warmup": 2,
    "dense_steps": 2, "exact_every": 4, "log_every": 1, "eval_every": 4, "eval_tokens": 256,
    "save_every": 2, "model": {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
    "rank": 8, "intermediate_size": 64},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text(json.dumps(TINY))  # JSON is YAML
    return str(path)


def environment(**more):
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


@pytest.mark.parametrize("name", cli.PRESETS)
def test_every_preset_is_a_configuration(name):
    assert cli.parse(["--preset", name, "--lr", "1e-3"])[0].lr == 0.001


def test_a_preset_trains_and_leaves_model_and_curves(preset, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["--preset", preset, "-p", "seed", "3", "--output", str(out)]) == 0
    assert (out / "model" / "model.safetensors").exists()
    assert TrainTrace.load(out / "trace.npz").meta["seed"] == 3
    assert "bits per byte" in capsys.readouterr().out
    curves, _ = shown(out)
    assert curves["training loss (nats per token)"] == list(range(1, 9))
    assert curves["held-out loss (nats per token)"] == [0, 4, 8]
    with pytest.raises(ValueError, match="--output must be new or empty, or come with --resume"):
        cli.main(["--preset", preset, "--output", str(out)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "nothing"], "--config must be smoke or .* or a YAML file that exists; got 'nothing'"),
        (["-p", "stepz", "3"], r"no such option: --stepz=3 \(did you mean 'steps'\?\)"),
        (["--stepz", "3"], r"no such option: --stepz \(did you mean 'steps'\?\)"),
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--model", "[1]"], r"argument --model: must be a YAML mapping; got '\[1\]'"),
        (["-p", "steps", "0"], "steps must be an integer >= 1; got 0"),
        (["--lr=-1e-3"], "lr must be a number >= 0; got -0.001"),
        (["-p", "source", "web"], "source must be one of 'sympy', .*; got 'web'"),
        (["-p", "size", "7b"], "size must be one of '60m', .*; got '7b'"),
        (["-p", "model", "{rank: 0}"], "rank must be an integer between 1 and 96; got 0"),
        (["-p", "seq_len", "4096"], "seq_len must be an integer between 1 and 1024; got 4096"),
        (["-p", "vocab_size", "10"], "vocab_size must be an integer between 257 and 65536; got 10"),
        (["--resume"], "--output must be a folder of an earlier run"),
    ],
)
def test_a_bad_configuration_is_one_error_before_anything_is_read(words, message, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "pretrain", None)
    with pytest.raises(ValueError, match=message):
        cli.main([*words, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stepz: 3", r"--config has no option 'stepz' \(did you mean 'steps'\?\)"),
        ("steps: many", "argument --steps: invalid int value: 'many'"),
        ("steps: 1.5", "steps must be an integer >= 1; got 1.5"),
        ("[1]", "--config must be a YAML mapping of options; got"),
        ("a: [", "--config must be valid YAML; .* is not"),
    ],
)
def test_a_bad_file_is_one_error(content, message, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        cli.parse(["--config", str(path)])


def test_a_file_an_option_and_null_fill_the_fields(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("lr: 1e-3\nsteps: 70\nmodel: {rank: 4}\n")
    config, arguments = cli.parse(["--config", str(path), "--steps", "90", "--max_bytes", "null"])
    assert (config.lr, config.steps, config.model, config.max_bytes) == (0.001, 90, {"rank": 4}, None)
    assert (arguments.output, arguments.resume) == (None, False)
    assert cli.parse(["--model", "{rank: 8}", "--resume"])[0].model == {"rank": 8}
    assert cli.parse([])[0] == PretrainConfig(**cli.PRESETS["smoke"])


def test_from_the_shell_a_bad_configuration_is_one_line_and_exit_code_2(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "labkit", "train", "elas", "-p", "arm", "elas", "--output", str(tmp_path)],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "arm must be one of 'dense_swiglu'" in run.stderr


def test_killed_and_resumed_from_the_shell_the_curve_is_the_same(preset, tmp_path):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    words = [sys.executable, "-m", "labkit", "train", "elas", "--preset", preset, "-p", "steps", "60"]
    with subprocess.Popen(
        [*words, "--output", str(cut)], env=environment(), stderr=subprocess.DEVNULL
    ) as run:
        until = time.time() + 120
        while not (cut / "checkpoint-4" / "trainer_state.json").exists() and time.time() < until:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert not (cut / "trace.npz").exists()
    options = ["--config", preset, "--steps", "60", "--output"]
    assert cli.main([*options, str(cut), "--resume"]) == 0
    assert cli.main([*options, str(whole)]) == 0
    a, b = TrainTrace.load(cut / "trace.npz"), TrainTrace.load(whole / "trace.npz")
    for name in b.series:
        assert np.array_equal(a.series[name], b.series[name], equal_nan=True), name


def test_two_processes_give_the_loss_of_one(preset, tmp_path):
    """torchrun, gloo, CPU: twice two rows are the same four; Loro moves both copies alike."""
    words = ["-m", "labkit", "train", "elas", "--preset", preset, "-p", "save_every", "0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [*torchrun, *words, "-p", "batch_size", "2", "--output", str(tmp_path / "two")],
        check=True, env=environment(ACCELERATE_USE_CPU="true"), capture_output=True, timeout=400,
    )  # fmt: skip
    overrides = json.loads((tmp_path / "two" / "pretrain.json").read_text())
    config = PretrainConfig(**overrides | {"batch_size": 4})
    assert dataclasses.asdict(config)["save_every"] == 0
    assert cli.main(["--config", preset, "--save_every", "0", "--output", str(tmp_path / "one")]) == 0
    two, one = (TrainTrace.load(tmp_path / name / "trace.npz") for name in ("two", "one"))
    for name in ("loss", "eval_nats", "learning_rate"):
        np.testing.assert_allclose(two.curve(name)[1], one.curve(name)[1], rtol=2e-5, err_msg=name)
    assert one.curve("mask_on")[1].tolist() == two.curve("mask_on")[1].tolist() == [0, 1, 1]
