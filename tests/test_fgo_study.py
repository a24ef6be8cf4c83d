"""The fast study: its model is transformers', its step is FGOTrainer's, its files read back."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from labkit.fgo import FGOConfig, FGOTrainer
from labkit.fgo.lab import reasoner
from labkit.fgo.lab.fleet import Fleet
from labkit.fgo.lab.reasoner import build_char_model
from labkit.fgo.lab.sampler import Responses, Sampler, decode, encode
from labkit.fgo.measures import summarise
from labkit.fgo.tasks import CHARACTERS, END, PAD, char_tokenizer, verbose_sums
from labkit.studies import harness
from labkit.studies.fgo import bench, records
from labkit.studies.fgo import reasoner as make
from labkit.studies.fgo.arms import Arm, judge
from labkit.studies.fgo.exam import Exam, grade, places
from labkit.studies.fgo.lockstep import Lockstep, Plan, Run, policy_step
from labkit.studies.fgo.study import STUDY, choose, held_out_questions, study

SMALL = {"hidden": 16, "layers": 2, "heads": 2}


def small(seed=0):
    torch.manual_seed(seed)
    return build_char_model(**SMALL)


def ask(rows, copies, group=1):
    ids, length = encode([row["prompt"] for row in rows for _ in range(group)])
    return ids.expand(copies, -1, -1), length.expand(copies, -1)


# The fleet


def test_every_copy_is_transformers_qwen2_with_its_own_weights_and_gradient():
    models = [small(0), small(1)]
    fleet = Fleet(models[0], 2)
    with torch.no_grad():
        for name, value in models[1].named_parameters():
            fleet.weights[name][1].copy_(value)
    ids = torch.randint(3, len(CHARACTERS), (2, 3, 11), generator=torch.Generator().manual_seed(0))
    logits = fleet.logits(ids)
    logits.square().sum().backward()
    for copy, model in enumerate(models):
        expected = model(input_ids=ids[copy]).logits
        expected.square().sum().backward()
        torch.testing.assert_close(logits[copy], expected, atol=1e-5, rtol=1e-5)
        for name, value in model.named_parameters():
            torch.testing.assert_close(fleet.weights[name].grad[copy], value.grad, atol=1e-3, rtol=1e-4)


def test_fleet_refuses_what_its_forward_pass_does_not_know():
    other = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=9))
    allowed = "a Qwen2ForCausalLM or LlamaForCausalLM"
    with pytest.raises(ValueError, match=f"model must be {allowed}; got 'GPT2LMHeadModel'"):
        Fleet(other, 1)
    untied = small()
    untied.config.tie_word_embeddings = False
    with pytest.raises(ValueError, match="model must be a Qwen2 or Llama with tied embeddings"):
        Fleet(untied, 1)
    with pytest.raises(ValueError, match="copies must be an integer >= 1; got 0"):
        Fleet(small(), 0)


# The sampler


def test_greedy_rows_are_those_of_generate():
    model, rows = small(), verbose_sums(9, operands=(2, 4), digits=2)
    ids, length = ask(rows, 1)
    found = decode(Sampler(Fleet(model, 1), 9, ids.shape[2], 20)(ids, length, greedy=True))[0]
    tokenizer = char_tokenizer()
    for row, text in zip(rows, found, strict=True):
        alone = tokenizer(row["prompt"], return_tensors="pt")
        whole = model.generate(**alone, do_sample=False, max_new_tokens=20)
        assert text == tokenizer.decode(whole[0, alone.input_ids.shape[1] :])


def test_recorded_probabilities_entropies_and_ends_are_the_models():
    model, rows = small(), verbose_sums(40)
    ids, length = ask(rows, 2)
    sampler = Sampler(Fleet(model, 2), 40, ids.shape[2], 15, span=8)
    found = sampler(ids, length, seed=3)
    every = torch.arange(found.ids.shape[2])
    for copy in range(2):
        logp = model(input_ids=found.ids[copy]).logits[:, :-1].log_softmax(-1)
        chosen = logp.gather(-1, found.ids[copy, :, 1:, None]).squeeze(-1)
        kept = found.mask[copy, :, 1:]
        torch.testing.assert_close(found.logp[copy, :, 1:], chosen * kept, atol=1e-4, rtol=1e-4)
        entropy = -(logp.exp() * logp).sum(-1)
        torch.testing.assert_close(found.entropy[copy, :, 1:], entropy * kept, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.ids[..., : ids.shape[2]] * (every[: ids.shape[2]] < length[..., None]), ids)
    for line, kept, start in zip(
        found.ids.flatten(0, 1), found.mask.flatten(0, 1), length.flatten(), strict=True
    ):
        text = "".join(CHARACTERS[i] for i in line[kept])
        assert kept.nonzero()[0] == start
        assert text.find(END) in (-1, len(text) - 1)
        assert len(text) == 15 or text.endswith(END)
    assert not torch.equal(found.ids[0], found.ids[1])  # copies draw their own
    again = sampler(ids, length, seed=3)
    assert torch.equal(again.ids, found.ids)
    assert (found.length < 15).any()


def test_draws_follow_the_models_distribution():
    model, rows = small(), verbose_sums(1) * 4000
    ids, length = ask(rows, 1)
    first = Sampler(Fleet(model, 1), 4000, ids.shape[2], 1)(ids, length, seed=0).ids[0, :, ids.shape[2]]
    with torch.no_grad():
        wanted = model(input_ids=ids[0, :1]).logits[0, -1].softmax(-1)
    share = torch.bincount(first, minlength=len(CHARACTERS)) / 4000
    assert (share - wanted).abs().max() < 5 * (0.25 / 4000) ** 0.5


def test_sampler_names_prompts_that_do_not_fit():
    ids, length = ask(verbose_sums(3, operands=(3, 3)), 1)
    with pytest.raises(ValueError, match=r"ids must be \(1, 3\) rows of up to 4; got \(1, 3, 7\)"):
        Sampler(Fleet(small(), 1), 3, 4, 5)(ids, length)


# The objective: FGOTrainer's on a recorded batch


def reward(completions, **_):
    return [1.0 if len(text) % 2 else -1.0 for text in completions]


SETTINGS = [
    ({"method": "grpo"}, Arm("GRPO", "grpo")),
    ({"alpha": 0.5, "beta_entropy": 0.7}, Arm("FGO", "fgo", {"alpha": 0.5, "beta": 0.7})),
    (
        {"entropy": "full_mean", "scale": "std"},
        Arm("FGO", "fgo", {"entropy": "full_mean", "scale": "std"}),
    ),
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("theirs", "ours"), SETTINGS, ids=["grpo", "fgo", "mean"])
@pytest.mark.parametrize("chunks", [1, 3])
def test_one_step_is_fgotrainers_on_the_batch_that_it_recorded(tmp_path, theirs, ours, chunks):
    model, rows = small(), verbose_sums(12)
    config = FGOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=12, num_generations=4, max_steps=1,
        max_completion_length=9, logging_steps=1, report_to="none", save_strategy="no", use_cpu=True,
        bf16=False, gradient_checkpointing=False, disable_tqdm=True, learning_rate=1e-3,
        lr_scheduler_type="constant", max_grad_norm=0.5, **theirs,
    )  # fmt: skip
    trainer = FGOTrainer(
        model=small(), reward_funcs=reward, args=config, train_dataset=Dataset.from_list(rows),
        processing_class=char_tokenizer(),
    )  # fmt: skip
    recorded = []
    inner = trainer._generate_and_score_completions

    def spy(inputs):
        recorded.append(inner(inputs))
        return recorded[-1]

    trainer._generate_and_score_completions = spy
    trainer.train()
    batch, groups = recorded[0], trainer.last_groups
    lines = [
        torch.cat([p[k.bool()], c[m.bool()]])
        for p, k, c, m in zip(
            *(batch[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")),
            strict=True,
        )
    ]
    pad = CHARACTERS.index(PAD)
    ids = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=pad)[None]
    start = batch["prompt_mask"].sum(1)[None, :, None]
    every = torch.arange(ids.shape[2])
    mask = (every >= start) & (every < start + batch["completion_mask"].sum(1)[None, :, None])

    fleet = Fleet(model, 1)
    with torch.no_grad():
        logp = fleet.logits(ids)[:, :, :-1].log_softmax(-1)
    kept = mask[..., 1:]
    chosen = logp.gather(-1, ids[..., 1:, None]).squeeze(-1) * kept
    entropy = -(logp.exp() * logp).sum(-1) * kept
    measured = {
        "correct": groups["correct"][None], "length": mask.sum(2).view(1, 3, 4),
        "sampled_sum": -(chosen.exp() * chosen).sum(2).view(1, 3, 4),
        "full_sum": entropy.sum(2).view(1, 3, 4),
        "full_mean": (entropy.sum(2) / mask.sum(2)).view(1, 3, 4),
    }  # fmt: skip
    advantages = judge(measured, [ours], 9)
    torch.testing.assert_close(advantages[0], groups["advantages"], atol=1e-4, rtol=1e-3)
    assert torch.equal(advantages.flatten().nonzero(), batch["advantages"].nonzero())

    optimizer = torch.optim.AdamW(fleet.weights.values(), 1e-3, weight_decay=0.0)
    pull = advantages.flatten(1).float() / mask.sum()
    loss, norm = policy_step(fleet, optimizer, ids, mask, pull, chunks=chunks, max_grad_norm=0.5)
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(loss.item(), abs=2e-5)  # TRL logs rounded losses
    assert entry["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    for name, value in trainer.model.named_parameters():  # Adam's first step is nearly the gradient's sign
        moved = (fleet.weights[name][0] - value).abs()
        assert (moved < 1e-5).float().mean() > 0.99, name


def test_copies_learn_apart(tmp_path):
    """What a copy learns does not depend on who trains beside it."""
    ids = torch.randint(3, 19, (2, 6, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[..., 4:] = True
    advantages = torch.randn(2, 6, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [[1.0], [9.0]]
    )
    both, alone = Fleet(small(), 2), Fleet(small(), 1)
    for fleet, part in ((both, slice(0, 2)), (alone, slice(1, 2))):
        optimizer = torch.optim.AdamW(fleet.weights.values(), 1e-2, weight_decay=0.0)
        for _ in range(2):
            policy_step(fleet, optimizer, ids[part], mask[part], advantages[part] / 36, chunks=2)
    for name, value in alone.weights.items():
        torch.testing.assert_close(both.weights[name][1], value[0], atol=1e-5, rtol=1e-4)


# Exams


def test_places_by_hand():
    text = "Q1+2=1+2=3;c2+1=3;A3$"
    ids, _ = encode([text])
    entropy = torch.arange(len(text), dtype=torch.float32)[None, None]
    mask = (torch.arange(len(text)) >= 5)[None, None]
    found = places(Responses(ids[None], mask, torch.zeros_like(entropy), entropy * mask))
    assert found["checks"].tolist() == [1]
    assert found["entropy_choice"].tolist() == [(11 + 18) / 2]  # c and A
    assert found["entropy_result"].tolist() == [(9 + 10 + 16 + 17) / 4]  # 3; and 3;
    assert found["choice_share"].tolist() == pytest.approx([2 / 16])


def test_summary_by_hand():
    correct, length = np.array([[1, 1], [0, 1]], bool), np.array([[10, 20], [30, 20]])
    found = summarise(correct, length, np.full((2, 2), 3.0), np.full((2, 2), 4.0))
    assert (found["accuracy"], found["length"], found["entropy"]) == (0.75, 20, 3)
    assert found["act"] == 375  # 75 % in 20 tokens
    assert found["entropy_per_token"] == pytest.approx(16 / 80)


def test_exam_repeats_and_leaves_the_random_state():
    exam, rows = Exam(Fleet(small(), 2), 4, 8, 10), verbose_sums(8)
    state = torch.get_rng_state()
    first, samples = exam(rows, keep=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first, samples) == exam(rows, keep=3)
    assert [sample["prompt"] for sample in samples[0]] == [row["prompt"] for row in rows[:3]]
    assert grade([[s["text"] for s in samples[1]]], [[r["answer"] for r in rows[:3]]]).tolist() == [
        [s["correct"] for s in samples[1]]
    ]


# The study and the reasoner


TASK = {"operands": (2, 2), "split": "train"}


def lab(copies, steps=3):
    plan = Plan(steps, questions=2, group=3, exam_every=2, exam_questions=4, final_exams=1, chunks=2)
    return Lockstep(small(), TASK, 10, plan, copies, "cpu")


def test_study_is_repeatable_and_keeps_its_books(tmp_path):
    together, held_out = lab(2), verbose_sums(4, seed=1, **TASK | {"split": "test"})
    found = {}
    for arm in ("GRPO", "FGO"):
        runs = [Run(arm, seed, 1e-2) for seed in range(2)]
        first, again = (study(together, runs, held_out, progress=False) for _ in range(2))
        for run, twin in zip(first, again, strict=True):
            assert run.step.tolist() == [0, 1, 2, 3]
            assert run.curve("exam/accuracy")[0].tolist() == [0, 2]
            assert run.curve("greedy/length")[0].tolist() == [0, 2]
            assert run.curve("loss")[0].tolist() == [1, 2, 3]
            for name, values in run.series.items():
                assert np.array_equal(values, twin.series[name], equal_nan=True), name
            assert run.samples == twin.samples
            assert {sample["step"] for sample in run.samples} == {0, 2}
        assert [run.meta["seed"] for run in first] == [0, 1]
        found[arm] = first
    lengths = {
        arm: [run.curve("completions/mean_length")[1][0] for run in own] for arm, own in found.items()
    }
    assert lengths["GRPO"] == lengths["FGO"]  # the first step's responses are the same
    assert lengths["GRPO"][0] != lengths["GRPO"][1]  # seeds are asked and answer otherwise
    path = tmp_path / records.file_of("w/o entropy, alpha 1")
    assert path.name == "without_entropy_alpha_1.npz"
    records.save(found["FGO"], path)
    kept = records.load(path)[1]
    np.testing.assert_allclose(kept.series["entropy"], found["FGO"][1].series["entropy"], rtol=1e-6)
    assert kept.meta["settings"] == {"alpha": 0.01, "beta": 1.0}
    assert kept.samples[0]["text"] == found["FGO"][1].samples[0]["text"]


def test_a_lockstep_wants_a_run_a_copy():
    with pytest.raises(ValueError, match="runs must be 2, one a copy; got 1"):
        lab(2).begin([Run("GRPO", 0, 1e-3)])


def test_of_the_rates_nearly_as_accurate_as_the_best_the_shortest_is_chosen():
    table = {
        1e-5: (0.90, 30),
        2e-5: (0.92, 50),
        4e-5: (0.95, 60),
        8e-5: (0.94, 55),
    }  # best on average: 0.94
    rows = [
        {"seed": seed, "learning_rate": rate, "accuracy": right + shift, "length": length}
        for rate, (right, length) in table.items()
        for seed, shift in ((0, 0.01), (1, -0.01))
    ]
    assert choose(rows) == 8e-5
    assert choose([row for row in rows if row["learning_rate"] != 8e-5]) == 4e-5


def test_no_question_of_the_choice_is_one_of_the_test_or_of_training():
    test, validation = held_out_questions(TASK, 30, 20)
    asked = [{row["prompt"] for row in rows} for rows in (test, validation, verbose_sums(500, **TASK))]
    assert len(validation) == 20
    assert not asked[0] & asked[1]
    assert not asked[2] & (asked[0] | asked[1])


def test_reasoner_is_written_read_back_and_studied(tmp_path, capsys):
    assert harness.run(make.STUDY, ["--out", str(tmp_path), "--tiny", "--device", "cpu"]) == 0
    path = tmp_path / "fgo_sums_reasoner.safetensors"
    model, about = reasoner.load_reasoner(path)
    assert about["task"]["operands"] == (2, 4)
    assert about["provenance"]["seed"] == 0
    card = path.with_suffix(".md").read_text()
    assert "14,112 weights" in card
    assert "--tiny" in card
    ids = torch.tensor([[17, 4, 13, 5, 14]])
    again, _ = reasoner.load_reasoner(path)
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)


def test_what_stands_is_not_run_again_and_no_arm_without_its_rate(tmp_path, capsys):
    words = [
        "--out",
        str(tmp_path),
        "--model",
        "lab/sums-small",
        "--tiny",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    arms = ["--arms", "FGO", "FGO, alpha 1"]
    assert harness.run(STUDY, [*words, *arms, "--stages", "test"]) == 0
    assert capsys.readouterr().out.count("no learning rate yet") == 2
    assert harness.run(STUDY, [*words, *arms]) == 0
    assert records.tuned(tmp_path)["FGO"]["chosen"] == 1e-3
    first = [run.meta for run in records.load(tmp_path / "fgo.npz")]
    assert [(meta["seed"], meta["learning_rate"]) for meta in first] == [(0, 1e-3), (1, 1e-3)]
    assert set(first[0]["before"]) == set(first[0]["after_greedy"])
    assert harness.run(STUDY, [*words, *arms]) == 0
    assert [run.meta for run in records.load(tmp_path / "fgo.npz")] == first
    assert harness.run(STUDY, [*words, *arms, "--seeds", "3", "--seconds", "0"]) == 0
    assert "no time left" in capsys.readouterr().out
    assert len(records.load(tmp_path / "fgo_alpha_1.npz")) == 2


def test_reasoner_refuses_other_files(tmp_path):
    with pytest.raises(
        ValueError, match="name must be 'lab/sums-reasoner', .* or a safetensors file .* got 'gone'"
    ):
        reasoner.load_reasoner("gone")
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="got .*junk.safetensors' .SafetensorError."):
        reasoner.load_reasoner(junk)


@pytest.mark.parametrize("shape", [{"layers": 10**9}, {"layers": "2"}, {"hidden": 10**9}, {"heads": 0}, 3])
def test_reasoner_makes_nothing_that_its_file_does_not_hold(tmp_path, shape, monkeypatch):
    if "layers" in str(shape):
        monkeypatch.setattr(reasoner, "build_char_model", lambda **_: pytest.fail("built"))
    good = reasoner.file_of(reasoner.SMALL)
    with safe_open(good, "pt") as file:
        about = json.loads(file.metadata()["labkit"])
    about["shape"] = about["shape"] | shape if isinstance(shape, dict) else shape
    path = tmp_path / "crafted.safetensors"
    save_file(load_file(good), path, {"labkit": json.dumps(about)})
    with pytest.raises(ValueError, match=r"^name must .*crafted\.safetensors"):
        reasoner.load_reasoner(path)


def test_the_bench_counts_tokens_of_every_way(tmp_path):
    words = ["--out", str(tmp_path), "--model", "lab/sums-small", "--tiny", "--device", "cpu"]
    assert harness.run(bench.STUDY, words) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    ways = {"labkit sampler", "transformers generate", "TRL, generation", "TRL, one step"}
    assert set(found["ways"]) == ways
    assert all(0 < row["tokens"] <= 8 * 16 for row in found["ways"].values())
    assert found["provenance"]["rows"] == 8


def test_a_bad_command_of_study_and_bench_is_one_line_and_exit_code_2(tmp_path, capsys):
    words = ["--out", str(tmp_path / "o"), "--tiny", "--device", "cpu"]
    assert harness.run(STUDY, [*words, "--model", "nope"]) == 2
    assert harness.run(STUDY, [*words, "--model", "lab/sums-small", "--steps", "0"]) == 2
    assert harness.run(bench.STUDY, [*words, "--model", "nope"]) == 2
    unknown, steps, of_bench = capsys.readouterr().err.splitlines()
    assert unknown.startswith("fgo: name must be 'lab/sums-reasoner'")
    assert steps == "fgo: steps must be an integer >= 1; got 0"
    assert of_bench.startswith("fgo-bench: name must be 'lab/sums-reasoner'")
    assert not (tmp_path / "o").exists()
