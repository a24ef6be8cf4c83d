"""Saved ELAS folders in transformers' hands: opened by path, with tokenizer and the right end of text."""

import json
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from labkit.__main__ import main
from labkit.causal_lm import lora_config
from labkit.elas import ElasConfig, ElasForCausalLM, PretrainConfig, load_checkpoint, load_text, pretrain
from labkit.elas.checkpoints import save_model
from labkit.elas.data import END
from labkit.fgo.policy import load_policy
from labkit.paths import CHECKPOINTS, ROOT

SHIPPED = CHECKPOINTS / "elas-3m"
TEXT = 'def f(x):\n    """Say "yes", ünder."""\n\treturn [x, -1] , !'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model/ as pretrain leaves it."""
    out = tmp_path_factory.mktemp("run")
    model = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "rank": 8}
    config = PretrainConfig(
        model=model | {"intermediate_size": 64}, vocab_size=300, max_bytes=100_000, seq_len=32,
        batch_size=4, steps=2, eval_tokens=256,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(out))
        pretrain(config, output_dir=out, progress=False)
        text = load_text(vocab_size=300, max_bytes=100_000)
    text.tokenizer.save(str(out / "text.json"))
    return out / "model"


@pytest.mark.parametrize("first", ["labkit.elas", "transformers"])
def test_after_the_import_a_folder_opens_in_either_order(first):
    """And the import alone reads neither torch nor transformers."""
    code = [
        "import sys, labkit.elas; assert {'torch', 'transformers'}.isdisjoint(sys.modules)",
        "from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM",
        f"print(type(AutoConfig.from_pretrained({str(SHIPPED)!r})).__name__)",
        f"print(type(AutoModelForCausalLM.from_pretrained({str(SHIPPED)!r})).__name__)",
    ]
    if first == "transformers":
        code[:2] = [code[1], "import labkit.elas"]
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["ElasConfig", "ElasForCausalLM"]


def test_what_pretrain_saves_opens_by_path(folder):
    assert isinstance(AutoConfig.from_pretrained(folder), ElasConfig)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, ElasForCausalLM)
    own = Tokenizer.from_file(str(folder.parent / "text.json"))
    assert tokenizer(TEXT).input_ids == own.encode(TEXT).ids
    assert tokenizer.decode(own.encode(TEXT).ids) == TEXT
    assert pipeline("text-generation", model=str(folder))("def ", max_new_tokens=3)[0]["generated_text"]


COMMON = {
    "use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True, "save_steps": 1,
    "model_init_kwargs": {"dtype": "float32"},
}  # fmt: skip


def _left(model) -> int:
    return int(model.activations()[0].dense_steps_left)


def test_sft_trains_a_folder_by_path_counts_its_steps_and_goes_on_in_the_warm_up(folder, tmp_path):
    rows = Dataset.from_list([{"text": TEXT}] * 8)

    def trainer(steps: int) -> SFTTrainer:
        more = {"per_device_train_batch_size": 2, "max_length": 32, "max_steps": steps}
        return SFTTrainer(str(folder), SFTConfig(str(tmp_path), **COMMON, **more), train_dataset=rows)

    first = trainer(2)
    before = _left(first.model)
    first.train()
    assert _left(first.model) == before - 2 > 0
    resumed = trainer(3)
    resumed.train(resume_from_checkpoint=True)
    assert _left(resumed.model) == before - 3
    assert _left(AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-3")) == before - 3


def test_grpo_trains_a_folder_by_path_and_leaves_its_reference_alone(folder, tmp_path):
    more = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4}
    trainer = GRPOTrainer(
        str(folder),
        lambda completions, **_: [float(len(text)) for text in completions],
        args=GRPOConfig(str(tmp_path), **COMMON, **more, max_steps=2, beta=0.1),
        train_dataset=Dataset.from_list([{"prompt": "def f("}] * 4),
    )
    before = _left(trainer.model)
    trainer.train()
    assert (_left(trainer.model), _left(trainer.ref_model)) == (before - 2, before)


def test_lm_eval_judges_a_folder_by_its_own_hf_loader(folder, tmp_path, monkeypatch):
    """Two continuations of a line; which of them is likelier, a forward pass of our own says."""
    tasks = pytest.importorskip("lm_eval.tasks", reason="pip install labkit[eval]")
    own = partial(tasks.TaskManager, include_defaults=False)  # not its 14,000 files
    monkeypatch.setattr(tasks, "TaskManager", own)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    question, choices = "def f(x):", [" return", " import"]
    scores = []
    for choice in choices:
        ids, first = tokenizer(question + choice).input_ids, len(tokenizer(question).input_ids)
        chances = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(chances[i - 1, ids[i]].item() for i in range(first, len(ids))))
    row = {"question": question, "choices": choices, "label": scores.index(max(scores))}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    about = {
        "task": "own", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
        "dataset_kwargs": {
            "data_files": {"test": str(tmp_path / "rows.jsonl")}, "cache_dir": str(tmp_path),
        },
        "target_delimiter": "", "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(json.dumps(about))
    words = f"lm-eval --model hf --device cpu --model_args pretrained={folder},dtype=float32 --tasks own "
    words += f"--include_path {tmp_path} --output_path {tmp_path / 'out'} --log_samples"
    assert main(words.split()) == 0
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())["results"]["own"]
    assert results["acc,none"] == 1
    sample = json.loads(next((tmp_path / "out").rglob("samples_*.jsonl")).read_text())
    found = [float(answer[0]) for answer in sample["filtered_resps"]]
    assert found == pytest.approx(scores, rel=1e-4)


def test_fgo_takes_an_elas_folder_as_its_policy(folder):
    model, tokenizer = load_policy(str(folder))
    assert isinstance(model, ElasForCausalLM)
    assert tokenizer.pad_token == END
    model = get_peft_model(model, lora_config(4, None, ["up_proj.weight_in", "lm_head"]))
    trained = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"base_model.model.model.layers.0.mlp.up_proj", "base_model.model.lm_head"}


@pytest.mark.parametrize("which", ["saved", "shipped"])
def test_generation_begins_ends_and_pads_with_the_end_of_text(folder, which):
    path = folder if which == "saved" else SHIPPED
    end = Tokenizer.from_file(str(path / "tokenizer.json")).token_to_id(END)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    for told in (tokenizer, model.generation_config):
        assert (told.bos_token_id, told.eos_token_id, told.pad_token_id) == (end, end, end)
    written = json.loads((path / "config.json").read_text())
    assert (written["bos_token_id"], written["eos_token_id"]) == (end, end)
    assert model.model.embed_tokens.padding_idx is None  # END's embedding is trained


def _always(model: ElasForCausalLM, token: int) -> None:
    """Make ``token`` the likeliest after any text: its logit is 9, all others are 0."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.register_forward_hook(lambda _m, _x, y: y.index_fill(-1, torch.tensor([token]), 9.0))


def test_generation_goes_on_after_a_quote_and_stops_at_the_end_of_text():
    for text, length in (('"', 5), (END, 1)):
        model, tokenizer = load_checkpoint("lab/elas-3m")
        _always(model, tokenizer.token_to_id(text))
        prompt = torch.tensor([tokenizer.encode("x = ").ids])
        new = model.generate(prompt, max_new_tokens=5, do_sample=False)[0, prompt.shape[1] :]
        assert tokenizer.decode(new.tolist(), skip_special_tokens=False) == text * length


def test_a_model_with_other_ids_is_saved_with_the_tokenizers(tmp_path, folder):
    own = Tokenizer.from_file(str(folder.parent / "text.json"))
    model = ElasForCausalLM(ElasConfig.from_name("tiny", vocab_size=300, bos_token_id=1, eos_token_id=2))
    save_model(tmp_path, model, own)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.generation_config.eos_token_id == loaded.config.eos_token_id == own.token_to_id(END)


def test_the_example_of_the_readme_ends_by_itself(monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    block = next(block for block in blocks if "AutoModelForCausalLM" in block)
    assert len([line for line in block.splitlines() if line]) == 6
    monkeypatch.chdir(ROOT)
    exec(block, {})
    assert capsys.readouterr().out.endswith(f"'Matrix'\n]\n{END}\n")
