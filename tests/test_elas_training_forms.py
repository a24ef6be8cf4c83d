"""ELAS models in other hands: torch.compile, PEFT, autocast, gradient checkpointing, FSDP2."""

import copy

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD
from two_processes import two_processes

from labkit.elas import ElasConfig, ElasForCausalLM, Loro

TOKENS = torch.arange(18).reshape(2, 9)
FACTORS = [f"{layer}_proj.weight_{side}" for layer in ("up", "down") for side in ("in", "out")]


def tiny(**options) -> ElasForCausalLM:
    options = {"vocab_size": 64, "num_hidden_layers": 2, "warmup_steps": 0} | options
    torch.manual_seed(0)
    return ElasForCausalLM(ElasConfig.from_name("tiny", **options))


def gradients(model: torch.nn.Module, called=None) -> list[torch.Tensor]:
    model.zero_grad()
    (model if called is None else called)(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize(
    "options",
    [{}, {"recompute": True}, {"intermediate_size": 30}, {"packed": True}, {"packed": True, "rank": None}],
    ids=str,
)
@pytest.mark.parametrize("gradient", ["ste", "masked"])
def test_the_mask_compiles_into_one_graph(gradient, options):
    torch.compiler.reset()
    model = tiny(gradient=gradient, num_hidden_layers=1, **options)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(TOKENS).logits, model(TOKENS).logits)
    for a, b in zip(gradients(model, compiled), gradients(model), strict=True):
        torch.testing.assert_close(a, b)


def test_inductor_takes_the_mask():
    torch.compiler.reset()
    model = tiny(num_hidden_layers=1)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(TOKENS).logits, model(TOKENS).logits)


def test_a_warm_up_compiles_anew_at_its_end_and_not_at_every_step():
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    model = tiny(warmup_steps=12, num_hidden_layers=1)
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    optimizer = SGD(model.parameters(), lr=0.1)
    counts = []
    for _ in range(14):  # torch gives up after 8 recompilations
        compiled(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        counts.append(counter.frame_count)
    assert counts[1:12] == [counts[1]] * 11
    assert counts[12:] == [counts[1] + 1] * 2


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("options", [{}, {"packed": True}, {"packed": True, "gradient": "masked"}], ids=str)
def test_gradient_checkpointing_changes_no_gradient(options, reentrant):
    model = tiny(**options).train()
    expected = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), expected, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"rank": None}, {"packed": True}, {"rank": None, "packed": True, "gradient": "masked"}],
    ids=str,
)
def test_under_autocast_the_ffn_computes_in_sixteen_bits(options):
    model, seen = tiny(**options), set()
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda _m, _x, y: seen.add(y.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(TOKENS, labels=TOKENS).loss
    loss.backward()
    assert seen == {torch.bfloat16}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "form",
    [{}, {"packed": True}, {"packed": True, "gradient": "masked"}, {"recompute": True}],
    ids=["plain", "packed", "fused", "recompute"],
)
@pytest.mark.parametrize("rank", [None, 24])
def test_peft_adapts_every_form_of_the_ffn(form, rank):
    """Low-rank layers by the names of their factors; against the same adapters on the plain form."""
    where = {"target_modules": ["up_proj", "down_proj"]} if rank is None else {"target_parameters": FACTORS}
    config = LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False, **where)
    same = {"gradient": form.get("gradient", "ste"), "rank": rank}
    plain = get_peft_model(tiny(**same), copy.deepcopy(config))
    model = get_peft_model(tiny(**form, rank=rank), config)
    model.load_state_dict(plain.state_dict())
    assert not torch.allclose(model(TOKENS).logits, tiny(**same)(TOKENS).logits)
    losses = [m(TOKENS, labels=TOKENS).loss for m in (model, plain)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    trained = [
        (a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True) if a.requires_grad
    ]
    assert all(a.grad.any() for a, _ in trained)
    for a, b in trained:
        torch.testing.assert_close(a.grad, b.grad)
    logits = model(TOKENS).logits
    torch.testing.assert_close(model.merge_and_unload()(TOKENS).logits, logits)


def _sharded(folder) -> int:
    """What a process of FSDP2 does: three steps of Loro on its row, an exact one and the mask after two."""
    dist.init_process_group("gloo")
    model, rank = tiny(warmup_steps=2), dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    _three_steps(model, TOKENS[rank : rank + 1])
    assert [int(a.dense_steps_left) for a in model.activations()] == [0, 0]
    whole = {name: p.full_tensor() for name, p in model.named_parameters()}
    if rank == 0:
        torch.save(whole, folder / "sharded.pt")
    dist.destroy_process_group()
    return 0


def _three_steps(model, tokens):
    optimizer = Loro.for_model(model, lr=0.02, exact_every=2)
    for step in range(3):
        assert model.activations()[0].sparse == (step == 2)
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_fsdp2_trains_as_one_process_does_and_counts_its_steps(tmp_path):
    two_processes(lambda: _sharded(tmp_path), tmp_path / "log")
    model = tiny(warmup_steps=2)
    _three_steps(model, TOKENS)
    sharded = torch.load(tmp_path / "sharded.pt")
    for name, p in model.named_parameters():
        # Adam divides by a gradient's size: rounding moves a weight by 1e-4 where it moved by .06 to .9
        torch.testing.assert_close(sharded[name], p.detach(), rtol=0, atol=3e-4, msg=name)
