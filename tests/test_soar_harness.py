"""The lm-evaluation-harness class on a tiny LLaDA checkpoint; lm_eval is stubbed where it is missing."""

import importlib.util
import sys
import types
from dataclasses import dataclass

import pytest
import torch
from test_soar_models import LLADA, llada_tensors, write
from tokenizers import Tokenizer, models, pre_tokenizers

from labkit.soar import decode


@dataclass
class Request:
    args: tuple


class BareLM:
    """The part of lm_eval.api.model.LM that a subclass relies on."""

    def __init__(self):
        self.cache_hook = None


def stub(monkeypatch):
    for name in (
        "lm_eval",
        "lm_eval.api",
        "lm_eval.api.instance",
        "lm_eval.api.model",
        "lm_eval.api.registry",
    ):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["lm_eval.api.instance"].Instance = Request
    sys.modules["lm_eval.api.model"].LM = BareLM
    sys.modules["lm_eval.api.registry"].register_model = lambda name: lambda cls: cls


@pytest.fixture
def harness(monkeypatch):
    if importlib.util.find_spec("lm_eval") is None:
        stub(monkeypatch)
    monkeypatch.delitem(sys.modules, "labkit.soar.harness", raising=False)
    import labkit.soar.harness as module

    yield module
    sys.modules.pop("labkit.soar.harness", None)


@pytest.fixture
def folder(tmp_path):
    return with_tokenizer(write(tmp_path / "llada", LLADA, llada_tensors()))


def with_tokenizer(made):
    words = {f"w{i}": i for i in range(40)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(made / "tokenizer.json"))
    return made


def build(harness, folder, **options):
    return harness.LabkitLM(folder, gen_length=8, block_length=4, device="cpu", dtype="float32", **options)


def test_it_generates_what_decode_generates(harness, folder):
    lm = build(harness, folder, strategy="pbs", beam=3, batch_size=2)
    contexts = ["w1 w2", "w3", "w4 w5 w6"]
    answers = lm.generate_until([Request((text, {"until": []})) for text in contexts])
    prompts = [[int(word[1:]) for word in text.split()] for text in contexts]
    trace = decode(lm.model, prompts, "pbs", gen_length=8, block_length=4, beam=3)
    for answer, row, start in zip(answers, trace.sequences, trace.prompt_length, strict=True):
        tokens = row[start : start + 8].tolist()
        if lm.model.eos_id in tokens:
            tokens = tokens[: tokens.index(lm.model.eos_id)]
        assert answer.split() == [f"w{token}" for token in tokens]


def test_it_stops_where_the_task_says_and_generates_no_more_than_it_asks_for(harness, folder):
    lm = build(harness, folder, strategy="greedy")
    whole, short, until = lm.generate_until(
        [Request(("w1 w2", wanted)) for wanted in ({}, {"max_gen_toks": 3}, {"until": "w"})]
    )
    assert len(short.split()) <= 4  # whole blocks
    assert len(whole.split()) <= 8
    assert until == ""
    assert harness.cut("a; b\nc", ["\n", ";", ""]) == "a"
    assert harness.cut("abc", ["x"]) == "abc"


def test_an_answer_ends_at_any_of_the_ids_that_end_a_text(harness, tmp_path):
    config = LLADA | {"eos_token_id": [38, 37]}
    lm = build(harness, with_tokenizer(write(tmp_path / "two", config, llada_tensors())), strategy="greedy")
    logits = torch.zeros(32, 40)
    logits[:, 5] = 4.0 - torch.arange(32) / 16  # surest first: from left to right
    logits[4, 5], logits[4, 37] = 0.0, 8.0
    lm.model.logits_at = lambda tokens, where, lengths: logits[where].clone()
    assert lm.generate_until([Request(("w1 w2", {}))]) == ["w5 w5"]
    assert isinstance(lm.generate_until([Request(("", {}))])[0], str)


def test_a_prompt_that_is_too_long_loses_its_start_and_an_empty_one_is_answered(harness, folder):
    lm = build(harness, folder, strategy="greedy")
    text = " ".join(f"w{i % 30 + 1}" for i in range(60))
    long, empty = lm.generate_until([Request((text, {})), Request(("", {}))])
    tail = lm.generate_until([Request((" ".join(text.split()[-24:]), {}))])
    assert [long] == tail  # the model has 32 positions
    assert isinstance(empty, str)


def test_likelihoods_and_checkpoints_without_a_tokenizer_are_refused(harness, folder):
    lm = build(harness, folder)
    with pytest.raises(NotImplementedError, match="no exact likelihood"):
        lm.loglikelihood([])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="pretrained must be a folder with tokenizer.json"):
        harness.load_tokenizer(folder)
    with pytest.raises(ValueError, match="gen_length must be a multiple of block_length=4; got 6"):
        harness.LabkitLM(folder, gen_length=6, block_length=4)
    assert torch.is_grad_enabled()


def test_vocabulary_and_merges_make_a_tokenizer(harness, tmp_path):
    """Dream's folder has no tokenizer.json. Told by a name it does not know, the class starts empty."""
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    assert harness.load_tokenizer(tmp_path)("abba")["input_ids"] == [2, 1, 0]
