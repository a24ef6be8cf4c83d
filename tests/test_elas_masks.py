"""2:4 masks over the FFNs of other models, against activations and masks made here by other means."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from labkit.elas import ElasConfig, ElasForCausalLM, layer_statistics, mask_cost, trace_masks
from labkit.figures import masks
from labkit.paths import CHECKPOINTS

TEXT = "def f(x):\n    return x + 1\n"
SMALL = {
    "vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 46, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(CHECKPOINTS / "elas-3m" / "tokenizer.json"))


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=2048, n_embd=32, n_layer=2, n_head=2)).eval()


def watched(model, *paths: str) -> list[list[torch.Tensor]]:
    """For each path the outputs of that module in every layer, filled in by the next forward pass."""
    found: list[list[torch.Tensor]] = [[] for _ in paths]
    for name, module in model.named_modules():
        for outputs, path in zip(found, paths, strict=True):
            if name.endswith(path):
                module.register_forward_hook(
                    lambda _m, _x, y, outputs=outputs: outputs.append(y[0].detach())
                )
    return found


@pytest.mark.parametrize("make", [LlamaForCausalLM, Qwen3ForCausalLM], ids=lambda make: make.__name__)
def test_of_a_gated_ffn_the_product_is_seen(make, tokenizer):
    model = make({LlamaForCausalLM: LlamaConfig, Qwen3ForCausalLM: Qwen3Config}[make](**SMALL))
    gates, ups = watched(model, "mlp.gate_proj", "mlp.up_proj")
    trace = trace_masks(model, TEXT, PreTrainedTokenizerFast(tokenizer_object=tokenizer), seed=3)
    assert "".join(trace.tokens) == TEXT
    assert (trace.meta["mask_on"], trace.meta["seed"]) == (False, 3)
    for layer in (0, 1):
        wanted = (F.silu(gates[layer]) * ups[layer]).numpy()
        np.testing.assert_allclose(trace.activations[layer, :, :46], wanted, rtol=1e-5, atol=1e-9)
    assert not trace.activations[..., 46:].any()  # 46 features: the last group of four has two
    assert model.training


def test_of_gpt2_the_gelu_is_seen_and_half_of_it_would_go(tokenizer):
    model = gpt2()
    (before,) = watched(model, "mlp.c_fc")
    trace = trace_masks(model, TEXT, tokenizer)
    for layer in (0, 1):
        wanted = F.gelu(before[layer], approximate="tanh").numpy()
        np.testing.assert_allclose(trace.activations[layer], wanted, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(trace.enforced_zeros, 0.5, atol=0.01)
    assert trace.natural_zeros.max() < 0.01
    ids = torch.tensor([tokenizer.encode(TEXT).ids])
    np.testing.assert_allclose(layer_statistics(model, ids)["energy_kept"], trace.energy_kept, rtol=1e-6)


def test_opts_second_matrix_is_found(tokenizer):
    shape = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = OPTForCausalLM(OPTConfig(vocab_size=2048, word_embed_proj_dim=32, **shape))
    trace = trace_masks(model, TEXT, tokenizer)
    assert trace.activations.shape == (2, len(trace.tokens), 48)
    assert (trace.activations >= 0).all()  # OPT has ReLU


def _two_of_four(y: torch.Tensor) -> torch.Tensor:
    groups = y.unflatten(-1, (-1, 4))
    return (
        torch.zeros_like(groups)
        .scatter(-1, (top := groups.abs().topk(2).indices), groups.gather(-1, top))
        .flatten(-2)
    )


def test_what_the_mask_costs_gpt2():
    model, tokens = gpt2().train(), torch.randint(2048, (2, 12))
    for block in model.transformer.h:
        block.mlp.c_proj.weight.data.mul_(100)  # so that it costs something
    found = mask_cost(model, tokens)
    assert model.training
    model.eval()
    assert found["nats"] == pytest.approx(model(tokens, labels=tokens).loss.item())
    for block in model.transformer.h:
        block.mlp.act.register_forward_hook(lambda _m, _x, y: _two_of_four(y))
    assert found["nats_masked"] == pytest.approx(model(tokens, labels=tokens).loss.item(), rel=1e-5)
    assert abs(found["nats_masked"] - found["nats"]) > 0.001
    chances = model(tokens).logits[:, 8:-1].log_softmax(-1)
    judged = -chances.gather(-1, tokens[:, 9:, None]).mean().item()
    assert mask_cost(model, tokens, skip=9)["nats_masked"] == pytest.approx(judged, rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_what_the_mask_costs_elas_with_its_own_switch(packed):
    config = ElasConfig.from_name("tiny", vocab_size=64, warmup_steps=7, packed=packed)
    model, tokens = ElasForCausalLM(config).eval(), torch.randint(64, (2, 12))
    found = mask_cost(model, tokens)
    assert [int(a.dense_steps_left) for a in model.activations()] == [7] * 4
    for name, on in (("nats", False), ("nats_masked", True)):
        model.set_sparse(on)
        assert found[name] == pytest.approx(model(tokens, labels=tokens).loss.item(), rel=1e-5)


def test_negative_activations_are_drawn_and_the_shares_say_what_is_lost(tokenizer):
    trace = trace_masks(gpt2(), TEXT, tokenizer)
    assert (trace.activations < 0).any()
    figure = masks.mask_grid(trace, layer=1)
    drawn = [marks.get_array() for marks in figure.axes[0].collections]
    assert not any(np.isnan(np.asarray(values, float)).any() for values in drawn if values is not None)


def test_progress_is_told_of_each_layer(tokenizer):
    told = []
    trace_masks(gpt2(), TEXT, tokenizer, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_a_model_without_a_known_ffn_is_refused(tokenizer):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ValueError, match=r"model must be one whose layers have mlp\.down_proj"):
        trace_masks(BertLMHeadModel(BertConfig(vocab_size=2048, is_decoder=True, **shape)), TEXT, tokenizer)
    with pytest.raises(ValueError, match="model must be a language model of transformers; got 'Linear'"):
        trace_masks(torch.nn.Linear(2, 2), TEXT, tokenizer)
