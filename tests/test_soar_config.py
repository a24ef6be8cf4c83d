"""config.json and its neighbours: what lacks or disagrees is a ValueError that names the key."""

import json

import pytest
import torch
from test_soar_models import DREAM, LLADA, dream_native, llada_tensors, write

from labkit.soar import decode, load_model
from labkit.soar.models.caches import Cached
from labkit.soar.models.diffusion_lm import eos_ids
from labkit.studies.soar.bench import Timed

ROPE = {"rope_type": "default", "rope_theta": 1e6}


def llada(folder, lacks=(), **changed):
    config = {key: value for key, value in (LLADA | changed).items() if key not in lacks}
    return write(folder / "m", config, llada_tensors())


def dream(folder, lacks=(), **changed):
    config = {key: value for key, value in (DREAM | changed).items() if key not in lacks}
    return write(folder / "m", config, dict(dream_native().state_dict()))


def put(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return folder


NEEDED = {
    llada: (
        "d_model", "n_layers", "n_heads", "mlp_hidden_size", "max_sequence_length", "rms_norm_eps",
        "mask_token_id",
    ),
    dream: (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "mask_token_id",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("family", "key"), [(f, key) for f, keys in NEEDED.items() for key in keys])
def test_a_key_that_lacks_is_named(family, key, tmp_path):
    with pytest.raises(ValueError, match=rf"^{key} in config.json must be .*; got None$"):
        load_model(family(tmp_path, lacks=[key]))


@pytest.mark.parametrize(("family", "key"), [(f, key) for f, keys in NEEDED.items() for key in keys])
@pytest.mark.parametrize("value", ["4", [4], {"a": 1}, -1, True, float("nan")], ids=repr)
def test_a_key_with_no_usable_value_is_named(family, key, value, tmp_path):
    with pytest.raises(ValueError, match=rf"^{key} in config.json must be"):
        load_model(family(tmp_path, **{key: value}))


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        (llada, {"n_heads": 5, "n_kv_heads": 5}, "^n_heads in config.json must be a divisor of d_model=32"),
        (llada, {"n_heads": 32}, "^n_heads in config.json must be d_model=32 divided by an even"),
        (llada, {"n_kv_heads": 3}, "^n_kv_heads in config.json must be a divisor of n_heads=4; got 3"),
        (llada, {"n_layers": 10**9}, "^n_layers in config.json must be an integer between 1 and 1000"),
        (
            dream,
            {"num_hidden_layers": 10**9},
            "^num_hidden_layers in config.json must be an integer between",
        ),
        (llada, {"multi_query_attention": True}, "^n_kv_heads in config.json must be 1 with multi_query"),
        (
            llada,
            {"vocab_size": 41},
            "^embedding_size in config.json must be at least vocab_size=41; got 40",
        ),
        (llada, {"mask_token_id": 40}, "^mask_token_id in config.json must be an integer between 0 and 39"),
        (llada, {"mask_token_id": 38}, "^mask_token_id in config.json must be another token than eos"),
        (llada, {"eos_token_id": 40}, "^eos_token_id in config.json must be .* and 39; got 40"),
        (llada, {"eos_token_id": [38, "a"]}, "^eos_token_id in config.json must be .*; got 'a'"),
        (llada, {"eos_token_id": {"a": 1}}, "^eos_token_id in config.json must be"),
        (llada, {"rope_theta": "1e6"}, "^rope_theta in config.json must be a number"),
        (llada, {"rope_parameters": ROPE}, "^rope_theta in config.json must be one number wherever"),
        (
            llada,
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "^name must be a LLaDA .*rope_scaling",
        ),
        (llada, {"model_type": ["llada"]}, "^name must be a checkpoint of model_type"),
        (dream, {"num_attention_heads": 5}, "^num_attention_heads in config.json must be a divisor of hid"),
        (dream, {"num_key_value_heads": 3}, "^num_key_value_heads in config.json must be a divisor of num"),
        (dream, {"hidden_act": "magic"}, "^hidden_act in config.json must be an activation"),
        (dream, {"rope_parameters": ROPE | {"rope_theta": 5.0}}, "^rope_theta in config.json must be one"),
        (
            dream,
            {"rope_parameters": ROPE | {"rope_type": "yarn"}},
            "^name must be a Dream .*rope_parameters",
        ),
        (dream, {"rope_parameters": 7}, "^rope_parameters in config.json must be an object or null; got 7"),
    ],
)
def test_keys_that_disagree_are_named(family, changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_model(family(tmp_path, **changed))


@pytest.mark.parametrize("text", ["{", "[]", "7", "\xff"])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_files_that_hold_no_object_are_named(file, text, tmp_path):
    folder = llada(tmp_path)
    (folder / file).write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=rf"^{file} must be"):
        load_model(folder)


def theta(model):
    """Of the rotary embedding: its second frequency is theta ** (-2 / width of a head)."""
    rotary = model.net.model.rotary_emb
    return getattr(rotary, "rotary", rotary).inv_freq[1].item() ** -4


@pytest.mark.parametrize(
    ("family", "lacks", "more", "expected"),
    [
        (llada, (), {}, 500000.0),
        (llada, ("rope_theta",), {}, 10000.0),  # the original's default, and Llama's
        (dream, ("rope_theta",), {}, 10000.0),
        (dream, ("rope_theta",), {"rope_parameters": ROPE}, 1e6),  # as transformers 5 writes it
        (dream, (), {"rope_parameters": ROPE}, 1e6),
        (llada, ("rope_theta",), {"rope_scaling": ROPE}, 1e6),
        (llada, (), {"rope_theta": None, "rope_scaling": None, "rope_parameters": None}, 10000.0),
    ],
)
def test_the_rotary_base_is_found_wherever_it_stands(family, lacks, more, expected, tmp_path):
    assert theta(load_model(family(tmp_path, lacks, **more))) == pytest.approx(expected, rel=1e-5)


def test_sizes_that_the_original_code_derives(tmp_path):
    derived = llada(tmp_path, lacks=["mlp_hidden_size", "n_kv_heads", "embedding_size"], mlp_ratio=2)
    with pytest.raises(ValueError, match=r"\(48, 32\) instead of \(64, 32\)"):  # 2 * d_model
        load_model(derived)
    tokens = torch.arange(9)[None]
    whole = load_model(llada(tmp_path))
    plain = load_model(llada(tmp_path, lacks=["n_kv_heads", "embedding_size"]))
    plain.load_state_dict(whole.state_dict())
    assert torch.equal(plain(tokens), whole(tokens))


@pytest.mark.parametrize(
    ("config", "generation", "tokenizer", "expected"),
    [
        (38, {}, {}, (38,)),
        (None, {}, {}, ()),
        ([38, 37], {}, {}, (38, 37)),
        ([38, 37], {"eos_token_id": [37, 36]}, {}, (38, 37, 36)),
        (None, {"eos_token_id": 36}, {}, (36,)),
        (38, {}, {"eos_token": "w36"}, (38, 36, 35)),
        (38, {}, {"eos_token": {"content": "<|eot_id|>"}}, (38, 35)),
        (None, {}, {"eos_token": "nowhere"}, (35,)),
    ],
)
def test_every_id_that_ends_a_text_is_found(config, generation, tokenizer, expected, tmp_path):
    folder = put(llada(tmp_path, eos_token_id=config), "generation_config.json", generation)
    put(folder, "tokenizer_config.json", tokenizer)
    if tokenizer:
        added = [
            {"id": 35, "content": "<|eot_id|>"},
            {"id": 70, "content": "<|im_end|>"},
        ]  # 70: no token here
        words = {f"w{i}": i for i in range(40) if i != 35}
        put(folder, "tokenizer.json", {"added_tokens": added, "model": {"vocab": words}})
    model = load_model(folder)
    assert model.eos_ids == expected
    assert model.eos_id == (expected[0] if expected else None)


def test_a_dream_tokenizer_says_where_a_turn_ends(tmp_path):
    folder = put(dream(tmp_path), "vocab.json", {f"w{i}": i for i in range(36)})
    decoder = {"36": {"content": "<|im_end|>"}, "38": {"content": "<|endoftext|>"}}
    put(folder, "tokenizer_config.json", {"eos_token": "<|endoftext|>", "added_tokens_decoder": decoder})
    assert load_model(folder).eos_ids == (38, 36)


def test_the_mask_may_stand_in_the_generation_config(tmp_path):
    folder = put(llada(tmp_path, lacks=["mask_token_id"]), "generation_config.json", {"mask_token_id": 39})
    assert load_model(folder).mask_id == 39
    put(llada(tmp_path), "generation_config.json", {"mask_token_id": 37})
    with pytest.raises(ValueError, match=r"^mask_token_id must be the same in both files.*39.*37"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["[]", "[" * 10**5, "{", "1" * 10**4], ids=["list", "deep", "cut", "long"])
def test_a_json_file_of_another_kind_is_named_with_its_folder(name, text, tmp_path):
    folder = llada(tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(
        ValueError, match=f"^{name} must be .* JSON.*; {folder / name} (is not: |holds a list)"
    ):
        load_model(folder)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("strategy", ["greedy", "adaptive", "pbs", "soar"])
def test_any_of_several_ends_stops_the_search(strategy, record, tmp_path):
    model = load_model(llada(tmp_path, eos_token_id=[38, 37]))
    logits = torch.zeros(32, 40)
    logits[:, 5] = 4.0 - torch.arange(32) / 16  # surest first: from left to right
    logits[4, 5], logits[4, 37] = 0.0, 8.0
    model.logits_at = lambda tokens, where, lengths: logits[where].clone()
    given = {"gen_length": 8, "threshold": 0.99, "beam": 1, "record": record}
    for wrapped in (model, Cached(model, "approximate-dual"), Timed(model)):
        assert eos_ids(wrapped) == (38, 37)
    trace = decode(model, [[3, 4]], strategy, **given)
    assert trace.sequences[0].tolist() == [3, 4, 5, 5, 37, 38, 38, 38, 38, 38]
    assert trace.calls[0] == 3
    on = decode(model, [[3, 4]], strategy, eos_early_stop=False, **given)
    assert on.sequences[0].tolist() == [3, 4, 5, 5, 37, 5, 5, 5, 5, 5]


@pytest.mark.parametrize("ids", [7, [9, 7], (7,)], ids=repr)
def test_a_model_of_ones_own_may_name_one_end_or_several(ids):
    def model(tokens):
        return torch.nn.functional.one_hot(torch.full_like(tokens, 7), 12) * 50.0

    model.eos_id = ids
    assert decode(model, [[3, 4]], "greedy", gen_length=8, mask_id=11).calls.tolist() == [1]
