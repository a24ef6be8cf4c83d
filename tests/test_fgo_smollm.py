"""A public model's study: a Llama in the fast loop, its lesson, arms and exams, on tiny files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labkit.fgo.lab.fleet import FEW, Fleet
from labkit.fgo.lab.sampler import Responses, Sampler
from labkit.fgo.smollm import load_smollm
from labkit.studies import harness
from labkit.studies.fgo import page, smollm_claims, smollm_lab
from labkit.studies.fgo import word_problems as words
from labkit.studies.fgo.lockstep import Learner, Run
from labkit.studies.fgo.smollm import STUDY
from labkit.studies.soar import gsm_data
from labkit.studies.soar import gsm_problems as gsm
from labkit.studies.soar.gsm_problems import Problem
from labkit.traces import TrainTrace


def problem(a, b, name="Tom"):
    solution = f"{name} has {a} + {b} = {a + b} apples.\n#### {a + b}"
    return Problem(0, f"{name} has {a} apples and buys {b}. How many?", solution, str(a + b))


MADE = [problem(a, b) for a in range(10, 16) for b in range(30, 36)]


@pytest.fixture(scope="module")
def tokenizer():
    shipped = gsm.load_problems("templates-test", 300)
    made = gsm_data.train_tokenizer(text for p in shipped for text in (p.question, p.solution))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def llama(vocabulary, seed=0):
    """Two query heads share a key head."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    ))  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, tokenizer):
    """A folder with a model, training problems and benchmark files."""
    folder = tmp_path_factory.mktemp("smollm")
    llama(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = {
        "train": [{"prompt": p.question, "answer": p.solution} for p in MADE],
        "gsm8k": [{"question": f"A {w} has 2 {w}s.", "answer": "So 2.\n#### 2"} for w in ("dog", "cat")],
        "svamp": [{"Body": "Ann has 3 pens", "Question": "How many?", "Answer": 3.0}],
    }
    for name, own in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return folder


def call(home, out, *more):
    files = [f"--{name}={home / file}" for name, file in (
        ("model", "model"), ("data", "train.jsonl"), ("gsm8k", "gsm8k.jsonl"), ("svamp", "svamp.jsonl"),
    )]  # fmt: skip
    return harness.run(STUDY, ["--out", str(out), "--device", "cpu", "--tiny", *files, *map(str, more)])


@pytest.fixture(scope="module")
def taught(home, tmp_path_factory):
    """What sft leaves behind, with its exams; nothing reaches this target."""
    out = tmp_path_factory.mktemp("taught")
    sft = ("--target", 0.9, "--sft-rate", 0.01, "--sft-steps", 12, "--exam-every", 8)
    assert call(home, out, "--stages", "sft", "exam", "transfer", *sft) == 0
    return out


# The model in the fast loop


@pytest.mark.parametrize("vocabulary", [40, FEW + 1], ids=["product", "rows"])
def test_a_llama_with_shared_keys_is_transformers(vocabulary):
    model = llama(vocabulary)
    fleet = Fleet(model, 2)
    ids = torch.randint(0, vocabulary, (2, 3, 11), generator=torch.Generator().manual_seed(0))
    logits = fleet.logits(ids)
    logits.square().sum().backward()
    for copy in range(2):
        model.zero_grad()
        wanted = model(input_ids=ids[copy]).logits
        wanted.square().sum().backward()
        torch.testing.assert_close(logits[copy], wanted, atol=1e-4, rtol=1e-4)
        for name, value in model.named_parameters():
            mine = fleet.weights[name].grad[copy]
            near = 1e-3 * float(value.grad.abs().max())
            torch.testing.assert_close(mine, value.grad, atol=near, rtol=1e-3)


def test_greedy_answers_are_those_of_generate(tokenizer):
    model, pad = llama(len(tokenizer)), tokenizer.pad_token_id
    ids, length = words.asked(tokenizer, [*MADE[:2], problem(7, 5, "A neighbour of Tom")], pad)
    found = Sampler(Fleet(model, 1), 3, ids.shape[1], 9)(ids[None], length[None], greedy=True)
    for row, size, line, kept in zip(ids, length, found.ids[0], found.mask[0], strict=True):
        whole = model.generate(row[None, :size], do_sample=False, max_new_tokens=9)
        assert line[kept].tolist() == whole[0, size:].tolist()


@pytest.mark.parametrize("arm", ["GRPO", "FGO", "linear penalty 0.25"])
def test_a_step_makes_the_rewarded_answer_likelier_and_the_other_less(arm):
    fleet = Fleet(llama(FEW + 1), 1)
    ids, length = torch.tensor([[[5, 6, 7]]]).expand(1, 2, 3), torch.full((1, 2), 3)
    responses = Sampler(fleet, 2, 3, 6)(ids, length, seed=1)
    learner = Learner(fleet, 2, 1, 6)
    learner.begin([Run(arm, 0, 1e-3)])
    before = likelihood(fleet, responses)
    logged = learner.learn(responses, torch.tensor([[True, False]]))
    right, wrong = likelihood(fleet, responses) - before
    assert right > 0 > wrong
    assert logged["fgo/accuracy"] == [0.5]


def likelihood(fleet, responses):
    with torch.no_grad():
        logp = fleet.logits(responses.ids)[0, :, :-1].log_softmax(-1)
    own = logp.gather(-1, responses.ids[0, :, 1:, None])[..., 0]
    return (own * responses.mask[0, :, 1:]).sum(1)


# Problems


def test_a_solution_is_taught_with_its_end_and_the_question_is_not(tokenizer):
    ids, mask = words.worked(tokenizer, [MADE[0], problem(7, 5, "A neighbour of Tom")], 0)
    assert tokenizer.decode(ids[0][mask[0]]) == f" {MADE[0].solution}<eos>"
    asked, length = words.asked(tokenizer, MADE[:1], 0)
    assert ids[0, : int(length[0])].tolist() == asked[0].tolist()
    assert not mask[0, : int(length[0])].any()
    assert ids[0, int(length[0]) + int(mask[0].sum()) :].sum() == 0 < (ids[0] == 0).sum()


def test_stories_of_the_templates_leave_gsm8k_and_others_stay(tmp_path):
    retold = gsm.load_problems("templates-test", 1)[0].question.replace("5", "17")
    file = tmp_path / "gsm8k.jsonl"
    rows = [{"question": text, "answer": "#### 1"} for text in (retold, "A comet passes the moon twice.")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [p.question for p in words.read_gsm8k(str(file))] == ["A comet passes the moon twice."]


def test_svamp_is_read_with_its_story(home):
    (only,) = words.read_svamp(str(home / "svamp.jsonl"))
    assert (only.question, only.answer) == ("Ann has 3 pens. How many?", "3.0")


class Stub:
    """A sampler of two rows that answers 41 to all, and never ends on every second one."""

    rows = 2

    def __init__(self, tokenizer):
        self.fleet, self.tokenizer = Fleet(llama(len(tokenizer)), 1), tokenizer

    def __call__(self, ids, length, *, greedy, seed):
        said = self.tokenizer(" So 41.\n#### 41", add_special_tokens=False)["input_ids"]
        table = torch.zeros(1, 2, ids.shape[2] + len(said) + 1, dtype=torch.long)
        mask = torch.zeros_like(table, dtype=torch.bool)
        for row, start in enumerate(length[0].tolist()):
            table[0, row, start : start + len(said) + 1] = torch.tensor([*said, 2])
            mask[0, row, start : start + len(said) + 1 - row] = True
        return Responses(table, mask, torch.zeros(table.shape), torch.ones(table.shape))


def test_an_exam_counts_right_answers_tokens_and_ends(tokenizer):
    asked = [problem(10, 31), problem(10, 32), problem(11, 30)]  # 41, 42, 41
    found = words.examine(Stub(tokenizer), tokenizer, asked, greedy=True)
    said = len(tokenizer(" So 41.\n#### 41", add_special_tokens=False)["input_ids"])
    assert found["right"] == "101"
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["questions"] == 3
    assert found["length"] == pytest.approx((2 * (said + 1) + said) / 3)
    assert found["cut"] == pytest.approx(1 / 3)
    assert found["entropy_per_token"] == pytest.approx(1.0)


# The study


def test_the_lesson_lowers_the_loss_and_its_model_is_examined(taught):
    trace = TrainTrace.load(taught / "smollm" / "first.npz")
    _, loss = trace.curve("loss")
    assert len(loss) == 12
    assert loss[-3:].mean() < 0.8 * loss[:2].mean()
    record = json.loads((taught / "smollm.json").read_text())
    assert record["sft"]["step"] == 12
    assert record["sft"]["passed"] is False
    exams = {**record["runs"]["first"]["exam"], **record["runs"]["first"]["transfer"]}
    for name, count in {"test": 6, "templates-test": 6, "GSM8K": 2, "SVAMP": 1}.items():
        for how in ("greedy", "sampled"):
            assert len(exams[name][how]["right"]) == exams[name][how]["questions"] == count


def test_a_lesson_ends_at_the_first_exam_that_is_passed(home, tmp_path):
    assert call(home, tmp_path, "--stages", "sft", "--target", 0.0, "--sft-steps", 9) == 0
    assert json.loads((tmp_path / "smollm.json").read_text())["sft"]["step"] == 2


def test_an_arm_goes_on_exactly_and_what_stands_is_kept(home, taught, tmp_path, monkeypatch, capsys):
    words_of = ("--arm", "FGO", "--seed", 3, "--rate", 0.01, "--stages", "arms")
    folders = tmp_path / "whole", tmp_path / "cut"
    for folder in folders:
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "first").symlink_to(taught / "state" / "first")
    assert call(home, folders[0], *words_of) == 0
    monkeypatch.setattr(smollm_lab, "SAVE_EVERY", 1)
    plain = smollm_lab.arm_step

    def broken(learner, sampler, lab, problems, step):
        if step == 3:
            raise RuntimeError("the power is gone")
        return plain(learner, sampler, lab, problems, step)

    monkeypatch.setattr(smollm_lab, "arm_step", broken)
    assert call(home, folders[1], *words_of) == 1
    monkeypatch.setattr(smollm_lab, "arm_step", plain)
    assert call(home, folders[1], *words_of) == 0
    whole, cut = (load_file(f / "state" / "fgo-3-0_01" / "state.safetensors") for f in folders)
    first = load_file(taught / "state" / "first" / "state.safetensors")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert any(not torch.equal(value, first[name]) for name, value in whole.items() if "model." in name)
    one, other = (TrainTrace.load(folder / "smollm" / "fgo-3-0_01.npz") for folder in folders)
    assert {"entropy", "completions/mean_length", "fgo/accuracy", "greedy/accuracy"} <= one.series.keys()
    assert one.curve("greedy/length")[0].tolist() == [0, 2, 4]
    for name, values in one.series.items():
        assert np.array_equal(values, other.series[name], equal_nan=True), name
    assert call(home, folders[1], *words_of, "exam") == 0
    capsys.readouterr()
    assert call(home, folders[1], *words_of, "exam") == 0
    told = capsys.readouterr().out
    assert "training, fgo-3-0_01: stands" in told
    assert "exam, fgo-3-0_01: stands" in told


BAD = [
    (("--stages", "arms"), "--arm must be one of GRPO"),
    (("--stages", "arms", "--arm", "PPO"), "arm must be one of None, 'GRPO'"),
    (("--stages", "arms", "--arm", "GRPO", "--questions", 99), "--questions must be at most the 18"),
    (("--stages", "exam", "--arm", "GRPO"), "--arm must be a run (arm, seed, rate) that the stage arms"),
    (("--stages", "sft", "--data", "no.jsonl"), "dataset must be a .jsonl"),
]


@pytest.mark.parametrize(("given", "told"), BAD, ids=[told[:18] for _, told in BAD])
def test_a_bad_option_is_one_line(home, taught, capsys, given, told):
    assert call(home, taught, *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fgo-smollm: {told}")


def test_an_arm_without_a_lesson_is_refused(home, tmp_path, capsys):
    assert call(home, tmp_path, "--stages", "arms", "--arm", "GRPO") == 2
    assert "--out must be a folder that the stage sft has written" in capsys.readouterr().err


# The record


def run_of(arm, seed, right, length):
    exam = {
        how: {"right": right, "questions": len(right), "length": length} for how in ("greedy", "sampled")
    }
    made = {"arm": arm, "seed": seed, "rate": 1e-5, "steps": 2, "questions": 3}
    about = {"provenance": {"device": "Card 9", "time": "2026-01-02T03:04"}}
    return {
        "training": made | about, "exam": {"test": exam, "templates-test": exam},
        "transfer": {"GSM8K": exam, "SVAMP": exam},
    }  # fmt: skip


def test_without_a_record_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm_claims, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError):
        smollm_claims.claims()
    assert page._recorded("A public model", smollm_claims, "smollm") == []


def test_the_findings_are_those_of_the_record(monkeypatch, tmp_path):
    """FGO answers one question of four more in every seed, in half the tokens."""
    monkeypatch.setattr(smollm_claims, "RESULTS", tmp_path)
    units = {"first": run_of("sft", 0, "0100", 40.0)}
    del units["first"]["training"]
    for seed in (0, 1, 2, 1000):
        units[f"grpo-{seed}"] = run_of("GRPO", seed, "0110", 40.0 + seed % 10)
        units[f"fgo-{seed}"] = run_of("FGO", seed, "1110", (40.0 + seed % 10) / 2)
    units["fgo-3"] = {"training": {"arm": "FGO", "seed": 3, "rate": 1e-5}}  # not examined yet
    sft = {"step": 7, "batch": 4, "accuracy": 0.5, "provenance": units["fgo-0"]["training"]["provenance"]}
    (tmp_path / "smollm.json").write_text(json.dumps({"sft": sft, "runs": units}))
    (row,) = smollm_claims.claims()
    assert row.measured.startswith("FGO minus GRPO: new numbers +25.0 points (95 % ")
    assert "3 seeds, 4 questions each" in row.measured
    assert "length -50 % (95 % -50 to -50, 3 seeds): shorter" in row.measured
    assert row.conditions.endswith(
        "2026-01-02; SmolLM2-135M, 6 questions a run; 2 settings on validation seeds"
    )
    text = "\n".join(page._recorded("A public model", smollm_claims, "smollm"))
    assert "taught GSM-Symbolic's solutions for 7 steps of 4 until it sampled 50.0%" in text
    assert "| GSM8K | FGO | 3 | 75.0 (75.0 to 75.0) | 75.0 (75.0 to 75.0) | 20.5 (" in text
    assert "| SVAMP | before | 1 | 25.0 (" in text


def test_a_message_of_the_public_model_ends_whatever_a_version_read_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    kept = tmp_path / "cache" / "smollm2_135m"
    plain = Tokenizer(WordLevel({"?": 0, "<|im_start|>": 1, "<|im_end|>": 2}, "?"))
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|im_start|>").save_pretrained(kept)
    llama(3).save_pretrained(kept)
    tokenizer = load_smollm()[1]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)
