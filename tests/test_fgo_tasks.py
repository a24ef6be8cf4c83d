"""The verbose sums, the character model and sampled groups."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.fgo.advantages import fgo_advantages, grpo_advantages
from labkit.fgo.lab import reasoner
from labkit.fgo.lab.groups import reweigh, sample_sums, telling_group
from labkit.fgo.measures import act, entropy_per_token, response_entropy
from labkit.fgo.tasks import CHARACTERS, char_tokenizer, is_correct, sum_reward, verbose_sums
from labkit.studies.fgo import teaching
from labkit.traces import GroupTrace


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return reasoner.build_char_model(hidden=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def trace(model):
    return sample_sums(model, verbose_sums(3), group=4, max_tokens=12)


def test_without_slips_every_line_is_a_true_sum():
    for row in verbose_sums(200, slip=0.0):
        digits = row["prompt"].strip("Q=").split("+")
        assert row["answer"] == str(sum(map(int, digits)))
        assert is_correct(row["completion"], row["answer"])
        for line in row["completion"].split(";")[:-1]:
            left, result = line.lstrip("c").split("=")
            assert sum(map(int, left.split("+"))) == int(result)


def test_slips_and_repairs_happen_at_their_rates():
    rows = verbose_sums(4000, operands=(2, 2), slip=1.0, repair=0.8)
    first = [row["completion"].split(";")[0] for row in rows]
    assert all(eval(line.split("=")[0]) != int(line.split("=")[1]) for line in first)
    right = np.mean([is_correct(row["completion"], row["answer"]) for row in rows])
    # 0 to 3 checks, each repairs with 0.8: wrong stays with mean(0.2 ** n) = 0.312
    assert right == pytest.approx(1 - 0.312, abs=0.03)
    never = verbose_sums(200, operands=(2, 2), slip=1.0, repair=0.0)
    assert not any(is_correct(row["completion"], row["answer"]) for row in never)


def test_rows_depend_on_the_seed_alone():
    assert verbose_sums(20, seed=3) == verbose_sums(20, seed=3) != verbose_sums(20, seed=4)
    # `random` promises its floats from one Python to the next, not its integers (3.11 to 3.13 agree)
    rows = json.dumps(verbose_sums(500, seed=3)).encode()
    assert hashlib.sha256(rows).hexdigest().startswith("e9bee3281eb25e61")


def test_splits_share_no_question_and_digits_bound_the_numbers():
    parts = {split: verbose_sums(300, digits=2, split=split) for split in ("train", "test")}
    train, test = ({row["prompt"] for row in rows} for rows in parts.values())
    assert not train & test
    numbers = [int(n) for prompt in train | test for n in prompt.strip("Q=").split("+")]
    assert (min(numbers), max(numbers)) == (1, 99)


VERDICTS = [
    ("8+4=12;A12$", "12", True),
    ("A12", "12", True),
    ("8+4=12;A12", "1", False),
    ("8+4=12;A1", "12", False),
    ("8+4=12;", "12", False),
    ("", "12", False),
    ("A12$$", "12", False),
    ("A12;A13$", "13", False),  # two claims
    ("A13;A13$", "13", False),
    ("A12;8", "12", False),  # goes on after the answer
    ("A012", "12", False),
]


@pytest.mark.parametrize(("completion", "answer", "verdict"), VERDICTS)
def test_scorer(completion, answer, verdict):
    assert is_correct(completion, answer) is verdict
    assert sum_reward([completion], [answer], prompts=["Q"]) == [1.0 if verdict else -1.0]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=CHARACTERS[3:], max_size=30))
def test_tokenizer_is_one_token_per_character_and_round_trips(text):
    tokenizer = char_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_tokenizer_ends_pads_left_and_drops_specials():
    tokenizer = char_tokenizer()
    batch = tokenizer(["A1$", "A1x"], padding="max_length", max_length=5)
    assert tokenizer.decode(batch["input_ids"][0]) == "__A1$"
    assert tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True) == "A1"
    assert batch["input_ids"][1][-1] == tokenizer.unk_token_id
    assert tokenizer.eos_token == "$"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verbose_sums(0), "count must be an integer >= 1; got 0"),
        (lambda: verbose_sums(1, operands=(4, 2)), "operands must be an integer >= 4; got 2"),
        (
            lambda: verbose_sums(1, operands=3),
            "operands must be two integers, the least and the greatest number of operands; got 3",
        ),
        (lambda: verbose_sums(1, digits=0), "digits must be an integer between 1 and 6; got 0"),
        (lambda: verbose_sums(1, split="dev"), "split must be one of 'all', 'train', 'test'; got 'dev'"),
        (lambda: verbose_sums(1, slip=1.5), "slip must be a number in [0, 1]; got 1.5"),
        (
            lambda: reasoner.build_char_model(hidden=60),
            "hidden must be a multiple of 2 * heads = 8; got 60",
        ),
        (lambda: teaching.Recipe(target=70), "target must be a number in [0, 1]; got 70"),
        (lambda: teaching.Recipe(seed=-1), "seed must be an integer >= 0; got -1"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        call()
    assert str(error.value) == message


# Character model

SMALL = {"hidden": 16, "layers": 1, "heads": 2, "progress": False}


def test_labels_cover_the_completion_and_nothing_else():
    rows = verbose_sums(5)
    ids, labels = teaching._batch(rows)
    for row, line in zip(rows, labels.tolist(), strict=True):
        assert "".join(CHARACTERS[i] for i in line if i != -100) == row["completion"]
    assert ids.shape == labels.shape


def test_backward_adds_the_gradient_of_the_mean_token_loss(model):
    rows = verbose_sums(7)
    loss = teaching._backward(model, rows)
    halves = model.lm_head.weight.grad.clone()
    model.zero_grad()
    ids, labels = teaching._batch(rows)
    whole = torch.nn.functional.cross_entropy(
        model(input_ids=ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    )
    whole.backward()
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(halves, model.lm_head.weight.grad, atol=1e-6, rtol=1e-4)
    model.zero_grad()


def test_training_learns_and_repeats():
    recipe = teaching.Recipe(max_steps=12, batch=8)
    state = torch.get_rng_state()
    first, log = teaching.train_char_model(recipe, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    again, _ = teaching.train_char_model(recipe, **SMALL)
    other, _ = teaching.train_char_model(dataclasses.replace(recipe, seed=1), **SMALL)
    losses = log.curve("loss")[1]
    assert losses[-1] < losses[0]
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_a_run_ends_at_the_first_exam_after_its_time():
    settings = {"exam_every": 1, "exam_from": 1, "exam_questions": 2, "max_tokens": 4}
    recipe = teaching.Recipe(max_steps=4, batch=2, **settings)
    assert len(teaching.train_char_model(recipe, **SMALL, seconds=0)[1].step) == 1
    assert len(teaching.train_char_model(recipe, **SMALL)[1].step) == 4


def test_training_stops_at_the_target():
    recipe = teaching.Recipe(target=0.0, max_steps=80, batch=4)
    _, log = teaching.train_char_model(recipe, **SMALL)
    assert log.step[-1] == 40  # the first look, half-way
    assert len(log.curve("accuracy")[1]) == 1


# Groups


def test_three_entropies_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.9], [1.0, 1.0, 0.1]])
    full = torch.tensor([[0.7, 0.6, float("nan")], [0.0, -1e-7, 0.3]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    kinds = response_entropy(p.log(), full, mask)
    by_hand = -(0.5 * np.log(0.5) + 0.25 * np.log(0.25))
    assert kinds["sampled_sum"].tolist() == pytest.approx([by_hand, 0.0])
    assert kinds["full_sum"].tolist() == pytest.approx([1.3, 0.0])
    assert kinds["full_mean"].tolist() == pytest.approx([0.65, 0.0])
    length = mask.sum(1) + torch.tensor([0, 3])
    assert entropy_per_token(kinds["full_sum"], length).item() == pytest.approx(1.3 / 7)
    by_row = entropy_per_token(kinds["full_sum"][:, None], length[:, None], (1,))
    assert by_row.tolist() == pytest.approx([0.65, 0.0])
    assert act(0.5, 25) == 200.0  # 50 % in 25 tokens


def test_sampled_groups_agree_with_the_model_row_by_row(model, trace):
    tokenizer = char_tokenizer()
    assert trace.correct.shape == trace.length.shape == (3, 4)
    for q, prompt in enumerate(trace.prompts):
        for g, text in enumerate(trace.texts[q]):
            assert trace.length[q, g] == len(text) <= 12
            assert "$" not in text[:-1]
            assert trace.correct[q, g] == is_correct(text.removesuffix("$"), trace.answers[q])
            ids = torch.tensor([tokenizer(prompt + text)["input_ids"]])  # alone, without any padding
            logp = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            chosen = logp.gather(1, ids[0, len(prompt) :, None]).squeeze(1)
            assert trace.entropy["sampled_sum"][q, g] == pytest.approx(
                -(chosen.exp() * chosen).sum().item(), abs=1e-4
            )
            full = -(logp.exp() * logp).sum().item()
            assert trace.entropy["full_sum"][q, g] == pytest.approx(full, rel=1e-4)
            assert trace.entropy["full_mean"][q, g] == pytest.approx(full / len(text), rel=1e-4)


def test_sampling_repeats_with_its_seed_and_leaves_the_random_state(model, trace):
    state = torch.get_rng_state()
    again, other = (
        sample_sums(model, verbose_sums(3), group=4, max_tokens=12, seed=seed) for seed in (0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert again.texts == trace.texts != other.texts


def test_reweigh_uses_the_entropy_it_is_told(trace, tmp_path):
    loaded = GroupTrace.load(trace.save(tmp_path / "groups.npz"))
    made_up = np.arange(12).reshape(3, 4) % 2 == 0
    loaded.correct = made_up
    for kind in ("sampled_sum", "full_sum", "full_mean"):
        out = reweigh(loaded, entropy=kind, alpha=0.5, beta=0.7, clamp=4.0)
        expected = fgo_advantages(
            torch.tensor(made_up), torch.tensor(trace.length), torch.tensor(trace.entropy[kind]),
            alpha=0.5, beta=0.7, clamp=4.0,
        )  # fmt: skip
        assert np.array_equal(out.advantages["fgo"], expected.numpy())
        assert out.meta["settings"]["entropy"] == kind
    plain = grpo_advantages(torch.tensor(made_up).float() * 2 - 1)
    np.testing.assert_allclose(out.advantages["grpo"], plain.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="entropy must be one of"):
        reweigh(loaded, entropy="mean")


def test_telling_group_prefers_even_then_contrast():
    trace = GroupTrace(
        prompts=["a", "b", "c"], answers=["1"] * 3, texts=[["x"] * 4] * 3,
        correct=np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]], bool),
        length=np.ones((3, 4), int),
        advantages={"fgo": np.array([[9, -9, 0, 0], [0.3, 0.2, 0, 0], [0.5, 0.1, 0, 0]])},
    )  # fmt: skip
    assert telling_group(trace) == 2


def test_sample_sums_refuses_rows_without_answer(model):
    with pytest.raises(ValueError, match="rows must be at least one dict, each with prompt and answer"):
        sample_sums(model, [{"prompt": "Q1+1="}])
