"""labkit train dlm: tiny causal LMs become diffusion LMs that load, decode and resume."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from test_export import shown as curves_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from two_processes import two_processes

from labkit.__main__ import main
from labkit.soar import generate, load_model
from labkit.soar.adapt import Adaptation, Rows, add_mask, who_sees_whom
from labkit.soar.models.adapted import save_adapted
from labkit.traces import TrainTrace

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(7, 12)]
VOCABULARY = ["<eos>", *"0123456789+="]
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
}


def char_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(VOCABULARY)}, unk_token="<eos>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def causal_lm(kind, tied=True):
    config, build, more = KINDS[kind]
    torch.manual_seed(0)
    return build(config(
        vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
        eos_token_id=0, bos_token_id=None, **more,
    ))  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with one causal LM of each kind and the rows."""
    folder = tmp_path_factory.mktemp("causal")
    for kind in KINDS:
        causal_lm(kind).save_pretrained(folder / kind)
        char_tokenizer().save_pretrained(folder / kind)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return folder


def words(made, output, *more, kind="llama", steps=6):
    given = {
        "model": made / kind, "dataset": made / "rows.jsonl", "output_dir": output, "max_steps": steps,
        "per_device_train_batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 2, "logging_steps": 1,
        "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    pairs = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    return ["train", "dlm", *pairs, *map(str, more)]


def losses(output):
    return TrainTrace.load(output / "train_trace.npz").curve("loss")[1]


def test_twenty_examples_are_learnt_and_decoded(made, tmp_path, capsys):
    more = ("--per_device_train_batch_size", 20, "--logging_steps", 50)
    tmp_path /= "d 1"
    assert main(words(made, tmp_path, *more, steps=800)) == 0
    assert f"labkit decode --model '{tmp_path / 'model'}'" in capsys.readouterr().out
    model = load_model(tmp_path / "model")
    assert model.shift
    for strategy in ("greedy", "soar"):
        found = [generate(model, row["prompt"], strategy, gen_length=3).text for row in ROWS]
        assert found == [row["answer"] for row in ROWS]
    assert main(["decode", "--model", str(tmp_path / "model"), "--gen-length", "3",
                 "--output", str(tmp_path / "trace.npz"), "3+11="]) == 0  # fmt: skip
    assert "\n14\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", ("--shift", "false")),
        ("qwen2", ("--block_causal", "4")),
        ("qwen3", ("--lora_r", "2")),
        ("qwen3", ("--lora_r", "2", "--block_causal", "3")),
    ],
)
def test_the_saved_folder_computes_what_was_trained(kind, more, made, tmp_path, monkeypatch):
    """load_model's logits equal those of the trained network under a mask made here by hand."""
    if "--lora_r" in more:
        pytest.importorskip("peft", reason="extra lora")
    kept = []
    train = "labkit.soar.adapt.DiffusionTrainer.train"
    monkeypatch.setattr(train, _keeping(kept))
    assert main(words(made, tmp_path, *more, kind=kind)) == 0
    trainer = kept[0]
    model = load_model(tmp_path / "model")
    tokens = torch.tensor([[3, 11, 5, 12, model.mask_id, model.mask_id, model.mask_id]])
    block = dict(zip(more[::2], more[1::2], strict=True)).get("--block_causal")
    seen = [[block is None or k // int(block) <= q // int(block) for k in range(7)] for q in range(7)]
    with torch.no_grad():
        wanted = trainer.model.eval()(
            input_ids=tokens, attention_mask=torch.tensor(seen)[None, None]
        ).logits
        found = model(tokens)
    if "--shift" not in more:
        wanted = torch.cat([wanted[:, :1], wanted[:, :-1]], 1)
    torch.testing.assert_close(found[:, 1:], wanted[:, 1:], rtol=1e-4, atol=1e-5)
    assert (tmp_path / "adapter").exists() == ("--lora_r" in more)


def _keeping(kept):
    from transformers import Trainer

    def train(self, *args, **given):
        kept.append(self)
        return Trainer.train(self, *args, **given)

    return train


def test_prompts_are_shown_and_answers_masked(made, tmp_path, monkeypatch):
    shown, forward = [], LlamaForCausalLM.forward

    def watched(self, input_ids, **given):
        shown.append(input_ids)
        return forward(self, input_ids=input_ids, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    assert main(words(made, tmp_path, steps=3)) == 0
    assert curves_of(tmp_path)[0]["training loss (nats per token)"] == [1, 2, 3]
    tokenizer, prompts = char_tokenizer(), {row["prompt"] for row in ROWS}
    assert len(shown) == 3
    rows = [row for batch in shown for row in batch.tolist()]
    for row in rows:  # three slots: two digits and the end of text, which also fills up in front
        assert tokenizer.decode([token for token in row[:-3] if token]) in prompts
    assert any(len(VOCABULARY) in row[-3:] for row in rows)


def test_the_blocks_of_the_training_are_kept(tmp_path):
    net, tokenizer = causal_lm("llama"), char_tokenizer()
    about = {"mask_id": add_mask(net, tokenizer), "shift": True}
    save_adapted(net, tokenizer, tmp_path / "none", **about, block_causal=None)
    save_adapted(net, tokenizer, tmp_path / "four", **about, block_causal=4)
    found = {
        (name, given): load_model(tmp_path / name, block_causal=given).block_causal
        for name, given in (("none", None), ("none", 4), ("four", None), ("four", 4))
    }
    assert found == {("none", None): None, ("none", 4): 4, ("four", None): 4, ("four", 4): 4}
    with pytest.raises(ValueError, match="None or 4, the diffusion.block_causal in config.json; got 8"):
        load_model(tmp_path / "four", block_causal=8)


def test_padding_in_front_changes_nothing():
    net = causal_lm("llama").eval()
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    padded = torch.tensor([[0, 0, 1, 2, 3, 4, 5]])
    for block in (None, 2):
        with torch.no_grad():
            alone = net(input_ids=tokens, **who_sees_whom(5, torch.tensor([0]), block)).logits
            found = net(input_ids=padded, **who_sees_whom(7, torch.tensor([2]), block)).logits
        torch.testing.assert_close(found[:, 2:], alone, rtol=1e-4, atol=1e-5)


def test_a_new_mask_token_begins_as_the_mean_embedding():
    net, tokenizer = causal_lm("llama", tied=False), char_tokenizer()
    before = net.get_input_embeddings().weight.detach().clone()
    mask = add_mask(net, tokenizer)
    assert mask == len(VOCABULARY) == len(tokenizer) - 1
    torch.testing.assert_close(net.get_input_embeddings().weight[mask], before.mean(0))
    assert add_mask(net, tokenizer) == mask


def test_rows_are_prompt_answer_and_ends_of_text():
    tokenizer = char_tokenizer()
    two = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "9=", "answer": "9+0"}]
    rows = Rows(two, tokenizer, Adaptation(), 64)
    batch = rows.collate(rows.rows)
    assert batch["tokens"].tolist() == [[2, 11, 2, 12, 3, 0, 0, 0], [0, 0, 10, 12, 10, 11, 1, 0]]
    assert (batch["padding"].tolist(), batch["used"].tolist()) == ([0, 2], [2, 4])
    assert Rows(two, tokenizer, Adaptation(answer_length=2), 9).left_out == 1


@pytest.mark.parametrize(("every", "curves"), [(1, True), (10, False)])
def test_curves_are_named_where_a_step_was_logged(every, curves, made, tmp_path, capsys):
    assert main(words(made, tmp_path, "--logging_steps", every, steps=2)) == 0
    assert ("curves: " in capsys.readouterr().out) == curves


@pytest.mark.parametrize("more", [(), ("--gradient_accumulation_steps", "2")])
def test_a_resumed_run_goes_on_exactly(more, made, tmp_path, capsys):
    assert main(words(made, tmp_path / "whole", *more)) == 0
    constant = ("--save_steps", "3", *more)
    assert main(words(made, tmp_path / "cut", *constant)) == 0
    for name in ("checkpoint-6", "model", "train_trace.npz"):  # as if it had been killed after step 3
        (tmp_path / "cut" / name).rename(tmp_path / f"gone-{name}")
    assert main(words(made, tmp_path / "cut", *constant)) == 2
    assert "come with --resume: it holds checkpoint-3" in capsys.readouterr().err
    capsys.readouterr()
    assert main(words(made, tmp_path / "cut", *constant, "--resume")) == 0
    assert "resumed with" not in capsys.readouterr().out
    assert np.array_equal(losses(tmp_path / "cut"), losses(tmp_path / "whole"))
    a, b = (load_model(tmp_path / name / "model").state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)
    others = ("--learning_rate", 0.9, "--seed", 99, "--shift", False)
    assert main(words(made, tmp_path / "cut", *constant, "--resume", *others)) == 0
    told = capsys.readouterr().out
    assert "already finished at step 6" in told
    assert f"resumed with another learning_rate, seed, shift than {tmp_path / 'cut'}/settings.json" in told


def test_two_processes_give_the_loss_of_one(made, tmp_path):
    """gloo, CPU: twice two rows with their masks are the same four."""
    more = ("--per_device_train_batch_size", "2", "--ddp_backend", "gloo")
    two_processes(lambda: main(words(made, tmp_path / "two", *more)), tmp_path / "log")
    assert main(words(made, tmp_path / "one")) == 0
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--block_share", "2"), r"block_share must be a number in \[0, 1\]"),
        (("--lora_r", "0"), "lora_r must be an integer >= 1"),
        (("--max_steps", "0"), "--max_steps must be above 0, or -1"),
        (("--answer_length", "1"), "--answer_length must be at least the tokens of an answer"),
        (("--resume",), "--output_dir must be a folder with a checkpoint"),
        (("--dataset", "none.jsonl"), "dataset must be a"),
        (("--model", "none/at/all"), "--model must be a causal LM that transformers loads"),
        (("--model", "lab/sums"), "--model must be one of 'lab/gsm', 'lab/gsm-early'; got 'lab/sums'"),
        (("--model", "lab/gsm", "--answer_length", "1"), "--answer_length must be"),  # of a model found
        (("--learning_rat", "1"), "did you mean 'learning_rate'"),
    ],
)
def test_bad_input_is_one_line(more, message, made, tmp_path, capsys):
    assert main(words(made, tmp_path, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("labkit train: ")
    assert re.search(message, error)


def test_without_peft_lora_says_what_to_install(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert main(words(made, tmp_path, "--lora_r", "2")) == 2
    assert "pip install 'labkit[lora]'" in capsys.readouterr().err
