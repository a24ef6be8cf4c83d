"""labkit train fgo for people who do RL: hub names, columns, own rewards, LoRA, presets, errors."""

import json
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from test_export import state_of
from test_fgo_cli import command

from labkit.__main__ import main
from labkit.fgo import rewards
from labkit.fgo.cli import _parse, presets
from labkit.fgo.lab.reasoner import build_char_model
from labkit.fgo.policy import load_policy
from labkit.fgo.tasks import char_tokenizer, verbose_sums
from labkit.paths import PACKAGE
from labkit.rows import as_prompts
from labkit.traces import TrainTrace

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
HALF = '{"dtype": "bfloat16"}'
GSM8K = {"question": "How many clips?", "answer": "24 and 48 are <<24+48=72>>72.\n#### 72", "level": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2")
    build_char_model(hidden=16, layers=1, heads=2).save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{key: row[key] for key in ("prompt", "answer")} for row in verbose_sums(16)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def refused(words, capsys):
    """The one line that is said, beside what transformers shows while it loads a model."""
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if "labkit train:" in line]
    assert told.endswith(line + "\n")
    return line


# Data


def test_columns_are_named(tmp_path):
    path = tmp_path / "gsm.jsonl"
    path.write_text(json.dumps(GSM8K))
    (row,), suits = rewards.load_rows(str(path), prompt="question")
    assert (row["prompt"], row["answer"], suits) == (GSM8K["question"], GSM8K["answer"], "answer")
    assert rewards.answer_reward(["so \\boxed{72}"], [row["answer"]]) == [1.0]
    with pytest.raises(
        ValueError, match=r"columns problem and answer; row 1 .* lacks problem \(has answer"
    ):
        rewards.load_rows(str(path), prompt="problem")


def test_a_name_on_the_hub_is_asked_of_the_hub(tmp_path, monkeypatch):
    from datasets import Dataset

    asked = []

    def load_dataset(*words, **more):
        asked.append((words, more))
        return Dataset.from_list([GSM8K])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    columns = {"prompt": "question", "config": "main", "split": "test"}
    rows, _ = rewards.load_rows("openai/gsm8k", **columns)
    assert asked == [(("openai/gsm8k", "main"), {"split": "test"})]
    assert rows[0]["prompt"] == GSM8K["question"]
    for name in (
        "gone/sums.jsonl",
        "gone.parquet",
        "lab/sums",
    ):  # files that are not there, a wrong lab name
        with pytest.raises(ValueError, match="dataset must be a"):
            rewards.load_rows(name)
    assert len(asked) == 1


def test_a_hub_that_is_out_of_reach_is_one_line(model, tmp_path, capsys):
    told = refused(command(model, "nobody/nothing-here", tmp_path / "o"), capsys)
    assert "dataset must be on the hub or a file; nobody/nothing-here (config None, split train)" in told


def test_questions_are_asked_with_an_instruction_and_as_messages():
    rows = [{"prompt": "1+1", "answer": "2"}]
    assert as_prompts(rows) == rows
    (row,) = as_prompts(rows, instruction="Think.", chat=True)
    assert row == {"prompt": [{"role": "user", "content": "1+1\nThink."}], "answer": "2"}
    with pytest.raises(ValueError, match="--instruction and --chat must be left out"):
        as_prompts([row], chat=True)


# Rewards


def test_rewards_of_ones_own_stand_beside_the_named_ones(model, dataset, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "def short(completions, **columns):\n    return [1.0 / (1 + len(text)) for text in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    more = ("--reward", "sums", "mine:short", "-p", "correct", "sum_reward", "-p", "alpha", "0.5")
    assert main(command(model, dataset, tmp_path / "o", *more, steps=1)) == 0
    trace = TrainTrace.load(tmp_path / "o" / "train_trace.npz")
    assert {"rewards/short/mean", "rewards/sum_reward/mean"} <= trace.series.keys()
    assert trace.meta["reward"] == "sums mine:short"
    assert (trace.curve("fgo/accuracy")[1] == 0).all()  # short answers are above 0, and none is right
    sys.modules.pop("mine")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("summs", "summs: no such name"), ("json:nothing", "has no attribute"),
     ("no_module:f", "No module named"), ("json:__name__", "__name__ is no function")],
)  # fmt: skip
def test_a_reward_that_is_none_is_one_line(name, reason, model, dataset, tmp_path, capsys):
    told = refused(command(model, dataset, tmp_path / "o", "--reward", name), capsys)
    assert "--reward must be one of answer, math, gym, sums, or module:function" in told
    assert reason in told


# LoRA


@pytest.mark.slow
def test_an_adapter_is_trained_resumed_and_read_back(model, dataset, tmp_path, capsys):
    pytest.importorskip("peft")
    lora = ("--lora_r", "2", "-p", "beta", "0.1")
    assert main(command(model, dataset, tmp_path / "whole", *lora, steps=4)) == 0
    cut = tmp_path / "cut"
    assert main(command(model, dataset, cut, *lora, steps=2)) == 0
    assert not (cut / "model.safetensors").exists()  # the adapter alone
    assert main(command(model, dataset, cut, *lora, "--resume", steps=4)) == 0
    base, tokenizer = load_policy(str(model))
    ids = tokenizer("Q1+2=", return_tensors="pt")["input_ids"]
    found = [
        load_policy(str(folder))[0].eval() for folder in (tmp_path / "whole", cut, cut / "checkpoint-4")
    ]
    with torch.no_grad():
        before, *logits = (one(input_ids=ids).logits for one in (base, *found))
    assert not torch.equal(before, logits[0])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logits[1], logits[2], atol=0, rtol=0)
    capsys.readouterr()
    assert main(command(model, dataset, cut, *lora, "--resume", steps=4)) == 0
    assert "already finished at step 4" in capsys.readouterr().out
    assert not (cut / "model.safetensors").exists()


def test_without_peft_one_line_says_how_to_get_it(model, dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    told = refused(command(model, dataset, tmp_path / "o", "--lora_r", "2"), capsys)
    assert "--lora_r needs peft, which is not installed: pip install 'labkit[lora]'" in told
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    told = refused(command(tmp_path / "adapter", dataset, tmp_path / "o"), capsys)
    assert "needs peft" in told


def test_an_adapter_without_weights_or_base_is_one_line(dataset, tmp_path, capsys):
    pytest.importorskip("peft")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    told = refused(command(tmp_path, dataset, tmp_path / "o"), capsys)
    assert "--model must be an adapter with adapter_model.safetensors" in told


# Presets


@pytest.mark.parametrize("name", sorted(presets()))
def test_the_papers_presets_are_whole_and_say_where_each_value_is_from(name):
    arguments, config = _parse(["--config", name, "--bf16", "false", "--use_cpu", "true"])
    path = PACKAGE / "fgo" / "presets" / f"{name}.yaml"
    given = yaml.safe_load(path.read_text())
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "method", "use_cpu")):
            assert any(
                word in line for word in ("# paper", "# recipe", "# not stated", "# the data", "# as")
            ), line
    assert (config.alpha, config.beta_entropy, config.num_generations) == (0.01, 1.0, 8)
    assert (config.beta, config.scale, config.entropy) == (0.0, "none", "sampled_sum")
    assert (config.max_completion_length, config.temperature) == (2048, 0.9)
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
    assert config.generation_batch_size == batch
    assert batch // config.num_generations * config.max_steps == 3200  # questions
    assert config.learning_rate == (1e-6 if "r1" in name else 1e-5)
    assert arguments.reward == ["math"]
    assert arguments.instruction.endswith("\\boxed{}.")
    assert given["model"] == arguments.model


# One line for whatever is wrong


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("report_to", "nobody", "nobody is not supported"),
        ("report_to", "tensorboard", "tensorboard"),
        ("report_to", "wandb", "wandb"),
        ("use_liger_kernel", "true", "iger"),
        ("eval_strategy", "steps", "eval_dataset"),
        ("loss_type", "nothing", "nothing"),
        ("num_generations", "1", "generations"),
        ("num_generations", "7", "7"),
        ("deepspeed", "gone.json", ""),
        ("correct", "nobody", "correct must be one of 'sum_reward'"),
        ("model_init_kwargs", '{"dtype": "float33"}', "--model must be a causal LM"),
        ("model_init_kwargs", "[1]", "--model_init_kwargs must be a mapping, as JSON; got '[1]'"),
        ("model_init_kwargs", "{dtype: 1}", "a mapping must be JSON (Expecting property name"),
        ("lora_r", "-1", "--lora_r must be an integer >= 0"),
        ("lora_alpha", "0", "--lora_alpha must be an integer >= 1; got 0"),
        ("eval_dataset", "gone.jsonl", "--eval_strategy must be steps or epoch"),
        ("steps_per_generation", "0", "steps_per_generation must be an integer >= 1; got 0"),
        ("num_iterations", "0", "num_iterations must be an integer >= 1; got 0"),
    ],
)
def test_a_run_that_cannot_begin_is_one_line(option, value, expected, model, dataset, tmp_path, capsys):
    if option == "report_to" and find_spec(value):
        pytest.skip(f"{value} is installed")
    told = refused(command(model, dataset, tmp_path / "o", "-p", option, value), capsys)
    assert expected in told


def test_a_lab_model_takes_no_loading_options(dataset, tmp_path, capsys):
    words = command("lab/sums-small", dataset, tmp_path / "o", "-p", "model_init_kwargs", HALF)
    assert "--model_init_kwargs must be left out for lab/sums-small" in refused(words, capsys)


def test_the_way_a_model_is_loaded_is_ones_own(model, dataset, tmp_path):
    assert main(command(model, dataset, tmp_path, "-p", "model_init_kwargs", HALF, steps=1)) == 0
    assert load_policy(str(tmp_path), dtype="auto")[0].dtype == torch.bfloat16


# What is left behind


def test_held_out_figures_are_in_the_trace_and_the_last_line_opens_it(model, dataset, tmp_path, capsys):
    more = ("--eval_dataset", dataset, "--eval_strategy", "steps", "-p", "eval_steps", "2")
    evaluation = ("-p", "per_device_eval_batch_size", "16")
    assert main(command(model, dataset, tmp_path, *more, *evaluation, steps=2)) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    trace = TrainTrace.load(tmp_path / "train_trace.npz")
    assert trace.curve("eval_fgo/length")[0].tolist() == [2]
    assert last.startswith("its curves and completions: labkit show ")
    assert main(last.partition("labkit ")[2].split()) == 0
    (written,) = state_of((tmp_path / "train_trace.html").read_text())["archive"]
    assert trace.samples[-1]["prompt"] in [row["prompt"] for row in written["2"]["rows"]]
