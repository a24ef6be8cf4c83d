"""The dense warm-up counts optimiser steps by itself, and no copy of a model keeps an old switch."""

import copy
import pickle

import pytest
import torch
from torch.optim import SGD, AdamW
from transformers import Trainer, TrainingArguments

from labkit.elas import ElasConfig, ElasForCausalLM, Sparse24ReLU2

TOKENS = torch.arange(18).reshape(2, 9)


def tiny(warmup_steps: int, **options) -> ElasForCausalLM:
    options = {"vocab_size": 64, "num_hidden_layers": 2} | options
    return ElasForCausalLM(ElasConfig.from_name("tiny", warmup_steps=warmup_steps, **options))


def left(model: ElasForCausalLM) -> list[int]:
    return [int(activation.dense_steps_left) for activation in model.activations()]


def backward(model: torch.nn.Module) -> None:
    model(TOKENS, labels=TOKENS).loss.backward()


class Subclass(AdamW):
    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize(
    "optimizer",
    [lambda p: AdamW(p, fused=True), lambda p: SGD(p, lr=0.1), Subclass],
    ids=["fused", "foreach", "a step within a step"],
)
def test_a_loop_of_ones_own_counts_each_step_once(optimizer):
    model, other = tiny(2), tiny(2)
    chosen = optimizer(model.parameters())
    for expected in (1, 0, 0):
        for _ in range(3):  # accumulation: one step
            backward(model)
        chosen.step()
        chosen.zero_grad()
        assert left(model) == [expected] * 2
    assert model.activations()[0].sparse
    assert left(other) == [2, 2]


def test_a_model_without_storage_does_not_stop_another_ones_steps():
    with torch.device("meta"):
        skeleton = tiny(2)
    model = tiny(2)
    backward(model)
    SGD(model.parameters(), lr=0.1).step()
    assert left(model) == [1, 1]
    assert skeleton.activations()[0].dense_steps_left.is_meta


def test_optimisers_that_share_out_the_parameters_make_one_step():
    model = tiny(5)
    parameters = list(model.parameters())
    optimizers = [SGD(parameters[:3], lr=0.1), AdamW(parameters[3:])]
    for _ in range(3):
        backward(model)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert left(model) == [2, 2]


def test_a_step_that_is_also_counted_by_hand_counts_once():
    model = tiny(5)
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        backward(model)
        optimizer.step()
        model.advance()
    assert left(model) == [2, 2]
    model.advance()
    assert left(model) == [1, 1]


def test_a_step_without_gradients_does_not_count():
    model = tiny(2)
    SGD(model.parameters(), lr=0.1).step()
    assert left(model) == [2, 2]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_transformers_trainer_counts(tmp_path, accumulation):
    model = tiny(3)
    rows = [{"input_ids": torch.arange(16), "labels": torch.arange(16)}] * 8
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, gradient_accumulation_steps=accumulation, report_to=[], use_cpu=True,
        per_device_train_batch_size=1, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert left(model) == [1, 1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_counts_its_own_steps(copied):
    model = tiny(2)
    optimizer = SGD(model.parameters(), lr=0.1)
    backward(model)
    optimizer.step()
    twin = copied(model)
    assert left(twin) == [1, 1]
    optimizer = SGD(twin.parameters(), lr=0.1)
    backward(twin)
    optimizer.step()
    assert (left(twin), left(model)) == ([0, 0], [1, 1])
    assert twin.activations()[0].sparse
    assert not model.activations()[0].sparse


def _by_state_dict(target, source):
    for name, value in target.state_dict().items():
        value.copy_(source.state_dict()[name])


def _by_data(target, source):
    for old, new in zip(target.buffers(), source.buffers(), strict=True):
        old.data.copy_(new.data)


def _by_replacing(target, source):
    for name, buffer in source.named_buffers():
        setattr(target, name, buffer.clone())


@pytest.mark.parametrize("write", [_by_state_dict, _by_data, _by_replacing])
@pytest.mark.parametrize("to_mask", [True, False])
def test_a_switch_written_in_place_is_the_switch(write, to_mask):
    source, target = Sparse24ReLU2(), Sparse24ReLU2()
    source.set_sparse(to_mask)
    target.set_sparse(not to_mask)
    x = torch.rand(2, 8) + 0.1
    target(x)
    write(target, source)
    assert target.sparse == to_mask
    assert torch.equal(target(x), source(x))


def test_a_swa_average_follows_the_switch():
    model = tiny(1)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    average(TOKENS)
    optimizer = SGD(model.parameters(), lr=0.0)
    backward(model)
    optimizer.step()
    average.update_parameters(model)
    assert torch.equal(average(TOKENS).logits, model(TOKENS).logits)
    assert average.module.activations()[0].sparse


def test_a_compiled_model_takes_the_turn_of_the_mask():
    model = tiny(1)
    compiled = torch.compile(model, backend="eager", dynamic=False)
    optimizer = SGD(model.parameters(), lr=0.1)
    for on in (False, True):
        assert model.activations()[0].sparse == on
        assert torch.equal(compiled(TOKENS).logits, model(TOKENS).logits)
        backward(compiled)
        optimizer.step()
