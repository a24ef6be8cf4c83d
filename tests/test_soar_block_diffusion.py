"""SDAR, Fast-dLLM v2 and A2D Qwen3: tiny checkpoints in their layouts against a forward written out here.

The reference knows of the models what their papers and code say, and nothing of labkit or transformers.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_soar_models import write
from torch.nn import functional as F

from labkit.soar import decode, load_model
from labkit.soar.models.block_cache import BlockCached

MASK, EOS, SIZE = 39, 38, 4
SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "hidden_act": "silu", "mask_token_id": MASK, "eos_token_id": EOS,
    "use_sliding_window": False, "rope_scaling": None,
}  # fmt: skip
SDAR = SHAPE | {
    "model_type": "sdar", "head_dim": 16, "attention_bias": False, "block_size": SIZE,
    "tie_word_embeddings": False, "architectures": ["SDARForCausalLM"], "fuse_cross_entropy": True,
    "auto_map": {"AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM"},
}  # fmt: skip
FAST = SHAPE | {
    "model_type": "Fast_dLLM_Qwen", "bd_size": SIZE, "tie_word_embeddings": False,
    "layer_types": ["full_attention"] * 2, "architectures": ["Fast_dLLM_QwenForCausalLM"],
}  # fmt: skip
A2D = SHAPE | {
    "model_type": "a2d-qwen3", "head_dim": 16, "attention_bias": False, "tie_word_embeddings": True,
    "architectures": ["A2DQwen3LMHeadModel"],
}  # fmt: skip
# config.json, what load_model is told, what the reference is told: block, shift
LAYOUTS = {
    "sdar": (SDAR, {}, SIZE, False),
    "fast-dllm-v2": (FAST, {}, SIZE, True),
    "a2d-mdlm": (A2D, {}, None, False),
    "a2d-bd3lm": (A2D, {"block_causal": SIZE}, SIZE, False),
}
CAUSAL = [name for name, (_, _, block, _) in LAYOUTS.items() if block]


def tensors(config, seed=0):
    """Random weights under the names that all three families use."""
    torch.manual_seed(seed)
    three = "head_dim" in config  # follows Qwen3: norms of Q and K; else Qwen2: biases of Q, K and V
    head = config.get("head_dim", 8)
    made = {"model.embed_tokens.weight": torch.randn(40, 32), "model.norm.weight": 1 + torch.randn(32) / 4}
    for n in range(2):
        layer = f"model.layers.{n}."
        for name, out in (("q_proj", 4 * head), ("k_proj", 2 * head), ("v_proj", 2 * head)):
            made[layer + f"self_attn.{name}.weight"] = 0.3 * torch.randn(out, 32)
            if not three:
                made[layer + f"self_attn.{name}.bias"] = torch.randn(out)
        made[layer + "self_attn.o_proj.weight"] = 0.3 * torch.randn(32, 4 * head)
        for name in ("gate_proj", "up_proj"):
            made[layer + f"mlp.{name}.weight"] = 0.3 * torch.randn(48, 32)
        made[layer + "mlp.down_proj.weight"] = 0.3 * torch.randn(32, 48)
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[layer + f"{name}.weight"] = 1 + torch.randn(32) / 4
        if three:
            made |= {layer + f"self_attn.{n}_norm.weight": 1 + torch.randn(head) / 4 for n in "qk"}
    if not config["tie_word_embeddings"]:
        made["lm_head.weight"] = torch.randn(40, 32)
    return made


def reference(t, tokens, block):
    """Logits (B, L, V) that stand where they stand; block: None, or attention is causal over blocks."""

    def norm(x, name):
        return t[name + ".weight"] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def linear(x, name):
        return F.linear(x, t[name + ".weight"], t.get(name + ".bias"))

    def heads(x, name, attention):
        x = linear(x, attention + f"{name}_proj").view(*tokens.shape, -1, head)
        x = norm(x, attention + f"{name}_norm") if attention + f"{name}_norm.weight" in t else x
        return x.transpose(1, 2)

    def rotate(x):
        return x * cos + torch.cat([-x[..., head // 2 :], x[..., : head // 2]], -1) * sin

    head = t["model.layers.0.self_attn.q_proj.weight"].shape[0] // 4
    place = torch.arange(tokens.shape[1])
    angle = place[:, None] * (1.0 / 1e6 ** (torch.arange(0, head, 2) / head))
    angle = torch.cat([angle, angle], -1)
    cos, sin = angle.cos(), angle.sin()
    seen = None if block is None else place // block <= place[:, None] // block
    x = F.embedding(tokens, t["model.embed_tokens.weight"])
    for n in range(2):
        layer = f"model.layers.{n}."
        h, attention = norm(x, layer + "input_layernorm"), layer + "self_attn."
        q, k, v = (heads(h, name, attention) for name in "qkv")
        k, v = rotate(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        h = F.scaled_dot_product_attention(rotate(q), k, v, seen, scale=head**-0.5)
        x = x + linear(h.transpose(1, 2).flatten(2), attention + "o_proj")
        h, mlp = norm(x, layer + "post_attention_layernorm"), layer + "mlp."
        x = x + linear(F.silu(linear(h, mlp + "gate_proj")) * linear(h, mlp + "up_proj"), mlp + "down_proj")
    head_name = "lm_head" if "lm_head.weight" in t else "model.embed_tokens"
    return linear(norm(x, "model.norm"), head_name)


def predicted(t, tokens, block, shift):
    """``reference``, each position's logits where it stands."""
    logits = reference(t, tokens, block)
    return torch.cat([logits[:, :1], logits[:, :-1]], 1) if shift else logits


def blockwise(name, t, row, window, threshold=None):
    """The published samplers: blocks from position 0 on, in each every mask above ``threshold``, or the
    most confident one. Nothing is kept; a block is predicted from itself and what is before it.
    """
    _, _, size, shift = LAYOUTS[name]
    row = torch.tensor([row])
    for low in range(0, row.shape[1], window):
        here = slice(low, min(low + window, row.shape[1]))
        end = min((low // size + 1) * size, row.shape[1])
        while (masked := row[0, here] == MASK).any():
            logits = predicted(t, row[:, :end], size, shift)[0, here].clone()
            logits[:, MASK] = -torch.inf
            sure, token = logits.softmax(-1).max(-1)
            sure = torch.where(masked, sure, -1.0)
            chosen = sure > (2.0 if threshold is None else threshold)
            chosen[sure.argmax()] = True
            row[0, here] = torch.where(chosen, token, row[0, here])
    return row[0].tolist()


@pytest.fixture
def checkpoint(tmp_path):
    def make(name, **changes):
        config, told, block, shift = LAYOUTS[name]
        made = tensors(config)
        folder = write(tmp_path / name, config | changes, made)
        return folder, made, told, block, shift

    return make


@pytest.mark.parametrize("name", LAYOUTS)
def test_logits_are_those_of_the_model_written_out(name, checkpoint):
    folder, t, told, block, shift = checkpoint(name)
    model = load_model(folder, **told)
    tokens = torch.randint(0, 40, (3, 11))
    want = predicted(t, tokens, block, shift)
    assert (model(tokens) - want).abs().max() == 0
    other = predicted(t, tokens, None if block else SIZE, shift)
    assert (model(tokens) - other).abs().max() > 0.1  # the attention makes a difference
    assert (model.mask_id, model.eos_ids, model.max_length) == (MASK, (EOS,), 64)
    assert (model.shift, model.block_causal) == (shift, block)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("cache", [None, "exact-block"])
@pytest.mark.parametrize("length", [1, 3, 4, 10])
def test_decode_is_the_published_sampler(name, cache, length, checkpoint):
    folder, t, told, size, _ = checkpoint(name)
    model = load_model(folder, cache=cache, **told)
    prompt = torch.randint(0, 38, (length,)).tolist()
    for window in (None, 2):
        for strategy, given in (("greedy", {}), ("adaptive", {"threshold": 0.4, "max_parallel": 8})):
            options = {"gen_length": 12, "block_length": window, "eos_early_stop": False} | given
            found = decode(model, [prompt], strategy, **options).sequences[0].tolist()
            row = prompt + [MASK] * 12
            want = blockwise(name, t, row, window or size, given.get("threshold"))
            assert found == want
            # SDAR fills its last block up: what is before that is the same.
            longer = blockwise(
                name, t, row + [MASK] * (-len(row) % size), window or size, given.get("threshold")
            )
            whole = len(row) // size * size
            assert found[:whole] == longer[:whole]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("cache", [None, "exact-block"])
def test_infill_goes_by_the_same_blocks(name, cache, checkpoint):
    folder, t, told, size, _ = checkpoint(name)
    model = load_model(folder, cache=cache, **told)
    rows = [torch.randint(0, 38, (length,)) for length in (19, 14, 6)]
    for row, where in zip(rows, ([1, 2, 9, 11, 18], [0, 13], []), strict=True):
        row[where] = MASK
    rows = [row.tolist() for row in rows]
    trace = decode(model, rows, "greedy")
    assert trace.calls.tolist() == [5, 2, 0]
    for found, row in zip(trace.sequences, rows, strict=True):
        assert found[: len(row)].tolist() == blockwise(name, t, row, size)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "pbs", "soar"])
def test_the_exact_cache_changes_nothing_and_neither_does_the_batch(name, strategy, checkpoint):
    folder, _, told, _, _ = checkpoint(name)
    plain = load_model(folder, **told)
    prompts = [torch.randint(0, 38, (length,)).tolist() for length in (3, 10, 8, 1)]
    given = {"gen_length": 12, "threshold": 0.4, "beam": 3, "eos_early_stop": False}
    want = decode(plain, prompts, strategy, **given)
    layers, heads, head = plain.kv_shape
    one = 2 * layers * 22 * heads * head * 4
    for room in (one, 3 * one, 2**30):
        cached = BlockCached(plain, cache_bytes=room)
        for _ in range(2):
            found = decode(cached, prompts, strategy, batch_size=3, **given)
            np.testing.assert_array_equal(found.sequences, want.sequences)
            np.testing.assert_allclose(found.scores, want.scores, rtol=1e-5)
            np.testing.assert_array_equal(found.calls, want.calls)
        assert 0 < cached.kept_bytes <= room
    for number, prompt in enumerate(prompts):
        alone = decode(plain, [prompt], strategy, **given).sequences[0]
        assert alone.tolist() == want.sequences[number, : len(alone)].tolist()


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_with_the_exact_cache_differ_by_rounding_alone(name, checkpoint):
    folder, _, told, size, _ = checkpoint(name)
    # Products of another size are summed in another order: 2 of 10^6 in fp32, next to nothing in fp64.
    for dtype, relative in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        plain = load_model(folder, dtype=dtype, **told)
        cached = BlockCached(plain)
        row = torch.randint(0, 38, (2, 22))
        for low in range(0, 22, size):  # each prefix grows from the one before
            where = torch.arange(low, min(low + size, 22)).expand(2, -1)
            state = torch.cat([row[:, : low + 1], torch.full_like(row[:, low + 1 :], MASK)], 1)
            want = plain.logits_at(state, where)
            assert (cached.logits_at(state, where) - want).abs().max() < relative * want.std()


def test_an_interrupted_forward_leaves_nothing_behind(checkpoint, monkeypatch):
    folder, *_ = checkpoint("sdar")
    plain, cached = load_model(folder), load_model(folder, cache="exact-block")
    calls = []
    want = decode(plain, [[1] * 9], "greedy", gen_length=8).sequences
    whole = cached.model.hidden

    def interrupted(tokens, *given, **more):
        calls.append(tokens)
        if len(calls) == 5:  # the first block is done and is being added
            assert tokens.shape[1] == 12
            cached._kept.keys[0] += 1  # what a forward that ends half-way may leave
            raise KeyboardInterrupt
        return whole(tokens, *given, **more)

    monkeypatch.setattr(cached.model, "hidden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(cached, [[1] * 9], "greedy", gen_length=8)
    assert decode(cached, [[1] * 9], "greedy", gen_length=8).sequences.tolist() == want.tolist()


@pytest.mark.parametrize("name", CAUSAL)
def test_guidance_finds_both_of_its_prefixes(name, checkpoint):
    folder, _, told, _, _ = checkpoint(name)
    plain, prompt = load_model(folder, **told), torch.randint(0, 38, (1, 10))
    given = {"gen_length": 8, "cfg_scale": 1.0, "eos_early_stop": False}
    want, cached = decode(plain, prompt, "greedy", **given), BlockCached(plain)
    assert decode(cached, prompt, "greedy", **given).sequences.tolist() == want.sequences.tolist()
    computed, alone = cached.computed, BlockCached(plain)
    decode(alone, prompt, "greedy", **given | {"cfg_scale": 0.0})
    assert computed == 2 * alone.computed


def test_what_is_computed(checkpoint):
    """10 tokens and 8 more in blocks of 4: two, four and two masks; each block before is computed once."""
    for name, back in (("sdar", 0), ("fast-dllm-v2", 1)):
        folder, _, told, _, _ = checkpoint(name)
        cached = load_model(folder, cache="exact-block", **told)
        options = {"gen_length": 8, "eos_early_stop": False}
        decode(cached, torch.randint(0, 38, (1, 10)), "greedy", **options)
        assert cached.computed == (8 + 4 + 4) + 2 * (4 + back) + 4 * (4 + back) + 2 * (2 + back)


def test_steps_are_spent_block_by_block(checkpoint):
    folder, *_ = checkpoint("sdar")
    given = {"gen_length": 8, "steps": 4, "eos_early_stop": False}
    trace = decode(load_model(folder), [[1, 2], [1, 2, 3, 4]], "greedy", **given)
    # Two steps a block: masks 2, 4, 2 as 1 + 1, 2 + 2, 1 + 1; and 4, 4 as 2 + 2, 2 + 2.
    assert trace.calls.tolist() == [6, 4]
    commits = (trace.cand_positions >= 0).sum(1)[trace.cand_prompt == 0]
    assert commits.tolist() == [1, 1, 2, 2, 1, 1]


def test_the_end_of_a_turn_in_the_prompt_ends_nothing(checkpoint):
    folder, *_ = checkpoint("sdar")
    model = load_model(folder)
    prompt = [1, 2, 3, 4, 5, EOS]  # shares its block with what is generated
    early, late = (decode(model, [prompt], "greedy", gen_length=8, eos_early_stop=e) for e in (True, False))
    generated = late.sequences[0, 6:].tolist()
    kept = generated.index(EOS) if EOS in generated else 8
    assert early.sequences[0, 6 : 6 + kept].tolist() == generated[:kept]
    assert kept > 0


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_one(tied, checkpoint):
    folder, t, *_ = checkpoint("a2d-mdlm")
    file = next(folder.glob("*.safetensors"))
    head = t["model.embed_tokens.weight"] + (0 if tied else 1)
    save_file(load_file(file) | {"lm_head.weight": head.clone()}, file)
    if tied:
        net = load_model(folder).net
        assert net.lm_head.weight is net.model.embed_tokens.weight
    else:
        with pytest.raises(ValueError, match="whose lm_head.weight is its model.embed_tokens.weight"):
            load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("model.layers.1.self_attn.q_norm.weight"),
            "1 missing: model.layers.1.self_attn.q",
        ),
        (lambda t: t.pop("lm_head.weight"), "1 missing: lm_head.weight"),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}),
            "1 unexpected: model.layers.0.self_attn.q_proj.bias",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.k_norm.weight": torch.ones(32)}),
            r"k_norm.weight \(32,\) instead of \(16,\)",
        ),
    ],
    ids=["norm", "head", "bias", "shape"],
)
def test_every_discrepancy_of_the_weights_is_an_error(change, message, tmp_path):
    made = tensors(SDAR)
    change(made)
    with pytest.raises(ValueError, match=message):
        load_model(write(tmp_path / "m", SDAR, made))


@pytest.mark.parametrize(
    ("config", "told", "message"),
    [
        (SDAR | {"model_type": "llada_moe"}, {}, "'sdar'.* would need remote code.*model_type 'llada_moe'"),
        (
            SDAR | {"model_type": "llada2_moe"},
            {},
            "'sdar'.* would need remote code.*model_type 'llada2_moe'",
        ),
        (SDAR | {"model_type": "sdar_moe"}, {}, "'sdar'.* would need remote code.*model_type 'sdar_moe'"),
        (SDAR | {"use_sliding_window": True}, {}, "a SDAR checkpoint without sliding window or rope"),
        (
            FAST | {"layer_types": ["sliding_attention"] * 2},
            {},
            "a Fast-dLLM v2 checkpoint without sliding",
        ),
        (
            A2D | {"rope_scaling": {"type": "yarn"}},
            {},
            "a A2D checkpoint without .* rope scaling; got rope",
        ),
        (SDAR | {"head_dim": 15}, {}, "head_dim in config.json must be an even number; got 15"),
        (
            SDAR | {"tie_word_embeddings": "no"},
            {},
            "tie_word_embeddings in config.json must be one of True",
        ),
        (
            SDAR | {"block_size": None},
            {},
            "block_causal must be given, .* config.json has no block_size; got",
        ),
        (SDAR | {"block_size": 0}, {}, "block_size in config.json must be an integer >= 1; got 0"),
        (SDAR, {"block_causal": 8}, "block_causal must be None or 4, the block_size in config.json; got 8"),
        (
            SDAR | {"mask_token_id": None},
            {},
            "mask_token_id in config.json must be an integer .*; got None",
        ),
        (A2D, {"cache": "exact-block"}, "unless block_causal is given: no cache is exact"),
    ],
)
def test_what_cannot_work_is_one_clear_error(config, told, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        load_model(write(tmp_path / "m", config, tensors(SDAR | config)), **told)
    assert "\n" not in str(error.value)


def test_a_block_size_may_be_told_where_no_file_says_it(tmp_path):
    config = {key: value for key, value in SDAR.items() if key != "block_size"}
    folder = write(tmp_path / "m", config, tensors(SDAR))
    assert load_model(folder, block_causal=8, cache="exact-block").block_causal == 8
    assert load_model(write(tmp_path / "n", SDAR, tensors(SDAR)), block_causal=SIZE).block_causal == SIZE


@pytest.mark.parametrize("block_length", [3, 8, 0])
def test_a_block_length_that_cuts_across_the_models_blocks_is_refused(block_length, checkpoint):
    folder, *_ = checkpoint("sdar")
    with pytest.raises(
        ValueError, match="block_length must be (a divisor of 4, the model's block|an integer)"
    ):
        decode(load_model(folder), [[1]], gen_length=24, block_length=block_length)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "soar"])
def test_a_gpu_decodes_as_the_cpu(name, strategy, checkpoint):
    folder, _, told, _, _ = checkpoint(name)
    prompts = [torch.randint(0, 38, (length,)).tolist() for length in (3, 10, 8, 1)]
    given = {"gen_length": 12, "threshold": 0.4, "beam": 3, "record": False}
    want = decode(load_model(folder, **told, dtype=torch.float64), prompts, strategy, **given)
    for cache in (None, "exact-block"):
        model = load_model(folder, device="cuda", dtype=torch.float64, cache=cache, **told)
        found = decode(model, prompts, strategy, **given)
        np.testing.assert_array_equal(found.sequences, want.sequences)
        assert found.meta["beams_moved_by"] == "Triton kernel"
