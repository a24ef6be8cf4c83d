"""Word problems: parts, grading, tokens; lab/gsm's training goes on exactly and alike on two processes."""

import json
from decimal import Decimal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from two_processes import two_processes

from labkit.paths import CHECKPOINTS
from labkit.soar import load_model
from labkit.soar.generate import generate_batch
from labkit.studies import harness
from labkit.studies.soar import gsm_data, gsm_model, gsm_run, lab_model
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar.gsm_data import ANSWER, PROMPT
from labkit.studies.soar.gsm_problems import Problem


def problem(a, b, name="Tom", template=0):
    solution = f"{name} has {a} + {b} = {a + b} apples.\n#### {a + b}"
    return Problem(template, f"{name} has {a} apples and buys {b}. How many?", solution, str(a + b))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as gsm_data leaves it, of one template made here."""
    folder = tmp_path_factory.mktemp("gsm")
    made = [problem(a, b, name) for a in range(10, 22) for b in range(30, 42) for name in ("Tom", "Ann")]
    tokenizer = gsm_data.train_tokenizer(text for p in made for text in (p.question, p.solution))
    tokenizer.save(str(folder / "tokenizer.json"))
    pairs = [gsm_data.tokens(tokenizer, p) for p in made]
    np.savez(
        folder / "train.npz",
        tokens=np.concatenate([np.array(q + a, np.uint16) for q, a in pairs]),
        lengths=np.array([(len(q), len(a)) for q, a in pairs], np.uint8),
    )
    held = dict.fromkeys(gsm.PARTS[1:], made[:2])
    (folder / "gsm_problems.jsonl.gz").write_bytes(gsm.write_problems(held))
    return folder


def words(data, out, *more):
    given = {"gsm-data": data, "out": out, "width": 16, "layers": 1, "batch": 4, "judge": 2, "warmup": 2,
             "gsm-steps": 6, "exam-every": 100, "device": "cpu"}  # fmt: skip
    pairs = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    return ["--stages", "gsm", *pairs, *map(str, more)]


def train(data, out, *more):
    assert harness.run(lab_model.STUDY, words(data, out, *more)) == 0


def state(out):
    return load_file(out / "gsm-state" / "state.safetensors")


def test_a_part_is_decided_by_template_and_numbers_alone():
    for a in range(200):
        assert gsm.part_of(problem(a, 5)) == gsm.part_of(problem(a, 5, "Ann"))
    parts = [gsm.part_of(problem(a, b)) for a in range(100) for b in range(40)]
    share = {part: parts.count(part) / len(parts) for part in gsm.PARTS}
    assert share["templates-test"] == share["templates-validation"] == 0
    for part, wanted in {"validation": 0.02, "test": 0.03, "train": 0.95}.items():
        assert abs(share[part] - wanted) < 5 * (wanted * (1 - wanted) / len(parts)) ** 0.5
    unseen = {gsm.part_of(problem(a, 5, template=gsm.HELD_OUT_TEMPLATES[0])) for a in range(200)}
    assert unseen == {"templates-validation", "templates-test"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 6\n#### 1,234", "1234"),
        ("#### $18.50", "18.5"),
        ("#### -3", "-3"),
        ("#### 7.", "7"),
        ("#### 5\n#### 6", "5"),
        ("the answer is 5", None),
        ("####", None),
    ],
)
def test_the_number_behind_the_first_hashes_counts(text, number):
    assert gsm.final_number(text) == (None if number is None else Decimal(number))


def test_grading_compares_numbers_not_texts():
    asked = [problem(1, 2), problem(3, 4), problem(500, 734)]
    assert gsm.right(["#### 3.0", "3 + 4 = 7", "#### 1,234"], asked).tolist() == [True, False, True]


def test_tokens_are_single_digits_and_lead_back_to_the_text(data):
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    one = problem(123, 45)
    prompt, solution = gsm_data.tokens(tokenizer, one)
    pieces = [tokenizer.decode([token]) for token in prompt]
    assert [piece for piece in pieces if any(c.isdigit() for c in piece)] == list("12345")
    assert tokenizer.decode(prompt) == one.question
    assert tokenizer.decode(solution) == one.solution
    assert tokenizer.id_to_token(prompt[-1]) == "<answer>"
    assert gsm_data.tokens(tokenizer, Problem(0, "1" * PROMPT, "1", "1")) is None
    assert gsm_data.tokens(tokenizer, Problem(0, "1" * (PROMPT - 1), "1" * (ANSWER - 1), "1")) is not None


def test_a_row_is_prompt_solution_ends_of_text_and_padding(data):
    source = torch.Generator().manual_seed(0)
    rows, start, used = gsm_model.Problems(data / "train.npz", "cpu").draw(50, source)
    tokenizer = gsm_run.read_tokenizer(data)
    for row, begin, count in zip(rows.tolist(), start.tolist(), used.tolist(), strict=True):
        question, end = tokenizer.decode(row[: begin - 1]), begin + ANSWER
        name, a, b = (
            question.split()[0],
            *[int(word.strip(".")) for word in question.split() if word[0] in "1234"],
        )
        assert tokenizer.decode(row[begin : begin + count - 1]) == problem(a, b, name).solution
        assert set(row[begin + count - 1 : end]) == {gsm_model.EOS}
        assert set(row[end:]) == {gsm_model.PAD}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_calls_end_where_one_does(optimizer, data, tmp_path, monkeypatch):
    more = ("--optimizer", optimizer)
    train(data, tmp_path / "one", *more)
    monkeypatch.setattr(gsm_run, "LOOK_EVERY", 1)
    late = gsm_run._late
    monkeypatch.setattr(gsm_run, "_late", lambda context, run, device: run.step == 3)
    train(data, tmp_path / "two", *more)
    assert json.loads((tmp_path / "two" / "gsm-state" / "state.json").read_text())["step"] == 3
    monkeypatch.setattr(gsm_run, "_late", late)
    train(data, tmp_path / "two", *more, "--again")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(
        one["model.net.lm_head.weight"], torch.zeros_like(one["model.net.lm_head.weight"])
    )


def test_two_processes_take_the_mean_of_their_gradients(data, tmp_path, monkeypatch):
    """gloo, against two gradients averaged by hand in one process."""
    more = ("--gsm-steps", "1")
    two_processes(lambda: train(data, tmp_path / "two", *more) or 0, tmp_path / "log")
    monkeypatch.setattr(gsm_model, "CLIP", float("inf"))  # here the mean is clipped by hand
    gradients = []
    for rank in (0, 1):
        torch.manual_seed(0)
        model = gsm_model.new_model(16, 1, len(gsm_run.read_tokenizer(data)), "cpu")
        kept = _Keep(model)
        problems = gsm_model.Problems(data / "train.npz", "cpu")
        gsm_model.train_step(gsm_model.Run(model, [kept], problems, 2, rank, 1, 0), 1.0, 0.0)
        gradients.append(kept.gradients)
    means = [(a + b) / 2 for a, b in zip(*gradients, strict=True)]
    length = sum(mean.square().sum() for mean in means).sqrt()
    found = state(tmp_path / "two")
    for index, mean in enumerate(means):
        wanted = (1 - 0.9) * mean / max(1, length)  # AdamW's first moment after a step
        torch.testing.assert_close(found[f"0.{index}.exp_avg"], wanted, rtol=1e-4, atol=1e-7)
    assert not torch.equal(gradients[0][0], gradients[1][0])


class _Keep:
    """Stands where an optimiser does and keeps the gradients."""

    param_groups: tuple = ()

    def __init__(self, model):
        self.model = model

    def step(self):
        self.gradients = [p.grad.clone() for p in self.model.parameters()]

    def zero_grad(self, set_to_none):
        pass


def test_what_is_left_loads_and_solves_what_its_card_says(data, tmp_path):
    train(data, tmp_path)
    card = json.loads((tmp_path / "gsm" / "card.json").read_text())
    model = load_model(tmp_path / "gsm", dtype=torch.bfloat16)
    asked = gsm.read_problems(data / "gsm_problems.jsonl.gz")["validation"]
    assert gsm_run.solves(model, model.tokenizer, asked) == card["greedy_on_validation"]
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert (tmp_path / "gsm_training.npz").exists()
    assert not model.shift


@pytest.mark.parametrize(("name", "least", "most"), [("gsm", 0.75, 1), ("gsm-early", 0.15, 0.85)])
def test_a_shipped_model_comes_with_its_card_and_can_do_what_it_says(name, least, most):
    folder = CHECKPOINTS / name
    card = json.loads((folder / "card.json").read_text())
    model = load_model(f"lab/{name}")
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]
    assert all(file.stat().st_size < 16e6 for file in folder.iterdir())
    asked = gsm.load_problems("test", 8)
    options = {"block_length": 32, "gen_length": ANSWER, "threshold": 0.9, "record": False}
    found = generate_batch(model, [problem.question for problem in asked], "fast_dllm", **options)
    solved = gsm.right([one.text for one in found], asked).mean()
    assert least <= solved <= most
    if name == "gsm":
        assert card["greedy_on_validation"] >= 0.7 > 0.1 > card["greedy_on_unseen_templates"]


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert harness.run(lab_model.STUDY, ["--stages", "gsm", "--out", str(tmp_path), "--device", "cpu"]) == 1
    assert "--gsm-data must be" in capsys.readouterr().err


def test_reasoning_gyms_problems_are_right_by_our_grading():
    pytest.importorskip("reasoning_gym", reason="extra tasks")
    for template in gsm.templates():
        made = list(gsm.problems(template, range(5)))
        assert gsm.right([one.solution for one in made], made).all()
        assert made == list(gsm.problems(template, range(5)))


def test_the_shipped_problems_are_held_out_and_right():
    for part in gsm.PARTS[1:]:
        found = gsm.load_problems(part)
        assert len({one.question for one in found}) == len(found) >= 300
        assert {gsm.part_of(one) for one in found} == {part}
        assert gsm.right([one.solution for one in found], found).all()
        assert gsm.load_problems(part, 5) == found[:5]
    with pytest.raises(ValueError, match="count must be an integer between 1 and"):
        gsm.load_problems("test", 10**6)
