"""FGOTrainer on TRL: its advantages, metrics, guards, the private names it stands on, two processes."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from labkit.fgo import FGOConfig, FGOTrainer, fgo_advantages
from labkit.fgo.lab.live import examine, reinforce
from labkit.fgo.lab.reasoner import build_char_model
from labkit.fgo.tasks import char_tokenizer, sum_reward, verbose_sums
from labkit.fgo.watch import Watch

SMALL = {"hidden": 16, "layers": 1, "heads": 2}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def make(
    tmp_path, reward=sum_reward, trainer=FGOTrainer, config=FGOConfig, model=None, peft_config=None,
    eval_dataset=None, **settings,
):  # fmt: skip
    torch.manual_seed(0)
    chosen = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": 12, "num_generations": 4,
        "max_completion_length": 8, "max_steps": 1, "logging_steps": 1, "report_to": "none",
        "save_strategy": "no", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "disable_tqdm": True, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    }  # fmt: skip
    return trainer(
        model=model or build_char_model(**SMALL), reward_funcs=reward, args=config(**chosen | settings),
        train_dataset=Dataset.from_list(verbose_sums(12)), processing_class=char_tokenizer(),
        peft_config=peft_config, eval_dataset=eval_dataset,
    )  # fmt: skip


def coin(completions, **_):
    """A reward with both signs, decided by the text."""
    return [1.0 if len(text) % 2 else -1.0 for text in completions]


def batch_of(trainer):
    """What TRL would train on: two questions, four responses each, and a third."""
    rows = [row for row in verbose_sums(3) for _ in range(4)]
    trainer.model.train()
    return trainer._generate_and_score_completions(rows)


@pytest.mark.parametrize("kind", ["sampled_sum", "full_sum", "full_mean"])
def test_batch_advantages_are_fgos_of_independently_measured_entropies(tmp_path, kind):
    settings = {"alpha": 0.5, "beta_entropy": 0.7, "clamp": 3.0, "scale": "std", "entropy": kind}
    trainer = make(tmp_path, coin, **settings)
    output = batch_of(trainer)
    length, entropy, correct = [], [], []
    for row in range(12):  # alone, without padding
        prompt = output["prompt_ids"][row][output["prompt_mask"][row].bool()]
        response = output["completion_ids"][row][output["completion_mask"][row].bool()]
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.cat([prompt, response])[None]).logits[0]
        logp = logits[len(prompt) - 1 : -1].log_softmax(-1)
        p = logp.gather(1, response[:, None]).exp()
        full = -(logp.exp() * logp).sum()
        size = len(response)
        values = {"sampled_sum": -(p * p.log()).sum(), "full_sum": full, "full_mean": full / size}
        length.append(size)
        entropy.append(values[kind])
        text = trainer.processing_class.decode(response, skip_special_tokens=True)
        correct.append(coin([text])[0])
    assert len(set(correct)) == 2
    measured = trainer.last_groups
    assert measured["length"].flatten().tolist() == length
    torch.testing.assert_close(measured["entropy"].flatten(), torch.stack(entropy), atol=1e-4, rtol=1e-4)
    expected = fgo_advantages(
        torch.tensor(correct).view(3, 4), torch.tensor(length).view(3, 4),
        torch.stack(entropy).view(3, 4), alpha=0.5, beta=0.7, clamp=3.0, scale="std",
    )  # fmt: skip
    torch.testing.assert_close(output["advantages"].view(3, 4), expected, atol=2e-3, rtol=1e-3)
    assert list(trainer._logs["advantages"]) == output["advantages"].tolist()


def test_metrics_are_logged_beside_trls(tmp_path):
    trainer = make(tmp_path, coin)
    trainer.train()
    entry, groups = trainer.state.log_history[0], trainer.last_groups
    assert {"reward", "entropy", "completions/mean_length", "frac_reward_zero_std"} <= entry.keys()
    accuracy = groups["correct"].mean().item()
    assert entry["fgo/accuracy"] == pytest.approx(accuracy)
    assert entry["fgo/accuracy"] == pytest.approx((entry["reward"] + 1) / 2)
    assert entry["fgo/act"] == pytest.approx(1e4 * accuracy / entry["completions/mean_length"])
    assert entry["fgo/response_entropy"] == pytest.approx(groups["entropy"].mean().item())
    assert entry["fgo/constant_groups"] == round(3 * entry["frac_reward_zero_std"])
    silent = (groups["advantages"].abs().amax(1) < 1e-6).sum().item()
    assert entry["fgo/invalid_groups"] == silent


def test_constant_groups_still_teach_fgo_but_not_grpo(tmp_path):
    same = {"reward": lambda completions, **_: [-1.0] * len(completions)}
    for method, silent in (("fgo", 0), ("grpo", 3)):
        trainer = make(tmp_path, **same, method=method)
        trainer.train()
        entry = trainer.state.log_history[0]
        assert (entry["fgo/constant_groups"], entry["fgo/invalid_groups"]) == (3, silent)
    trainer = make(tmp_path, **same, zero_all_wrong=True)
    trainer.train()
    assert trainer.state.log_history[0]["fgo/invalid_groups"] == 3


def test_method_grpo_is_exactly_trls_own(tmp_path):
    ours = make(tmp_path, coin, max_steps=3, method="grpo")
    ours.train()
    theirs = make(tmp_path, coin, trainer=GRPOTrainer, config=GRPOConfig, max_steps=3)
    theirs.train()
    for a, b in zip(ours.state.log_history, theirs.state.log_history, strict=True):
        for name in ("reward", "loss", "grad_norm", "entropy", "completions/mean_length"):
            assert a.get(name) == b.get(name)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_unscorable_and_truncated_rows_take_no_part(tmp_path):
    def reward(completions, **_):
        return [None if i % 4 == 0 else float(i % 2) for i, _ in enumerate(completions)]

    trainer = make(tmp_path, reward, mask_truncated_completions=True)
    output = batch_of(trainer)
    groups = trainer.last_groups
    out = groups["correct"].isnan() | (groups["length"] == 0)
    assert groups["correct"].isnan()[:, 0].all()
    assert (groups["length"] == 0).any()
    assert (groups["length"] > 0).any()
    assert groups["advantages"].isfinite().all()
    assert (groups["advantages"][out] == 0).all()
    assert (output["advantages"].view(3, 4)[out] == 0).all()
    trainer.train()  # None of it stops the training step
    assert np.isfinite(trainer.state.log_history[0]["loss"])


def right_nowhere(completions, **_):
    return [0.0] * len(completions)


def in_form(completions, **_):
    return [1.0 if len(text) % 2 else 0.0 for text in completions]


def test_one_named_reward_says_correct_and_no_other(tmp_path):
    """A reward for format must not turn wrong answers right, in whatever order and with any weight."""
    for rewards, correct in (
        ([right_nowhere, in_form], None),
        ([in_form, right_nowhere], "right_nowhere"),
    ):
        trainer = make(tmp_path, rewards, correct=correct, reward_weights=[1.0, 5.0])
        batch_of(trainer)
        assert trainer.last_groups["reward"].max() > 0
        assert (trainer.last_groups["correct"] == 0).all()
        assert trainer._metrics["train"]["fgo/accuracy"] == [0.0]
    trainer = make(tmp_path, [right_nowhere, in_form], correct="in_form", reward_weights=[1.0, -1.0])
    batch_of(trainer)
    texts = trainer._logs["completion"]
    assert trainer.last_groups["correct"].flatten().tolist() == [len(text) % 2 for text in texts]
    with pytest.raises(ValueError, match="correct must be one of 'coin'; got 'sums'"):
        make(tmp_path, coin, correct="sums")


def test_a_response_that_only_another_reward_can_score_takes_no_part(tmp_path):
    trainer = make(tmp_path, [lambda completions, **_: [None] * len(completions), in_form])
    batch_of(trainer)
    assert trainer.last_groups["correct"].isnan().all()
    assert (trainer.last_groups["advantages"] == 0).all()


def test_a_model_in_memory_is_its_own_reference(tmp_path):
    trainer = make(tmp_path, coin, beta=0.5, max_steps=2)
    start = [value.clone() for value in trainer.model.parameters()]
    assert trainer.model.config._name_or_path == ""
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert trainer.state.log_history[1]["kl"] > 0
    reference = trainer.accelerator.unwrap_model(trainer.ref_model).parameters()
    assert all(torch.equal(a, b) for a, b in zip(reference, start, strict=True))


def test_rows_in_another_order_are_refused(tmp_path):
    trainer = make(tmp_path, coin)
    trainer.model.train()
    with pytest.raises(RuntimeError, match="the 4 rows of a question must lie together"):
        trainer._generate_and_score_completions(verbose_sums(3) * 4)


def test_resume_continues_as_if_never_stopped(tmp_path):
    keep = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make(tmp_path / "a", coin, **keep)
    whole.train()
    resumed = make(tmp_path / "b", coin, **keep)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


# Without a second pass


def count_passes(trainer, monkeypatch):
    """Every forward pass over whole responses without gradients: True where the model was in train mode."""
    modes, inner = [], GRPOTrainer._get_per_token_logps_and_entropies

    def spy(self, model, *args, **kwargs):
        if not torch.is_grad_enabled():
            modes.append(model.training)
        return inner(self, model, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", spy)
    return modes


@pytest.mark.parametrize("kind", ["sampled_sum", "full_mean"])
def test_entropies_come_from_the_pass_that_trl_makes_anyway(tmp_path, monkeypatch, kind):
    """With several updates a batch TRL computes the old log-probs: one pass then, not two."""
    trainer = make(tmp_path, coin, num_iterations=2, entropy=kind)
    modes = count_passes(trainer, monkeypatch)
    batch_of(trainer)
    assert modes == [True]
    reused = trainer.last_groups["entropy"]
    own = make(tmp_path, coin, entropy=kind)
    batch_of(own)
    assert modes == [True, False]  # none to reuse: one in eval mode
    torch.testing.assert_close(reused, own.last_groups["entropy"])
    assert own.model.training


def test_dropout_does_not_reach_the_entropies(tmp_path, monkeypatch):
    trainer = make(tmp_path, coin, num_iterations=2)
    trainer.model.config.attention_dropout = 0.3
    modes = count_passes(trainer, monkeypatch)
    batch_of(trainer)
    assert modes == [True, False]


# Evaluation


def test_evaluation_logs_the_papers_measures_with_intervals(tmp_path, monkeypatch):
    """Against each response scored and measured alone; four questions, two responses each, two batches."""
    settings = {"num_generations_eval": 2, "per_device_eval_batch_size": 4}
    trainer = make(tmp_path, coin, mask_truncated_completions=True, **settings)
    seen, modes = [], count_passes(trainer, monkeypatch)
    inner = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda rows: seen.append(inner(rows)) or seen[-1]
    logged = trainer.evaluate(Dataset.from_list(verbose_sums(4, seed=5)))
    assert modes == [False, False]
    correct, length, entropy = [], [], []
    for batch in seen:
        for row in range(4):
            prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            whole = batch["completion_ids"][row]
            ended = (whole == trainer.processing_class.eos_token_id).nonzero()
            response = whole[: ended[0] + 1] if len(ended) else whole
            with torch.no_grad():
                logits = trainer.model(input_ids=torch.cat([prompt, response])[None]).logits[0]
            p = logits[len(prompt) - 1 : -1].softmax(-1).gather(1, response[:, None])
            entropy.append(-(p * p.log()).sum().item())
            length.append(len(response))
            text = trainer.processing_class.decode(response, skip_special_tokens=True)
            correct.append(len(text) % 2)
    assert max(length) == 8  # a truncated one, which training would mask
    assert trainer.mask_truncated_completions
    assert logged["eval_fgo/accuracy"] == pytest.approx(np.mean(correct))
    assert logged["eval_fgo/length"] == pytest.approx(np.mean(length))
    assert logged["eval_fgo/act"] == pytest.approx(1e4 * np.mean(correct) / np.mean(length))
    assert logged["eval_fgo/response_entropy"] == pytest.approx(np.mean(entropy), rel=1e-3)
    questions = np.reshape(length, (4, 2)).mean(1)
    half = 3.182446 * questions.std(ddof=1) / 2  # t with 3 degrees of freedom, sqrt(4) questions
    assert logged["eval_fgo/length_high"] - logged["eval_fgo/length"] == pytest.approx(half)
    assert trainer.evaluate(Dataset.from_list(verbose_sums(2, seed=5)))["eval_fgo/length"] <= 8


def test_evaluation_within_training_is_logged_beside_it(tmp_path):
    held_out = Dataset.from_list(verbose_sums(2, seed=5))
    settings = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    trainer = make(tmp_path, coin, eval_dataset=held_out, **settings)
    trainer.train()
    (entry,) = [one for one in trainer.state.log_history if "eval_loss" in one]
    assert entry["eval_fgo/accuracy_low"] <= entry["eval_fgo/accuracy"] <= entry["eval_fgo/accuracy_high"]
    assert trainer.last_groups["correct"].shape == (3, 4)  # of the training batch


# Warnings


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "labkit.fgo"]


def test_rewards_that_are_not_binary_are_told_once(tmp_path, caplog):
    lengths = lambda completions, **_: [float(len(text)) for text in completions]  # noqa: E731
    make(tmp_path, lengths, max_steps=3).train()
    (line,) = told(caplog)
    assert "<lambda> is not binary (" in line
    assert "\n" not in line


@pytest.mark.parametrize("values", [(0.5, 1.0), (-1.0, -0.5)])
def test_two_values_with_one_verdict_are_not_binary(values):
    watch = Watch("mine")
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labkit.fgo.watch.warn", lines.append)
        watch(torch.tensor([*values, torch.nan]), 0.0, 8, ("1", "2"))
        Watch("ours")(torch.tensor([0.0, 1.0, torch.nan]), 0.0, 8, ("1", "2"))
    assert lines[0].startswith("mine is not binary")
    assert not any(line.startswith("ours") for line in lines)


def test_a_first_batch_without_a_right_answer_is_told_with_an_example(tmp_path, caplog):
    make(tmp_path, lambda completions, **_: [-1.0] * len(completions), max_steps=2).train()
    (line,) = told(caplog)
    assert "none of the first 12 responses is correct by <lambda>" in line
    assert "answer '" in line
    caplog.clear()
    calls = []

    def later(completions, **_):
        calls.append(0)
        return [1.0] + [-1.0] * 11 if len(calls) == 1 else [-1.0] * 12

    make(tmp_path, later, max_steps=2).train()
    assert told(caplog) == []


def test_a_batch_of_truncated_responses_is_told(tmp_path, caplog):
    make(tmp_path, coin, max_completion_length=1, max_steps=2).train()
    lines = [line for line in told(caplog) if "cut" in line]
    assert lines == [
        "FGOTrainer: every response of a batch was cut at max_completion_length=1: none could end"
    ]


# End tokens, checkpoints


def test_every_end_token_of_the_generation_config_ends_a_response(tmp_path, caplog):
    torch.manual_seed(0)
    tokenizer, model = char_tokenizer(), build_char_model(**SMALL)
    semicolon = tokenizer.convert_tokens_to_ids(";")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, semicolon]
    trainer = make(tmp_path, coin, max_completion_length=24, model=model)
    if not hasattr(trainer, "eos_token_ids"):  # an older TRL
        assert "ends responses at token 1 alone, not at [15]" in told(caplog)[0]
        return
    batch = batch_of(trainer)
    ends = 0
    for ids, mask in zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True):
        assert semicolon not in ids[mask][:-1]
        ends += int(ids[mask][-1] == semicolon)
    assert ends > 0


def test_a_checkpoint_in_mid_run_has_its_tokenizer(tmp_path):
    make(tmp_path, coin, save_strategy="steps", save_steps=1, max_steps=2).train()
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == char_tokenizer().get_vocab()


def test_lora_trains_the_adapter_alone_and_has_its_base_as_reference(tmp_path):
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", lora_dropout=0.1)
    trainer = make(tmp_path, coin, beta=0.1, max_steps=2, peft_config=adapter)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, value in trainer.model.named_parameters() if not value.equal(before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert trainer.state.log_history[1]["kl"] > 0


# Errors


BAD = [
    ({"zero_all_wrong": "no"}, "zero_all_wrong must be one of True, False; got 'no'"),
    ({"method": "ppo"}, "method must be one of 'fgo', 'grpo'; got 'ppo'"),
    ({"entropy": "mean"}, "entropy must be one of 'sampled_sum', 'full_sum', 'full_mean'; got 'mean'"),
    ({"scale": "batch"}, "scale must be one of 'none', 'std'; got 'batch'"),
    ({"alpha": -1}, "alpha must be a number in [0, 10]; got -1"),
    ({"beta_entropy": float("nan")}, "beta_entropy must be a number in [0, 10]; got nan"),
    ({"clamp": 0}, "clamp must be a number in [1, 1000]; got 0"),
    # what TRL takes or blames another option for
    ({"beta": -1.0}, "beta must be a number >= 0; got -1.0"),
    ({"beta": float("nan")}, "beta must be a number >= 0; got nan"),
    ({"epsilon": -1.0}, "epsilon must be a number >= 0; got -1.0"),
    ({"epsilon_high": -0.1}, "epsilon_high must be a number >= 0; got -0.1"),
    ({"num_iterations": 0}, "num_iterations must be an integer >= 1; got 0"),
    ({"num_generations": 0}, "num_generations must be an integer >= 2; got 0"),
    ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be an integer >= 1; got 0"),
    ({"steps_per_generation": -1}, "steps_per_generation must be an integer >= 1; got -1"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_config_names_the_bad_setting(tmp_path, change, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        FGOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **change)
    assert str(error.value) == message


def test_trainer_wants_its_own_config(tmp_path):
    with pytest.raises(ValueError, match="args must be an FGOConfig; got 'GRPOConfig'"):
        make(tmp_path, config=GRPOConfig)


# TRL's private interface


def test_private_names_this_trainer_relies_on():
    methods = {
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["self", "inputs"],
        "_get_per_token_logps_and_entropies": [
            "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size",
            "compute_entropy",
        ],
    }  # fmt: skip
    for name, needed in methods.items():
        parameters = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
        assert parameters[: len(needed)] == needed, name


def test_a_trl_without_them_gives_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.delattr(GRPOTrainer, "_calculate_rewards")
    with pytest.raises(RuntimeError, match=r"supports trl >= 1.8 .* lacks _calculate_rewards"):
        make(tmp_path)


# Two processes, a group on both of them


WORKER = """
import sys, torch
from test_fgo_trainer import coin, make
trainer = make(sys.argv[1], coin, per_device_train_batch_size=6, max_steps=2, ddp_backend="gloo")
seen = []
inner = trainer._generate_and_score_completions
def spy(inputs):
    output = inner(inputs)
    seen.append((len(inputs), output["advantages"], {k: v.clone() for k, v in trainer.last_groups.items()}))
    return output
trainer._generate_and_score_completions = spy
trainer.train()
torch.save(seen, f"{sys.argv[1]}/rank{trainer.accelerator.process_index}.pt")
"""


@pytest.mark.slow
def test_groups_may_straddle_two_processes(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{WORKER}")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run([*launch, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == 2
    for (rows, local0, groups), (_, local1, other) in zip(*ranks, strict=True):
        assert rows == 6  # 12 rows in groups of 4: the second group lies on both
        assert groups["advantages"].shape == (3, 4)
        assert all(torch.equal(groups[name], other[name]) for name in groups)
        assert torch.equal(torch.cat([local0, local1]), groups["advantages"].flatten())
        expected = fgo_advantages(groups["correct"], groups["length"], groups["entropy"])
        torch.testing.assert_close(groups["advantages"], expected)
        assert groups["advantages"][1].abs().max() > 0


# The live run


def test_reinforce_returns_a_repeatable_trace_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = build_char_model(**SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"steps": 2, "questions": 2, "group": 3, "max_tokens": 6, "progress": False}
    first, again = (reinforce(model, "fgo", **settings) for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first.step.tolist() == [1, 2]
    assert [sample["step"] for sample in first.samples] == [1] * 6 + [2] * 6
    for name in ("reward", "entropy", "fgo/response_entropy", "fgo/act", "loss"):
        assert np.array_equal(first.series[name], again.series[name], equal_nan=True)
    assert first.samples == again.samples
    assert first.meta["before"] == examine(model, max_tokens=6)
    assert first.meta["after"].keys() == first.meta["before"].keys()
    for sample in first.samples:
        assert sample["length"] <= 6
        assert len(sample["text"]) <= sample["length"]
    with pytest.raises(ValueError, match="method must be one of 'fgo', 'grpo'; got 'ppo'"):
        reinforce(model, "ppo")


def test_reinforce_learns_what_the_reward_asks(monkeypatch):
    """The advantages reach the weights: a reward for ending at once shortens the responses."""
    short = lambda completions, **_: [1.0 if len(c) < 3 else -1.0 for c in completions]  # noqa: E731
    monkeypatch.setattr("labkit.fgo.lab.live.sum_reward", short)
    torch.manual_seed(0)
    trace = reinforce(
        build_char_model(**SMALL), "fgo", steps=25, questions=4, learning_rate=2e-2, max_tokens=12,
        progress=False,
    )  # fmt: skip
    reward = trace.curve("reward")[1]
    assert reward[-5:].mean() > reward[:5].mean() + 0.5
    assert trace.meta["after"]["length"] < trace.meta["before"]["length"] / 2
