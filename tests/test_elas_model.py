"""Low-rank layers, the switchable 2:4 activation, and the Llama built from them."""

import pytest
import torch
from torch import nn

from labkit.elas import ElasConfig, ElasForCausalLM, LowRankLinear, Sparse24ReLU2, saved_bytes
from labkit.elas.ffn import build_mlp

# elas.md (c, d): parameters in millions, as published by LORO and recomputed from GaLore's configs
COUNTS = [
    ("60m", {"rank": None, "ffn": "swiglu"}, 58.07),
    ("130m", {"rank": None, "ffn": "swiglu"}, 134.11),
    ("350m", {"rank": None, "ffn": "swiglu"}, 367.97),
    ("1b", {"rank": None, "ffn": "swiglu"}, 1339.08),
    ("60m", {"ffn": "swiglu"}, 42.77),
    ("130m", {"ffn": "swiglu"}, 94.00),
    ("350m", {"ffn": "swiglu"}, 185.22),
    ("1b", {"ffn": "swiglu"}, 609.31),
    ("60m", {}, 42.25),
    ("130m", {}, 91.64),
    ("350m", {}, 178.93),
    ("1b", {}, 584.13),
]


def tiny(**options) -> ElasForCausalLM:
    options = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
    } | options
    return ElasForCausalLM(ElasConfig.from_name("tiny", **{"rank": 4} | options))


@pytest.mark.parametrize(("name", "options", "millions"), COUNTS)
def test_parameter_counts_are_the_published_ones(name, options, millions):
    with torch.device("meta"):
        model = ElasForCausalLM(ElasConfig.from_name(name, **options))
    assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.005


def test_low_rank_linear_is_its_dense_weight():
    layer = LowRankLinear(12, 7, rank=3, dtype=torch.float64)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.dense_weight()))
    assert layer.weight_out.shape == (7, 3)
    assert layer.weight_in.shape == (12, 3)


def test_low_rank_start_has_the_stated_variance():
    layer = LowRankLinear(500, 300, rank=100)
    assert layer.weight_out.var().item() == pytest.approx(2 / 400, rel=0.05)
    assert layer.weight_in.var().item() == pytest.approx(2 / 600, rel=0.05)
    assert layer.dense_weight().var().item() == pytest.approx(4 * 100 / (400 * 600), rel=0.1)


@pytest.mark.parametrize("rank", [0, 8, 2.0, True])
def test_low_rank_refuses_a_bad_rank(rank):
    with pytest.raises(ValueError, match=r"rank must be an integer between 1 and 7"):
        LowRankLinear(12, 7, rank=rank)


def test_relu2_24_truth_table():
    x = torch.tensor([[1.0, -5.0, 2.0, 3.0, -1.0, -2.0, 0.5, -3.0, 2.0, 2.0, 2.0, 2.0]])
    y = torch.tensor([[0.0, 0.0, 4.0, 9.0, 0.0, 0.0, 0.25, 0.0, 4.0, 4.0, 0.0, 0.0]])
    assert torch.equal(Sparse24ReLU2()(x), y)
    assert torch.equal(Sparse24ReLU2(sparse=False)(x), x.relu() ** 2)


def test_gradients_ste_and_masked():
    x = torch.tensor([1.0, -5.0, 2.0, 3.0], requires_grad=True)  # the 1 is positive and dropped
    up = torch.tensor([1.0, 1.0, 10.0, 100.0])
    Sparse24ReLU2("ste")(x).backward(up)
    assert x.grad.tolist() == [2.0, 0.0, 40.0, 600.0]
    x.grad = None
    Sparse24ReLU2("masked")(x).backward(up)
    assert x.grad.tolist() == [0.0, 0.0, 40.0, 600.0]


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_a_last_group_of_fewer_than_four(width):
    x = torch.rand(3, width) + 0.1
    assert (Sparse24ReLU2()(x) != 0).sum(-1).tolist() == [width // 4 * 2 + min(width % 4, 2)] * 3


def test_nan_survives():
    assert (
        Sparse24ReLU2()(torch.tensor([float("nan"), 1.0, 2.0, 3.0])).isnan().tolist()
        == [True] + [False] * 3
    )


def test_the_warm_up_counts_optimiser_steps_not_forwards():
    layer = Sparse24ReLU2(warmup_steps=2)
    x = torch.rand(2, 8) + 0.1
    dense = x**2
    for _ in range(5):  # gradient accumulation, evaluation, checkpointing: forwards do not count
        assert torch.equal(layer(x), dense)
    layer.advance()
    assert not layer.sparse
    layer.advance()
    assert layer.sparse
    assert (layer(x) == 0).sum() == 8
    layer.advance()
    assert layer.dense_steps_left == 0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_switch_is_part_of_the_state(steps):
    trained, fresh = Sparse24ReLU2(warmup_steps=3), Sparse24ReLU2(warmup_steps=1)
    x = torch.rand(2, 8)
    fresh(x)  # fills the cached switch, which loading has to forget
    for _ in range(steps):
        trained.advance()
    fresh.load_state_dict(trained.state_dict())
    assert fresh.sparse == trained.sparse == (steps == 3)
    assert torch.equal(fresh(x), trained(x))


def test_set_sparse_overrides_the_warm_up():
    layer = Sparse24ReLU2(warmup_steps=10)
    layer.set_sparse(True)
    assert layer.sparse
    layer.set_sparse(False)
    layer.advance()
    assert not layer.sparse


@pytest.mark.parametrize("steps", [0, 2])
def test_a_saved_model_evaluates_as_before(tmp_path, steps):
    model = tiny(warmup_steps=2)
    for _ in range(steps):
        model.advance()
    tokens = torch.randint(64, (2, 9))
    model.save_pretrained(tmp_path)
    loaded = ElasForCausalLM.from_pretrained(tmp_path)
    assert loaded.activations()[0].sparse == (steps == 2)
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    own = {name: getattr(model.config, name) for name in ElasConfig.__annotations__}
    assert {name: getattr(loaded.config, name) for name in own} == own


@pytest.mark.parametrize("gradient", ["ste", "masked"])
@pytest.mark.parametrize("options", [{}, {"rank": None}, {"intermediate_size": 27}], ids=str)
def test_packed_ffn_equals_the_dense_one(gradient, options):
    plain = tiny(gradient=gradient, warmup_steps=0, **options).double()
    packed = tiny(gradient=gradient, warmup_steps=0, packed=True, **options).double()
    packed.load_state_dict(plain.state_dict())
    tokens = torch.randint(64, (2, 9))
    losses = [model(tokens, labels=tokens).loss for model in (plain, packed)]
    torch.testing.assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    for (name, a), b in zip(plain.named_parameters(), packed.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=name)


def test_rank_and_mlp_rank_reach_every_projection():
    ffn = {"up_proj", "down_proj", "gate_proj"}
    for options in ({}, {"ffn": "swiglu"}):
        model = tiny(rank=4, mlp_rank=3, **options)
        ranks = {n: m.rank for n, m in model.named_modules() if isinstance(m, LowRankLinear)}
        assert len(ranks) == 2 * (6 if not options else 7)
        assert all(rank == (3 if name.split(".")[-1] in ffn else 4) for name, rank in ranks.items())
        dense = [n for n, m in model.named_modules() if type(m) is nn.Linear]
        assert dense == ["lm_head"]


def test_generates():
    out = tiny(warmup_steps=0).generate(torch.tensor([[1, 5, 7]]), max_new_tokens=4, do_sample=False)
    assert out.shape[1] > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be an integer between 1 and 96; got 0"),
        ({"ffn": "gelu"}, "ffn must be one of 'relu2', 'swiglu'; got 'gelu'"),
        ({"gradient": "soft"}, "gradient must be one of 'ste', 'masked'; got 'soft'"),
        ({"warmup_steps": -1}, "warmup_steps must be an integer >= 0; got -1"),
        ({"sparse": True, "ffn": "swiglu"}, "sparse must be False with ffn='swiglu'"),
        ({"packed": True, "sparse": False}, "packed must be False where sparse is False"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer >= 1; got 0"),
        ({"intermediate_size": -4}, "intermediate_size must be an integer >= 1; got -4"),
        ({"vocab_size": 0}, "vocab_size must be an integer >= 1; got 0"),
        ({"sparse": "yes"}, "sparse must be one of None, True, False; got 'yes'"),
        ({"packed": "no"}, "packed must be one of True, False; got 'no'"),
        ({"recompute": True, "packed": True}, "recompute must be False with packed=True or ffn='swiglu'"),
        ({"num_attention_heads": 7}, "num_attention_heads must be a divisor of 96; got 7"),
        ({"rank": None, "mlp_rank": 3}, "mlp_rank must be None where rank is None; got 3"),
        ({"rnak": 3}, "option must be one of .*'rank'.*; got 'rnak'"),
        ({"hidden_size": "a"}, "'hidden_size' expected int, got str"),
    ],
)
def test_a_bad_option_is_one_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        ElasConfig.from_name("tiny", **options)


def test_an_unknown_name_is_refused_by_the_class_too():
    with pytest.raises(ValueError, match="option must be one of .*'rank'.*; got 'rnak'"):
        ElasConfig(rnak=3)


def test_unknown_size():
    with pytest.raises(ValueError, match="name must be one of '60m', .*; got '7b'"):
        ElasConfig.from_name("7b")


@pytest.mark.parametrize(
    "options", [{}, {"sparse": False}, {"rank": None}], ids=["masked", "dense", "full rank"]
)
def test_recomputing_changes_neither_output_nor_gradients_and_keeps_narrow_tensors_only(options):
    config = ElasConfig.from_name("tiny", warmup_steps=0, **options)
    mlp, x = build_mlp(config), torch.randn(2, 7, 96, requires_grad=True)
    plain = mlp(x)
    grads = torch.autograd.grad(plain.square().sum(), [x, *mlp.parameters()])
    kept = saved_bytes(mlp, x)
    mlp.recompute = True
    again = mlp(x)
    assert torch.equal(again, plain)
    for a, b in zip(torch.autograd.grad(again.square().sum(), [x, *mlp.parameters()]), grads, strict=True):
        torch.testing.assert_close(a, b)
    narrow = 4 * 14 * (96 + 24 + 24) if config.rank else 4 * 14 * 96
    assert saved_bytes(mlp, x) == narrow < kept


def test_casting_leaves_the_rotary_frequencies_in_float32():
    net = ElasForCausalLM(ElasConfig.from_name("tiny", num_hidden_layers=1))
    before = net.model.rotary_emb.inv_freq.clone()
    assert net.to_dtype(torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(net.model.rotary_emb.inv_freq, before)
