"""From a Llama to low rank and back to dense weights, against SVDs and forward passes of others."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from labkit.elas import ElasConfig, ElasForCausalLM, LowRankLinear

TOKENS = torch.arange(18).reshape(2, 9)


def llama(**options) -> LlamaForCausalLM:
    shape = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 7, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**shape | options)).eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True}, {"head_dim": 16}], ids=str)
def test_without_a_rank_nothing_is_lost(tmp_path, options):
    source = llama(**options)
    source.save_pretrained(tmp_path)
    model = ElasForCausalLM.from_llama(tmp_path, rank=None).eval()
    assert model.energy_lost == {}
    assert torch.equal(logits(model), logits(source))
    assert torch.equal(logits(model.to_llama()), logits(source))
    assert model.generation_config.eos_token_id == 7


@pytest.mark.filterwarnings("ignore:the cut to low rank")
def test_the_full_rank_is_the_same_function():
    source = llama(intermediate_size=32)
    model = ElasForCausalLM.from_llama(source, rank=32).eval()
    assert all(lost < 1e-12 for lost in model.energy_lost.values())
    torch.testing.assert_close(logits(model), logits(source))
    keys = model.model.layers[0].self_attn.k_proj
    assert (keys.rank, keys.out_features) == (16, 16)  # two heads of keys, four of queries


def test_the_cut_is_the_best_of_its_rank_and_says_what_it_loses():
    """A matrix with singular values 5, 3, 2, 1: rank 2 keeps 34 of 39."""
    source = llama(hidden_size=4, num_attention_heads=1, num_key_value_heads=1, intermediate_size=4)
    left, right = (torch.linalg.qr(torch.randn(4, 4))[0] for _ in range(2))
    with torch.no_grad():
        for layer in source.model.layers:
            for module in layer.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight.copy_(left @ torch.diag(torch.tensor([5.0, 3.0, 2.0, 1.0])) @ right)
    with pytest.warns(UserWarning, match=r"drops 12\.8% to 12\.8%, median 12\.8% of a projection's"):
        model = ElasForCausalLM.from_llama(source, rank=2)
    best = left @ torch.diag(torch.tensor([5.0, 3.0, 0.0, 0.0])) @ right
    cut = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    assert len(cut) == len(model.energy_lost) == 14
    for layer in cut:
        torch.testing.assert_close(layer.dense_weight(), best)
        torch.testing.assert_close(
            layer.weight_out.T @ layer.weight_out, torch.diag(torch.tensor([5.0, 3]))
        )
    assert model.energy_lost["model.layers.1.mlp.gate_proj"] == pytest.approx(5 / 39)


@pytest.mark.filterwarnings("ignore:the cut to low rank")
def test_ranks_and_dtype_reach_the_model():
    model = ElasForCausalLM.from_llama(llama().to(torch.bfloat16), rank=4, mlp_rank=6)
    assert {p.dtype for p in model.to_llama().parameters()} == {torch.bfloat16}
    assert model.to_llama().model.rotary_emb.inv_freq.dtype == torch.float32
    assert (model.model.layers[0].self_attn.q_proj.rank, model.model.layers[0].mlp.up_proj.rank) == (4, 6)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config.ffn == "swiglu"


def test_what_is_no_plain_llama_is_refused(tmp_path):
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 64}
    Qwen2ForCausalLM(Qwen2Config(**small, num_attention_heads=4)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="name must be a model of type 'llama', not 'qwen2'"):
        ElasForCausalLM.from_llama(tmp_path, rank=4)
    with pytest.raises(ValueError, match="rank must be an integer between 1 and 32; got 33"):
        ElasForCausalLM.from_llama(llama(), rank=33)
    with pytest.raises(ValueError, match="bias must be False: low-rank layers have no bias"):
        ElasForCausalLM.from_llama(llama(attention_bias=True), rank=4)


@pytest.mark.parametrize("options", [{}, {"ffn": "swiglu"}, {"rank": None}], ids=str)
def test_an_elas_model_is_saved_as_a_llama_of_the_same_function(tmp_path, options):
    options = {"vocab_size": 64, "num_hidden_layers": 2, "warmup_steps": 5} | options
    model = ElasForCausalLM(ElasConfig.from_name("tiny", **options)).eval()
    model.to_llama().save_pretrained(tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(exported) is LlamaForCausalLM
    torch.testing.assert_close(logits(exported), logits(model))


def test_a_mask_is_dropped_only_where_asked():
    model = ElasForCausalLM(ElasConfig.from_name("tiny", vocab_size=64, warmup_steps=0)).eval()
    with pytest.raises(ValueError, match="drop_mask must be True where the 2:4 mask is on"):
        model.to_llama()
    exported = model.to_llama(drop_mask=True)
    model.set_sparse(False)
    torch.testing.assert_close(logits(exported), logits(model))
