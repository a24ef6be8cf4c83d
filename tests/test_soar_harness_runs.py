"""Whole runs of lm_eval, offline, on a tiny LLaDA checkpoint: local tasks, the results file read back."""

import json
import re
import subprocess
import sys
import tomllib
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from test_soar_generate import CONFIG, TEMPLATE, with_tokenizer
from test_soar_models import llada_tensors, write

from labkit.__main__ import main
from labkit.paths import ROOT

tasks = pytest.importorskip("lm_eval.tasks", reason="pip install labkit[eval]")

GSM8K = Path(tasks.__file__).parent / "gsm8k" / "gsm8k.yaml"
RECIPES = [line for line in (ROOT / "docs/evaluation.md").read_text().splitlines()
           if line.startswith("labkit lm-eval ")]  # fmt: skip
GENERATION = {
    "output_type": "generate_until", "doc_to_text": "w1 {{question}}", "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["w9"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "test_split": "test", "fewshot_split": "train",
}  # fmt: skip
CHOICE = {
    "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_target": "{{label}}",
    "doc_to_choice": "{{choices}}", "test_split": "test",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """LLaDA's layout, 1,024 positions, a chat template."""
    made = write(
        tmp_path_factory.mktemp("m") / "llada", CONFIG | {"max_sequence_length": 1024}, llada_tensors()
    )
    return with_tokenizer(made, chat_template=TEMPLATE)


@pytest.fixture(autouse=True)
def _local_tasks_alone(monkeypatch):
    """lm_eval reads its own 14,000 task files before each run: seconds that say nothing here."""
    monkeypatch.setattr(tasks, "TaskManager", partial(tasks.TaskManager, include_defaults=False))


def task(where, name, about, rows, examples=2):
    """A task of its own over local JSON lines, the first ``examples`` of them for few-shot prompts."""
    for split, some in (("train", rows[:examples]), ("test", rows[examples:])):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (where / f"{name}_{split}.jsonl").write_text(lines)
    files = {split: str(where / f"{name}_{split}.jsonl") for split in ("train", "test")}
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(where / "cache")},
    }
    (where / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | about | data))


def run(where, folder, name, *words, model_args=""):
    """(results, samples) of ``labkit lm-eval`` on one task."""
    given = f"pretrained={folder},gen_length=8,block_length=4{model_args}"
    common = ["--include_path", str(where), "--output_path", str(where / "out"), "--log_samples"]
    assert main(["lm-eval", "--tasks", name, "--model_args", given, *common, *words]) == 0
    return read_back(where / "out")


def read_back(out):
    results = json.loads(max(out.rglob("results_*.json")).read_text())
    samples = [json.loads(line) for line in max(out.rglob("samples_*.jsonl")).read_text().splitlines()]
    return results, sorted(samples, key=lambda sample: sample["doc_id"])


QUESTIONS = [{"question": f"w{n} w{n + 1}", "answer": f"w{n}"} for n in range(1, 9)]


def test_a_generation_task_and_its_cache(folder, tmp_path, capsys):
    task(tmp_path, "writes", GENERATION, QUESTIONS)
    words = ["--batch_size", "auto", "--use_cache", str(tmp_path / "kept"), "--num_fewshot", "1"]
    results, samples = run(tmp_path, folder, "writes", *words, model_args=",strategy=pbs")
    config = results["config"]
    assert config["forward_calls"] > 0
    assert config["forward_rows"] >= config["forward_calls"]
    assert config["seconds"] > 0
    assert config["batch_sizes"] == [8]
    assert config["decode"]["strategy"] == "pbs"
    assert results["n-samples"]["writes"]["effective"] == len(samples) == 6
    assert 0 <= results["results"]["writes"]["exact_match,none"] <= 1
    texts = [sample["resps"][0][0] for sample in samples]
    assert any(texts)
    assert all("w9" not in text and len(text.split()) <= 6 for text in texts)
    assert samples[0]["arguments"]["gen_args_0"]["arg_0"].split()[-3:] == ["w1", "w3", "w4"]
    again, same = run(tmp_path, folder, "writes", *words, model_args=",strategy=pbs")
    assert [sample["resps"] for sample in same] == [sample["resps"] for sample in samples]
    assert again["config"]["forward_calls"] == 0  # all answers were kept
    told = capsys.readouterr()
    assert "labkit: generation" in told.err
    header = r"\| *Tasks *\|Version\|Filter\|n-shot\| *Metric *\| *\| *Value *\| *\|Stderr\|"
    assert len(re.findall(header, told.out)) == 2  # old pytablewriters name the columns A, B, C, ...


def test_a_multiple_choice_task_tells_its_errors(folder, tmp_path):
    rows = [
        {"question": f"w{n}", "choices": ["w3", "w4 w5", "w6 w7 w8 w9 w1 w2"], "label": n % 3}
        for n in range(6)
    ]
    task(tmp_path, "picks", CHOICE, rows)
    results, samples = run(tmp_path, folder, "picks", "--batch_size", "4", model_args=",mc_num=16")
    told = results["config"]["loglikelihood"]
    assert (told["answers"], told["exact"]) == (12, 8)  # six tokens have 63 masks, more than 16
    assert 0 < told["mean_stderr"] < told["max_stderr"]
    best = [max(range(3), key=lambda n: float(sample["filtered_resps"][n][0])) for sample in samples]
    right = [guess == sample["doc"]["label"] for guess, sample in zip(best, samples, strict=True)]
    assert results["results"]["picks"]["acc,none"] == sum(right) / len(right)
    other, _ = run(tmp_path, folder, "picks", "--batch_size", "1", model_args=",mc_num=16")
    assert other["config"]["loglikelihood"] == pytest.approx(told, rel=1e-3)


def test_a_chat_task_is_asked_turn_by_turn(folder, tmp_path):
    task(tmp_path, "talks", GENERATION, QUESTIONS)
    words = ["--apply_chat_template", "--system_instruction", "w7", "--num_fewshot", "2"]
    results, samples = run(tmp_path, folder, "talks", *words)
    turns = re.findall(r"<\|start\|> (.*?) <\|eot_id\|>", samples[0]["arguments"]["gen_args_0"]["arg_0"])
    assert turns[0] == "w7"
    assert sorted(turns[1:5]) == ["w1", "w1 w1 w2", "w1 w2 w3", "w2"]  # two questions, two answers
    assert turns[5:] == ["w1 w3 w4"]
    assert samples[0]["arguments"]["gen_args_0"]["arg_0"].endswith("<|start|>")
    assert results["chat_template"] == TEMPLATE
    assert results["fewshot_as_multiturn"] is True


def test_the_gsm8k_recipe(folder, tmp_path):
    """The documented command over rows in GSM8K's shape, lm_eval's own task: 5 examples, 256 tokens."""
    rows = [{"question": f"Ann has {n} apples and buys {n + 2}. How many has she?",
             "answer": f"She has {n}+{n + 2}=<<{n}+{n + 2}={2 * n + 2}>>{2 * n + 2}.\n#### {2 * n + 2}"}
            for n in range(3, 12)]  # fmt: skip
    about = {"include": str(GSM8K), "dataset_name": None}
    task(tmp_path, "apples", about, rows, examples=5)
    recipe = next(line for line in RECIPES if "--tasks gsm8k --num_fewshot 5" in line)
    assert "strategy=soar,beam=2,threshold=0.95,score=sum" in recipe
    recipe = recipe.replace("gsm8k", "apples").replace("runs/eval/apples", str(tmp_path / "out"))
    recipe = re.sub("pretrained=[^,]*", f"pretrained={folder}", recipe)
    words = [*recipe.split()[1:], "--include_path", str(tmp_path), "--log_samples", "--limit", "2"]
    assert main(words) == 0
    results, samples = read_back(tmp_path / "out")
    assert {"exact_match,strict-match", "exact_match,flexible-extract"} <= results["results"][
        "apples"
    ].keys()
    assert results["config"]["decode"]["gen_length"] == 256
    prompt = samples[0]["arguments"]["gen_args_0"]["arg_0"]
    assert prompt.count("Question:") == 6
    assert prompt.endswith("Answer:")
    assert {sample["doc_id"] for sample in samples} == {0, 1}


@pytest.mark.parametrize("line", RECIPES, ids=lambda line: line.split()[3])
def test_every_documented_command_has_arguments_that_exist(line):
    from labkit.soar.harness_options import ModelArgs

    given = dict(part.split("=", 1) for part in line.rpartition("--model_args ")[2].split()[0].split(","))
    assert given.pop("pretrained").count("/") == 1
    values = {name: yaml.safe_load(value) for name, value in given.items()}
    assert ModelArgs.of(values).settings["decode"]["strategy"] in ("soar", "greedy")
    assert [word for word in line.split() if word.startswith("--")]


def test_mistakes_are_one_line(folder, tmp_path, capsys, monkeypatch):
    task(tmp_path, "writes", GENERATION, QUESTIONS)
    words = ["--tasks", "writes", "--include_path", str(tmp_path), "--model_args"]
    assert main(["lm-eval", *words, f"pretrained={folder},beem=3"]) == 2
    assert "labkit lm-eval: model_args must be among pretrained," in capsys.readouterr().err
    assert main(["lm-eval", "--tasks", "nothing", "--model_args", f"pretrained={folder}"]) == 2
    assert "labkit lm-eval: Tasks not found: nothing" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("labkit.soar.cli.find_spec", lambda _: None)
    assert main(["lm-eval", "--tasks", "writes"]) == 2
    assert "labkit lm-eval: lm_eval must be installed: pip install labkit[eval]" in capsys.readouterr().err


LOCAL_MODULE = """
import runpy
from functools import partial
from lm_eval import tasks
tasks.TaskManager = partial(tasks.TaskManager, include_defaults=False)
runpy.run_module("labkit.soar.harness", run_name="__main__")
"""


def test_the_module_is_the_same_command_and_knows_lm_evals_own(folder, tmp_path):
    """As ``python -m labkit.soar.harness``, but with the local tasks alone."""
    task(tmp_path, "writes", GENERATION, QUESTIONS)
    words = ["run", "--tasks", "writes", "--include_path", str(tmp_path), "--limit", "1", "--model_args"]
    given = f"pretrained={folder},gen_length=4,block_length=4"
    command = [sys.executable, "-c", LOCAL_MODULE, *words, given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\|writes\s*\|.*exact_match", done.stdout)


def test_lm_eval_finds_the_model_by_the_entry_point():
    """What the lm_eval behind 0.4.13 reads."""
    from lm_eval.api.model import TemplateLM

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    point = EntryPoint("labkit", declared["lm_eval.models"]["labkit"], "lm_eval.models")
    assert issubclass(point.load(), TemplateLM)
