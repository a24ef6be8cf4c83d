"""Every public function, every argument, values of other types, bounds, shapes and devices.

Allowed are a result, or a ValueError, TypeError or NotImplementedError that names an argument.
"""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sparse24
import tokenstats
from labkit import elas, fgo, metrics, soar, traces
from labkit.elas.data import Text

X = torch.arange(128.0).reshape(8, 16) % 7
STEP = np.arange(2)
IDS = np.arange(12).reshape(2, 6)
STRANGE = {
    "None": None, "text": "x", "minus one": -1, "zero": 0, "a half": 0.5, "NaN": float("nan"),
    "infinity": float("inf"), "huge": 10**400, "True": True, "list": [], "dict": {}, "object": object(),
    "scalar": torch.zeros(()), "empty": torch.zeros(0), "other shape": torch.zeros(2, 3),
    "array": np.ones((2, 2)),
    "int tensor": torch.zeros(2, 3, dtype=torch.int64), "complex": torch.zeros(4, 4, dtype=torch.complex64),
    "meta": torch.zeros(8, 16, device="meta"), "sparse": torch.eye(4).to_sparse(),
}  # fmt: skip


def one_hot(tokens):
    """A model for ``decode``: logits (B, L, 8) for tokens (B, L)."""
    return torch.nn.functional.one_hot(tokens, 8).float()


class Bytes:
    """A tokenizer for ``generate`` and ``trace_masks``: a letter's code modulo 7 is its token."""

    chat_template = None

    def encode(self, text):
        return SimpleNamespace(ids=[ord(letter) % 7 for letter in text])

    def __call__(self, text):
        return {"input_ids": self.encode(text).ids}

    def decode(self, tokens, skip_special_tokens=False):
        return "".join(map(str, tokens))

    def get_added_vocab(self):
        return {}


def group(*shape):
    return torch.ones(shape)


def calls():
    """name: (function, arguments it takes)."""
    packed, tiny = sparse24.compress(X), elas.ElasConfig.from_name("tiny", vocab_size=300, warmup_steps=0)
    net, yes = elas.ElasForCausalLM(tiny), torch.ones(2, 3, dtype=torch.bool)
    text = Text(Bytes(), IDS[0], IDS[1], np.ones(300, int), "two rows")
    tables = {name: np.zeros((1, 2, 4), kind) for name, kind in (("activations", "f4"), ("kept", bool))}
    return {
        "sparse24.mask24": (sparse24.mask24, {"x": X}),
        "sparse24.sparsify": (sparse24.sparsify, {"x": X}),
        "sparse24.compress": (sparse24.compress, {"x": X}),
        "sparse24.decompress": (sparse24.decompress, {"packed": packed}),
        "sparse24.relu2_compress": (sparse24.relu2_compress, {"h": X}),
        "sparse24.relu2_ffn": (sparse24.relu2_ffn, {
            "z": X, "up": torch.ones(8, 16), "down": torch.ones(4, 8),
        }),
        "sparse24.matmul": (sparse24.matmul, {"packed": packed, "weight": torch.ones(4, 16)}),
        "tokenstats.token_stats": (tokenstats.token_stats, {"logits": X}),
        "elas.LowRankLinear": (elas.LowRankLinear, {"in_features": 8, "out_features": 8, "rank": 2}),
        "elas.Sparse24ReLU2": (elas.Sparse24ReLU2, {}),
        "elas.PretrainConfig": (elas.PretrainConfig, {}),
        "elas.build_model": (elas.build_model, {"config": None}),
        "elas.load_text": (elas.load_text, {"source": "no text of this name"}),
        "elas.load_checkpoint": (elas.load_checkpoint, {"name": "no model of this name"}),
        "elas.pretrain": (elas.pretrain, {"config": 3}),
        "elas.ElasConfig.from_name": (elas.ElasConfig.from_name, {"name": "tiny"}),
        "elas.Loro.for_model": (elas.Loro.for_model, {"model": net, "lr": 0.1}),
        "elas.evaluate": (elas.evaluate, {"model": net, "rows": IDS, "token_bytes": np.ones(300, int)}),
        "elas.unigram": (elas.unigram, {"text": text, "rows": IDS}),
        "elas.trace_masks": (elas.trace_masks, {"model": net, "text": "if", "tokenizer": Bytes()}),
        "elas.layer_statistics": (elas.layer_statistics, {"model": net, "tokens": IDS}),
        "elas.mask_cost": (elas.mask_cost, {"model": net, "tokens": IDS}),
        "elas.gradient_agreement": (elas.gradient_agreement, {"model": net, "tokens": IDS}),
        "elas.saved_bytes": (
            lambda module: elas.saved_bytes(module, X), {"module": torch.nn.Linear(16, 2)}
        ),
        "elas.ffn_saved_bytes": (elas.ffn_saved_bytes, {"size": "tiny", "tokens": 4}),
        "soar.decode": (soar.decode, {
            "model": one_hot, "prompts": [[1, 2]], "gen_length": 2, "mask_id": 7,
        }),
        "soar.generate": (soar.generate, {
            "model": one_hot, "question": "a", "tokenizer": Bytes(), "gen_length": 2, "mask_id": 7,
        }),
        "soar.generate_batch": (soar.generate_batch, {
            "model": one_hot, "questions": ["a", "b"], "tokenizer": Bytes(), "gen_length": 2, "mask_id": 7,
        }),
        "soar.load_model": (soar.load_model, {"name": "lab/sums"}),
        "fgo.fgo_advantages": (fgo.fgo_advantages, {
            "correct": yes, "length": group(2, 3), "entropy": group(2, 3),
        }),
        "fgo.grpo_advantages": (fgo.grpo_advantages, {"reward": group(2, 3)}),
        "fgo.Objective": (fgo.Objective, {}),
        "metrics.record": (metrics.record, {"name": "a", "value": 1.0}),
        "traces.MaskTrace": (traces.MaskTrace, {**tables, "tokens": ["a", "b"]}),
        "traces.TrainTrace": (traces.TrainTrace, {"step": STEP, "series": {"loss": STEP / 2}}),
        "traces.GroupTrace": (traces.GroupTrace, {
            "prompts": ["1"], "answers": ["1"], "texts": [["1", "2"]], "correct": np.ones((1, 2), bool),
            "length": np.ones((1, 2), int),
        }),
        "traces.MaskTrace.load": (traces.MaskTrace.load, {"path": "no such file"}),
    }  # fmt: skip


CALLS = calls()
# What torch and Python take any object for, or what only a caller's own object can answer.
FREE = {"meta", "progress", "normal_", "constant_"}


# Those whose usual arguments are refused too: they would train, load or read.
REFUSED = {
    "elas.build_model",
    "elas.load_text",
    "elas.load_checkpoint",
    "elas.pretrain",
    "traces.MaskTrace.load",
}


def arguments(function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind not in kinds]


@pytest.mark.parametrize("name", CALLS)
def test_a_strange_argument_is_taken_or_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    function, usual = CALLS[name]
    if name in REFUSED:
        with pytest.raises((ValueError, FileNotFoundError)):
            function(**usual)
    else:
        function(**usual)
    names, wrong = arguments(function), []
    for argument in (one for one in names if one not in FREE):
        for what, value in STRANGE.items():
            if (name, argument, what) == ("elas.pretrain", "config", "None"):
                continue  # the default: it would train for minutes
            try:
                function(**usual | {argument: value})
            except FileNotFoundError:  # says itself which
                continue
            except (ValueError, TypeError, NotImplementedError) as error:
                if not any(one in str(error) for one in names):
                    wrong.append(f"{argument}={what}: {type(error).__name__}: {str(error)[:90]}")
            except Exception as error:
                wrong.append(f"{argument}={what}: {type(error).__name__}: {str(error)[:90]}")
    assert not wrong, "\n".join(wrong)


def test_every_public_name_is_tried():
    known = {
        f"{module.__name__.removeprefix('labkit.')}.{name}"
        for module in (elas, soar, fgo, sparse24, tokenstats)
        for name in module.__all__
    }
    apart = {
        "elas.ARMS", "sparse24.Packed", "tokenstats.TokenStats", "soar.Generation",  # results and constants
        "fgo.FGOConfig", "fgo.FGOTrainer",  # TRL's own arguments
        "elas.ElasConfig", "elas.ElasForCausalLM", "elas.Loro",  # by another maker above
    }  # fmt: skip
    assert known - apart - set(CALLS) == set()
