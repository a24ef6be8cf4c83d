"""Masks, statistics and bytes read off a model, against values worked out by hand."""

import numpy as np
import pytest
import torch

from labkit.elas import (
    ElasConfig,
    ElasForCausalLM,
    ffn_saved_bytes,
    gradient_agreement,
    layer_statistics,
    load_text,
    saved_bytes,
    trace_masks,
)
from labkit.elas.ffn import ReLU2MLP


def model(**options):
    small = {
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "rank": 8,
    }
    return ElasForCausalLM(
        ElasConfig.from_name("tiny", **{"intermediate_size": 30, "warmup_steps": 0} | small | options)
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield load_text(vocab_size=300, max_bytes=50_000).tokenizer


def test_a_mask_trace_of_a_text(tokenizer):
    net = model()
    trace = trace_masks(net, "def f(x):\n    return x", tokenizer, max_tokens=9, step=3)
    assert trace.activations.shape == (2, 9, 32)  # 30 features and two of padding
    assert "".join(trace.tokens) == "def f(x):\n    return x"[: len("".join(trace.tokens))]
    assert len(trace.tokens) == 9
    assert (trace.kept.reshape(2, 9, 8, 4).sum(-1) == 2).all()
    assert trace.meta["step"] == 3
    assert trace.meta["mask_on"] is True
    ids = torch.tensor([tokenizer.encode("def f(x):\n    return x").ids[:9]])
    seen = []
    net.model.layers[1].mlp.act_fn.register_forward_hook(lambda _m, _x, y: seen.append(y))
    net(ids)
    used = (trace.activations * trace.kept)[1, :, :30]
    np.testing.assert_allclose(used, seen[0][0].detach().numpy(), rtol=1e-5)


def test_statistics_agree_with_the_trace(tokenizer):
    net, text = model(intermediate_size=32), "import os\nprint(os.getcwd())\n"
    trace = trace_masks(net, text, tokenizer)
    statistics = layer_statistics(net, torch.tensor([tokenizer.encode(text).ids]))
    for name in ("natural_zeros", "crowded_groups", "energy_kept"):
        np.testing.assert_allclose(statistics[name], getattr(trace, name), rtol=1e-6)


@pytest.mark.parametrize("gradient", ["ste", "masked"])
def test_a_packed_model_is_read_like_any_other(tokenizer, gradient):
    plain, packed = (model(intermediate_size=32, gradient=gradient, packed=p) for p in (False, True))
    packed.load_state_dict(plain.state_dict())
    tokens = torch.randint(300, (2, 8))
    expected = layer_statistics(plain, tokens)
    for name, found in layer_statistics(packed, tokens).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-5)
    assert trace_masks(packed, "pass", tokenizer).activations.shape[0] == 2
    assert all(m.packed for m in packed.modules() if isinstance(m, ReLU2MLP))


def test_the_mode_and_the_switch_are_left_alone(tokenizer):
    net = model(warmup_steps=5).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert trace_masks(net, "pass", tokenizer).meta["mask_on"] is False
    gradient_agreement(net, torch.randint(300, (2, 8)))
    assert net.training
    assert not net.activations()[0].sparse
    assert {a.gradient for a in net.activations()} == {"ste"}
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_comparison_that_breaks_leaves_the_model_as_it_was(monkeypatch):
    net = model(warmup_steps=5)
    before = [(a.gradient, bool(a.sparse)) for a in net.activations()]

    def no_memory(*_):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(torch.autograd, "grad", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        gradient_agreement(net, torch.randint(300, (2, 8)))
    assert [(a.gradient, bool(a.sparse)) for a in net.activations()] == before


def test_gradients_agree_fully_where_nothing_is_dropped():
    net, tokens = model(intermediate_size=32), torch.randint(300, (4, 16))
    found = gradient_agreement(net, tokens)
    assert (found["cosine"] < 1).all()
    assert (found["cosine"] > 0.5).all()
    for mlp in (m for m in net.modules() if isinstance(m, ReLU2MLP)):
        with torch.no_grad():  # two of every four features are always zero
            mlp.up_proj.weight_out.unflatten(0, (-1, 4))[:, 2:] = 0
    found = gradient_agreement(net, tokens)
    np.testing.assert_allclose(found["cosine"], 1, atol=1e-12)
    np.testing.assert_allclose(found["norm_ratio"], 1, atol=1e-12)


def test_saved_bytes_of_the_ffn_are_the_predicted_ones():
    """elas.md (f), bf16: eager SwiGLU 2(h + 3r + 4i), eager ReLU² 2(h + 2r + 2i').

    Packed, one wide tensor stays: the first, or with the masked gradient the second as 1.125i' bytes.
    """
    h, r, i, wide = 512, 128, 1376, 2064
    found = ffn_saved_bytes("60m", tokens=64)
    assert found["SwiGLU"] == 2 * (h + 3 * r + 4 * i)
    assert found["ReLU², no mask"] == 2 * (h + 2 * r + 2 * wide)
    assert found["ELAS packed, straight-through"] == 2 * (h + 2 * r + wide)
    assert found["ELAS packed, masked gradient"] == 2 * (h + 2 * r) + 1.125 * wide
    assert found["ELAS, mask only"] >= found["ReLU², no mask"]


class Square(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * super().forward(x)


def test_saved_bytes_counts_a_storage_once_and_leaves_weights_out():
    x = torch.randn(4, 8, requires_grad=True)
    assert saved_bytes(torch.nn.Linear(8, 8), x) == x.nbytes
    assert saved_bytes(Square(8, 8), x) == x.nbytes + 2 * 4 * 8 * 4


def test_bad_arguments(tokenizer):
    with pytest.raises(ValueError, match="text must be a text of at least one token; got ''"):
        trace_masks(model(), "", tokenizer)
    with pytest.raises(ValueError, match="max_tokens must be an integer >= 1; got 0"):
        trace_masks(model(), "x", tokenizer, max_tokens=0)
