"""labkit eval: rows in the benchmarks' shapes, responses, measures by hand, the printed table."""

import json

import numpy as np
import pytest
import torch
from test_fgo_options import GSM8K

from labkit.__main__ import main
from labkit.fgo.lab.reasoner import build_char_model
from labkit.fgo.measures import with_intervals
from labkit.fgo.rewards import answer_reward
from labkit.fgo.tasks import char_tokenizer, verbose_sums
from labkit.studies.fgo.benchmarks import BENCHMARKS, load_benchmark
from labkit.studies.fgo.responses import Responses, Sampling, examine, respond


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_char_model(hidden=16, layers=1, heads=2)


def test_measures_and_intervals_by_hand():
    """Three questions, two responses: means .5, 1, 0 and 10, 20, 30 tokens; t of 2 degrees: 4.302653."""
    correct = np.array([[1, 0], [1, 1], [0, np.nan]], float)
    length = np.array([[8, 12], [20, 20], [30, 999]])
    found = with_intervals(correct, length, length / 10)
    half = 4.302653 * 10 / 3**0.5
    assert found["length"] == pytest.approx((20, 0, 20 + half))  # never below 0
    assert found["response_entropy"] == pytest.approx((2, 0, 2 + half / 10))
    assert found["accuracy"] == pytest.approx((0.5, 0, 1))  # t reaches beyond: cut at what a share can be
    residual = np.array([0.5 - 0.25, 1 - 0.5, 0 - 0.75]) / 20  # of accuracy - ratio * tokens
    assert found["act"].estimate == pytest.approx(250)
    assert found["act"].high - 250 == pytest.approx(1e4 * 4.302653 * residual.std(ddof=1) / 3**0.5)


def test_one_response_each_has_wilsons_interval():
    """8 of 10: 0.4902 to 0.9433, as printed for Wilson's score interval."""
    right = np.array([1] * 8 + [0] * 2, float)[:, None]
    assert with_intervals(right, np.full((10, 1), 5))["accuracy"] == pytest.approx(
        (0.8, 0.4902, 0.9433), abs=1e-4
    )
    all_right = with_intervals(np.ones((10, 2)), np.full((10, 2), 5))  # not intervals of no width
    assert all_right["accuracy"] == pytest.approx((1, 0.7225, 1), abs=1e-4)
    assert all_right["act"] == pytest.approx((2000, 1445, 2000), abs=0.5)


def test_nothing_scorable_has_no_figure():
    found = with_intervals(np.full((2, 2), np.nan), np.ones((2, 2)))
    assert np.isnan(list(found.values())).all()
    alone = with_intervals(np.array([[1.0, 0.0]]), np.array([[5, 7]]))["length"]  # a mean, no interval
    assert alone == pytest.approx((6, np.nan, np.nan), nan_ok=True)


# Responses


def alone(model, tokenizer, prompt, most):
    """Greedy decoding of one prompt, token by token without a cache."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"][0]
    written = []
    while len(written) < most and tokenizer.eos_token_id not in written:
        with torch.no_grad():
            written.append(model(input_ids=ids[None]).logits[0, -1].argmax().item())
        ids = torch.cat([ids, torch.tensor(written[-1:])])
    return written


def test_batches_answer_as_each_prompt_alone(model):
    tokenizer, rows = char_tokenizer(), verbose_sums(7)
    found = respond(model, tokenizer, rows, Sampling(max_tokens=9, batch_size=3), progress=False)
    for row, (text,), (length,), (cut,) in zip(
        rows, found.texts, found.length, found.truncated, strict=True
    ):
        written = alone(model, tokenizer, row["prompt"], 9)
        assert text == tokenizer.decode(written, skip_special_tokens=True)
        assert length == len(written)
        assert cut == (tokenizer.eos_token_id not in written)


def test_a_temperature_next_to_0_is_greedy(model):
    found = [
        respond(model, char_tokenizer(), [{"prompt": "Q8+4="}], Sampling(max_tokens=9, temperature=heat))
        for heat in (0.0, 1e-45)
    ]
    assert found[0].texts == found[1].texts


def test_samples_differ_are_repeatable_and_end_at_every_end_token(model):
    tokenizer, rows = char_tokenizer(), verbose_sums(4)
    semicolon = tokenizer.convert_tokens_to_ids(";")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, semicolon]
    drawn = Sampling(samples=3, temperature=1.0, max_tokens=30, seed=4)
    first, again = (respond(model, tokenizer, rows, drawn, progress=False) for _ in range(2))
    assert first.texts == again.texts
    assert first.length.shape == (4, 3)
    assert len({text for group in first.texts for text in group}) > 6
    assert all(";" not in text[:-1] for group in first.texts for text in group)
    assert any(text.endswith(";") for group in first.texts for text in group)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples must be an integer >= 1; got 0"),
        ({"samples": 2}, "temperature must be above 0 for 2 samples"),
        ({"temperature": -1}, "temperature must be a number in"),
        ({"top_p": 0}, "top_p must be a number in"),
    ],
)
def test_bad_sampling_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**change)


def test_answers_in_gsm8ks_shape_are_judged(tmp_path):
    rows = [
        {"prompt": GSM8K["question"], "answer": GSM8K["answer"]},
        {"prompt": "b", "answer": "5\n#### 5"},
    ]
    texts = [["so \\boxed{72}", "#### 71"], ["The answer is 5.", "<answer>5</answer>"]]
    length = np.array([[10, 30], [20, 40]])
    found = examine(
        rows, Responses(texts, length, np.array([[False, True], [False, False]])), answer_reward
    )
    assert found.correct.tolist() == [[1, 0], [1, 1]]
    assert found.measures["accuracy"].estimate == 0.75
    assert found.measures["act"].estimate == pytest.approx(75 / 25 * 100)
    assert found.truncated == 0.25


# Benchmarks


SHAPES = [  # the columns of the public files
    (GSM8K, GSM8K["question"], GSM8K["answer"]),
    ({"problem": "p", "solution": "so \\boxed{3}", "answer": "3"}, "p", "3"),
    ({"problem": "p", "solution": "so \\boxed{3}"}, "p", "so \\boxed{3}"),
    ({"id": 0, "problem": "p", "answer": 27.0, "question": "q"}, "q", "27.0"),
]


@pytest.mark.parametrize(("row", "prompt", "answer"), SHAPES)
def test_files_in_the_shapes_of_the_benchmarks(row, prompt, answer, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row] * 3))
    for name, file in ((str(path), None), ("math500", str(path))):
        rows, suits = load_benchmark(name, file, 2)
        assert [(one["prompt"], one["answer"]) for one in rows] == [(prompt, answer)] * 2
        assert suits == ("answer" if file is None else "math")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_named_benchmarks_are_asked_of_the_hub(name, monkeypatch):
    from datasets import Dataset

    known, asked = BENCHMARKS[name], []

    def load_dataset(*words, **more):
        asked.append((*words, more["split"]))
        return Dataset.from_list([{known.question: "q", known.answer: "#### 4"}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert load_benchmark(name)[0][0]["prompt"] == "q"
    assert asked == [(known.hub, known.config, known.split)]


def test_the_command_prints_the_papers_figures_and_keeps_every_response(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    char_tokenizer().save_pretrained(tmp_path / "model")
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"problem": f"Q{i}+1=", "answer": i + 1}) for i in range(5)))
    words = ["--model", tmp_path / "model", "--bench", "math500", "--file", path, "--reward", "answer"]
    more = [
        "--samples",
        2,
        "--temperature",
        1,
        "--max_tokens",
        6,
        "--output",
        tmp_path / "o",
        "--device",
        "cpu",
    ]
    assert main([str(word) for word in ["eval", *words, *more]]) == 0
    told = capsys.readouterr().out
    assert "MATH500, 5 questions, avg@2, temperature 1: " in told
    assert "GRPO    accuracy % 65.6   tokens 578   ACT 11.3" in told
    assert "FGO     accuracy % 68.6   tokens 441   ACT 15.6" in told
    kept = [json.loads(line) for line in (tmp_path / "o" / "responses.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert len(kept) == 10
    assert result["measures"]["accuracy"]["estimate"] == np.mean([one["correct"] for one in kept])
    assert result["measures"]["length"]["estimate"] == np.mean([one["length"] for one in kept])
    assert result["about"]["settings"]["temperature"] == 1


def test_a_verdict_of_nan_is_unscorable_as_in_training():
    responses = Responses([["a", "b"], ["c", "d"]], np.full((2, 2), 5), np.zeros((2, 2), bool))
    given = [0.5, float("nan"), -1.0, None]
    found = examine([{"prompt": "p"}, {"prompt": "q"}], responses, lambda **_: given)
    assert np.array_equal(found.correct, [[1, np.nan], [0, np.nan]], equal_nan=True)
    assert found.measures["accuracy"].estimate == 0.5  # questions of 1 / 1 and 0 / 1


def test_a_reward_that_fails_does_not_lose_what_was_answered(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "model")
    char_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "my_reward.py").write_text("def judge(completions, **_):\n    raise KeyError('mine')\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--model", tmp_path / "model", "--bench", "lab/verbose-sums", "--questions", 3]
    words += ["--reward", "my_reward:judge", "--max_tokens", 4, "--output", tmp_path / "o"]
    with pytest.raises(KeyError, match="mine"):
        main([str(word) for word in ["eval", *words, "--device", "cpu"]])
    kept = [json.loads(line) for line in (tmp_path / "o" / "responses.jsonl").read_text().splitlines()]
    assert [(one["correct"], one["length"]) for one in kept] == [(None, 4)] * 3
    assert not (tmp_path / "o" / "result.json").exists()


def test_an_output_that_cannot_be_written_is_told_before_anything_is_answered(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = ["--model", tmp_path / "gone", "--bench", "lab/verbose-sums", "--output", tmp_path / "file"]
    assert main([str(word) for word in ["eval", *words]]) == 2
    assert f"File exists: '{tmp_path / 'file'}'" in capsys.readouterr().err  # not that there is no model


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bench", "gsm9k"], "--bench must be one of gsm8k, math500, aime24, amc23, minerva"),
        (["--bench", "gsm8k", "--samples", "4"], "temperature must be above 0"),
        (["--bench", "lab/verbose-sums", "--questions", "0"], "--questions must be an integer >= 1"),
        (["--bench", "lab/verbose-sums", "--reward", "nobody"], "--reward must be one of"),
        (["--bench", "lab/verbose-sums", "--chat", "true"], "--model must be one with a chat template"),
        (["--bench", "gsm8k", "--file", "gone.jsonl"], "dataset must be a"),
        ([], "required: --bench"),
    ],
)
def test_bad_usage_is_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    assert main(["eval", "--model", "lab/sums-small", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
