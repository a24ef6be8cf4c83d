"""Tiny random checkpoints in the original layouts, against the native classes and plain arithmetic."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from labkit.soar import decode, load_model

LLADA = {
    "model_type": "llada", "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4,
    "mlp_hidden_size": 48, "vocab_size": 40, "embedding_size": 40, "max_sequence_length": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "mask_token_id": 39, "eos_token_id": 38, "pad_token_id": 38,
    "block_type": "llama", "activation_type": "silu", "weight_tying": False,
    "auto_map": {"AutoModel": "remote.Code"},
}  # fmt: skip
DREAM = {
    "model_type": "Dream", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "mask_token_id": 39,
    "eos_token_id": 38, "pad_token_id": 38, "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip


def llada_tensors():
    def draw(*shape):
        return 0.3 * torch.randn(shape)

    made = {"model.transformer.wte.weight": draw(40, 32), "model.transformer.ff_out.weight": draw(40, 32)}
    made["model.transformer.ln_f.weight"] = 1 + draw(32)
    for n in range(2):
        block = f"model.transformer.blocks.{n}."
        made |= {
            block + f"{name}.weight": draw(32, 32) for name in ("q_proj", "k_proj", "v_proj", "attn_out")
        }
        made |= {block + f"{name}.weight": draw(48, 32) for name in ("ff_proj", "up_proj")}
        made |= {block + f"{name}.weight": 1 + draw(32) for name in ("attn_norm", "ff_norm")}
        made[block + "ff_out.weight"] = draw(32, 48)
    return made


def dream_native():
    config = Qwen2Config(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    config.is_causal = False
    net = Qwen2ForCausalLM(config).eval()
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return net


def write(folder, config, *shards):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for number, tensors in enumerate(shards):
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"model-{number}.safetensors")
    return folder


@pytest.fixture
def llada(tmp_path):
    tensors = llada_tensors()
    names = sorted(tensors)
    shards = [{k: tensors[k] for k in names[::2]}, {k: tensors[k] for k in names[1::2]}]
    return write(tmp_path / "llada", LLADA, *shards), tensors


@pytest.fixture
def dream(tmp_path):
    net = dream_native()
    return write(tmp_path / "dream", DREAM, dict(net.state_dict())), net


def by_arithmetic(t, tokens):
    """LLaDA's forward pass written out: RMSNorm, rotary halves, full attention, SwiGLU."""

    def norm(x, weight):
        return weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def rotate(x):
        angle = torch.arange(x.shape[2])[:, None] * 500000.0 ** (-torch.arange(4) / 4)
        a, b = x[..., :4], x[..., 4:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    x = t["model.transformer.wte.weight"][tokens]
    batch, length, _ = x.shape
    for n in range(2):
        w = {k.split(".")[4]: v for k, v in t.items() if k.startswith(f"model.transformer.blocks.{n}.")}
        h = norm(x, w["attn_norm"])
        q, k, v = (
            (h @ w[name].T).view(batch, length, 4, 8).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        weight = torch.softmax(rotate(q) @ rotate(k).transpose(2, 3) / 8**0.5, -1)
        x = x + (weight @ v).transpose(1, 2).reshape(batch, length, 32) @ w["attn_out"].T
        h = norm(x, w["ff_norm"])
        x = x + (F.silu(h @ w["ff_proj"].T) * (h @ w["up_proj"].T)) @ w["ff_out"].T
    return norm(x, t["model.transformer.ln_f.weight"]) @ t["model.transformer.ff_out.weight"].T


def test_llada_is_the_native_class_to_the_last_bit(llada):
    folder, t = llada
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )  # fmt: skip
    config.is_causal = False
    net = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        net.model.embed_tokens.weight.copy_(t["model.transformer.wte.weight"])
        net.model.norm.weight.copy_(t["model.transformer.ln_f.weight"])
        net.lm_head.weight.copy_(t["model.transformer.ff_out.weight"])
        for n, layer in enumerate(net.model.layers):
            for part, name in (
                (layer.input_layernorm, "attn_norm"), (layer.post_attention_layernorm, "ff_norm"),
                (layer.self_attn.q_proj, "q_proj"), (layer.self_attn.k_proj, "k_proj"),
                (layer.self_attn.v_proj, "v_proj"), (layer.self_attn.o_proj, "attn_out"),
                (layer.mlp.gate_proj, "ff_proj"), (layer.mlp.up_proj, "up_proj"),
                (layer.mlp.down_proj, "ff_out"),
            ):  # fmt: skip
                part.weight.copy_(t[f"model.transformer.blocks.{n}.{name}.weight"])
    model = load_model(folder)
    tokens = torch.randint(0, 40, (3, 11))
    with torch.no_grad():
        assert (model(tokens) - net(tokens).logits).abs().max() == 0
        torch.testing.assert_close(model(tokens), by_arithmetic(t, tokens), atol=2e-4, rtol=2e-4)
    assert (model.mask_id, model.eos_id, model.max_length, model.shift) == (39, 38, 32, False)


def test_dream_is_the_native_class_shifted_by_one(dream):
    folder, net = dream
    model = load_model(folder)
    tokens = torch.randint(0, 40, (3, 11))
    with torch.no_grad():
        native, ours = net(tokens).logits, model(tokens)
    assert (ours[:, 1:] - native[:, :-1]).abs().max() == 0
    assert (ours[:, 0] - native[:, 0]).abs().max() == 0


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_everything_is_seen_and_padding_is_not(family, request):
    model = load_model(request.getfixturevalue(family)[0])
    tokens = torch.randint(0, 38, (1, 9))
    other = tokens.clone()
    other[0, 8] = (other[0, 8] + 1) % 38
    assert ((model(tokens) - model(other)).abs().amax(-1) > 1e-4)[0, :8].all()
    padded = torch.cat([tokens, torch.randint(0, 38, (1, 4))], 1)
    two = torch.cat([padded, torch.randint(0, 38, (1, 13))])
    with_mask = model(two, [9, 13])
    torch.testing.assert_close(with_mask[0, :9], model(tokens)[0], atol=1e-4, rtol=1e-4)
    other = torch.cat([other, padded[:, 9:]], 1)  # still bidirectional under a padding mask
    moved = model(torch.cat([other, two[1:]]), [9, 13])[0] - with_mask[0]
    assert (moved.abs().amax(-1) > 1e-4)[:8].all()


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_logits_at_positions_equal_the_full_logits(family, request):
    model = load_model(request.getfixturevalue(family)[0])
    tokens, where = torch.randint(0, 40, (2, 9)), torch.tensor([[0, 3, 8], [5, 5, 1]])
    full = model(tokens).gather(1, where[..., None].expand(-1, -1, 40))
    torch.testing.assert_close(model.logits_at(tokens, where), full)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_prompts_of_any_length_decode_as_they_do_alone(family, request):
    model = load_model(request.getfixturevalue(family)[0])
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
    many = decode(model, prompts, "soar", gen_length=8, block_length=4, threshold=0.5)
    assert many.meta["forward_calls"] == many.calls.max()  # different lengths still share a call
    for p, prompt in enumerate(prompts):
        alone = decode(model, [prompt], "soar", gen_length=8, block_length=4, threshold=0.5)
        assert alone.sequences[0].tolist() == many.sequences[p, : len(prompt) + 8].tolist()
        assert model.mask_id not in alone.sequences
    with pytest.raises(
        ValueError, match="gen_length must be at most 27, .* max_length=32 .* prompt of 5; got 30"
    ):
        decode(model, prompts, gen_length=30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("model.transformer.blocks.1.k_proj.weight"),
            "1 missing: model.layers.1.self",
        ),
        (
            lambda t: t.update({"model.transformer.blocks.0.q_proj.bias": torch.zeros(32)}),
            r"1 unexpected: model.transformer.blocks.0.q_proj.bias",
        ),
        (lambda t: t.update({"model.extra.weight": torch.zeros(1)}), "1 unexpected: model.extra.weight"),
        (
            lambda t: t.update({"model.transformer.ln_f.weight": torch.ones(31)}),
            r"has 1 of another shape: model.transformer.ln_f.weight \(31,\) instead of \(32,\)$",
        ),
    ],
    ids=["missing", "bias", "extra", "shape"],
)
def test_every_discrepancy_is_an_error(change, message, tmp_path):
    tensors = llada_tensors()
    change(tensors)
    with pytest.raises(ValueError, match=message):
        load_model(write(tmp_path / "m", LLADA, tensors))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            LLADA | {"model_type": "gpt9"},
            "name must be a checkpoint of model_type 'llada', 'Dream', 'sdar', .*gpt9",
        ),
        (
            LLADA | {"include_bias": True},
            "name must be a LLaDA checkpoint with include_bias=False; got True",
        ),
        (DREAM | {"rope_scaling": {"type": "yarn"}}, "name must be a Dream checkpoint without"),
        (LLADA, "folder with .*safetensors .pickled weights are not read"),
    ],
    ids=["family", "llada", "dream", "no weights"],
)
def test_other_architectures_are_refused(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_model(write(tmp_path / "m", config))


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(ValueError, match="name must be one of 'lab/sudoku9', .*; got 'lab/chess'"):
        load_model("lab/chess")
    with pytest.raises(ValueError, match="name must be a folder with config.json"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="name must be a folder that exists or a checkpoint"):
        load_model("no such folder anywhere")
