"""FGO on a diffusion LM: one-step log-probabilities, the clipped step, calls, the study and its record."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from labkit.soar.load import load_model
from labkit.soar.tasks.sums import ALPHABET, LENGTH, QUESTION, SumsConfig, SumsLM, encode, sums
from labkit.studies import harness
from labkit.studies.fgo import diffusion_claims, page
from labkit.studies.fgo import diffusion_lab as lab
from labkit.studies.fgo.diffusion import STUDY, chosen_rate

DECODING = lab.Decoding(temperature=5.0, threshold=0.9, max_parallel=23)
VOCABULARY = len(ALPHABET)


class Bigram(nn.Module):
    """Logits of a position: those of the token there; token 3 gains with each token that is shown."""

    mask_id = 0

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.linspace(-1, 1, VOCABULARY * VOCABULARY).view(VOCABULARY, -1))

    def forward(self, tokens):
        shown = (tokens[:, :QUESTION] != self.mask_id).sum(1)
        bonus = nn.functional.one_hot(torch.full_like(tokens, 3), VOCABULARY) * shown[:, None, None]
        return self.table[tokens] + 0.1 * bonus


def tiny(seed=0):
    torch.manual_seed(seed)
    return SumsLM(SumsConfig(width=16, layers=1, heads=2)).eval()


def options(**more):
    return SimpleNamespace(
        **{"temperature": 2.0, "clip": 0.5, "iterations": 2, "mask_rate": 0.5, "steps": 2,
           "questions": 3, "group": 4, "terms": (10, 40)} | more
    )  # fmt: skip


# The pieces


def test_one_step_hides_the_response_and_what_is_masked_of_the_prompt():
    model, tokens = Bigram(), encode(["12+30+15=12+30=42;42+15=57;A57.."])
    hidden = torch.zeros(1, QUESTION, dtype=torch.bool)
    hidden[0, :4] = True  # five of the prompt are shown
    logprob, entropy = lab.one_step(model, tokens, hidden, temperature=2.0)
    logits = [(x + 0.5 * (i == 3)) / 2 for i, x in enumerate(model.table[0].tolist())]
    total = sum(np.exp(logits))
    p = [np.exp(x) / total for x in logits]
    expected = [np.log(p[token]) for token in tokens[0, QUESTION:].tolist()]
    assert logprob[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert entropy[0].tolist() == pytest.approx([-sum(q * np.log(q) for q in p)] * 23, abs=1e-5)


def test_prompts_are_masked_at_the_rate_and_anew_with_each_draw():
    source = torch.Generator().manual_seed(0)
    one, other = (lab.prompt_mask(2000, 0.15, source) for _ in range(2))
    assert one.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (one != other).any()


def test_the_loss_clips_a_ratio_that_went_the_way_of_its_advantage():
    """Two slots of the first response, one of the second, by hand."""
    ratio = torch.tensor([[2.0, 1.0], [0.25, 9.0]])
    counted = torch.tensor([[True, True], [True, False]])
    loss = lab.policy_loss(ratio.log(), torch.zeros(2, 2), torch.tensor([1.0, -2.0]), counted, clip=0.5)
    # first: min(2, 1.5) and 1, mean 1.25; second: min(-0.5, -1) = -1
    assert loss.item() == pytest.approx(-(1.25 - 1.0) / 2)


def test_an_inner_step_is_adam_on_the_gradient_that_autograd_finds_of_a_plain_loss():
    texts = sums(4, seed=5, terms=(10, 40))
    tokens, o = encode(texts), options()
    counted = torch.arange(23) <= lab.answer_length(tokens)[:, None]
    pull, hidden = torch.tensor([1.0, -1.0, 0.5, 0.0]), torch.zeros(4, QUESTION, dtype=torch.bool)
    model, twin = tiny(), tiny()
    old = lab.one_step(model, tokens, hidden, o.temperature)[0].detach() + 0.1
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    rollouts = lab.Rollouts(tokens, counted, {})
    loss = lab.inner_step(model, optimizer, rollouts, hidden, old, pull, o)
    # the reference: response by response, slot by slot
    masked = tokens.clone()
    masked[:, QUESTION:] = 0
    logits, total = twin(masked), 0.0
    for row in range(4):
        own = [slot for slot in range(23) if counted[row, slot]]
        for slot in own:
            scores = logits[row, QUESTION + slot] / 2.0
            log_p = scores[tokens[row, QUESTION + slot]] - scores.logsumexp(0)
            ratio = torch.exp(log_p - old[row, slot])
            clipped = ratio if 0.5 < ratio < 1.5 else ratio.detach().clamp(0.5, 1.5)
            total = total - min(ratio * pull[row], clipped * pull[row]) / len(own) / 4
    total.backward()
    norm = torch.cat([weight.grad.flatten() for weight in twin.parameters()]).norm().item()
    assert loss.item() == pytest.approx(total.item(), abs=1e-6)
    for moved, weight in zip(model.parameters(), twin.parameters(), strict=True):
        expected = weight.detach() - weight.grad * min(1.0, 1 / norm)
        torch.testing.assert_close(moved.detach(), expected, atol=2e-6, rtol=1e-4)


class Countdown(nn.Module):
    """Sure of as many of the leftmost masks as the first digit of the question says, of no other."""

    mask_id, eos_id = 0, ALPHABET.index(".")

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))  # tells its device

    def forward(self, tokens):
        step = tokens[:, :1] - ALPHABET.index("0")
        masked = tokens == self.mask_id
        sure = masked & (masked.cumsum(1) <= step)
        logits = torch.zeros(*tokens.shape, VOCABULARY)
        logits[..., ALPHABET.index("7")] = torch.where(sure, 20.0, 2.0)
        return logits


def test_a_row_counts_the_calls_in_which_it_still_had_masks():
    """5 of 23 a call: 5 calls; 8 of 23: 3 calls, in one batch."""
    texts = ["50+30+15=A95".ljust(LENGTH, "."), "80+30+15=A125".ljust(LENGTH, ".")]
    rollouts = lab.roll_out(Countdown(), texts, 1, lab.Decoding(1e-3, 0.9, 23), seed=0)
    assert rollouts.measured["calls"].tolist() == [[5], [3]]
    assert rollouts.measured["tokens"].tolist() == [[23], [23]]
    assert rollouts.measured["correct"].tolist() == [[False], [False]]


def test_a_response_ends_at_its_first_full_stop():
    texts = ["12+30+15=12+30=42;42+15=57;A57.", "12+30+15=12.30.42;42+15=57;A57.", "12+30+15=." + 22 * "."]
    tokens = encode([text.ljust(LENGTH, ".") for text in texts])
    assert lab.answer_length(tokens).tolist() == [21, 2, 0]


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("diffu-GRPO", [1.0, 1.0, -1.0, -1.0]),
        # 1 - 0.25 * 0.5 * calls / 8 and minus that: rewards 0.96875, 0.875, -0.0625, -0.125
        ("linear penalty, calls", [0.5546875, 0.4609375, -0.4765625, -0.5390625]),
    ],
)
def test_advantages_of_the_rivals(arm, expected):
    assert advantages(arm) == pytest.approx(expected)


@pytest.mark.parametrize(("arm", "lengths"), [("FGO, calls", (2, 8, 4, 8)), ("FGO, tokens", (9, 9, 6, 2))])
def test_fgo_weighs_by_what_its_arm_calls_length(arm, lengths):
    """Alike in entropy: softmax of mean / length where right, of length / mean where wrong."""
    a, b, c, d = lengths
    right = np.exp([(a + b) / 2 / a, (a + b) / 2 / b])
    wrong = np.exp([c / ((c + d) / 2), d / ((c + d) / 2)])
    assert advantages(arm) == pytest.approx([*right / right.sum(), *-wrong / wrong.sum()], rel=1e-5)


def advantages(arm):
    measured = {
        "correct": torch.tensor([[True, True, False, False]]),
        "calls": torch.tensor([[2, 8, 4, 8]]), "tokens": torch.tensor([[9, 9, 6, 2]]),
    }  # fmt: skip
    rollouts = lab.Rollouts(torch.zeros(4, LENGTH), torch.ones(4, 23, dtype=torch.bool), measured)
    return lab.advantages_of(arm, rollouts, torch.full((4, 23), -0.5), torch.ones(4, 23)).tolist()


def test_validation_and_test_sums_share_none_and_no_training_asks_them():
    parts = [set(lab.held_out(part, 300, (10, 40))) for part in lab.PARTS]
    assert [len(part) for part in parts] == [300, 300]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & set(sums(5000, seed=1, terms=(10, 40)))


def test_the_same_seed_trains_the_same_model_and_all_arms_see_the_same_first_batch():
    def train(arm, seed):
        model = load_model("lab/sums")
        log = lab.reinforce(model, arm, seed, 1e-3, DECODING, options(temperature=5.0))
        return log, model.state_dict()

    (log, weights), (again, twin) = (train("FGO, calls", 3) for _ in range(2))
    assert log == again
    assert all(torch.equal(weights[name], twin[name]) for name in weights)
    other, _ = train("diffu-GRPO", 3)
    assert all(other[0][name] == log[0][name] for name in ("correct", "calls", "tokens"))
    assert other[1] != log[1]


# The study


def call(folder, *words):
    return harness.run(STUDY, ["--tiny", "--device", "cpu", "--out", str(folder), *map(str, words)])


def test_a_rehearsal_writes_every_arm_and_leaves_out_what_stands(tmp_path, capsys):
    assert call(tmp_path, "--rate", 1e-3) == 0
    path = tmp_path / "diffusion.json"
    found = json.loads(path.read_text())
    assert {run["training"]["arm"] for run in found["runs"].values()} == set(lab.ARMS)
    for run in found["runs"].values():
        assert run["part"] == "test"
        for how in lab.HOW:
            assert len(run["exam"][how]["right"]) == 6
            assert set(run["exam"][how]["right"]) <= {"0", "1"}
        assert run["exam"]["one call"]["calls"] == 1.0
    capsys.readouterr()
    before = path.read_text()
    assert call(tmp_path, "--rate", 1e-3, "--stages", "arms") == 0
    assert capsys.readouterr().out.count("stands in diffusion.json") == 4
    assert path.read_text() == before


def test_a_deadline_begins_no_further_run(tmp_path, capsys):
    assert call(tmp_path, "--rate", 1e-3, "--seconds", 0) == 0
    assert not (tmp_path / "diffusion.json").exists()
    assert "no time left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--terms", 10, 50), r"--terms must be the smallest and the largest, from 1 to 49; got [10, 50]"),
        (("--terms", 10), r"--terms must be the smallest and the largest, from 1 to 49; got [10]"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, capsys, words, told):
    assert call(tmp_path, *words) == 2
    assert told in capsys.readouterr().err


def test_without_a_rate_one_is_chosen_on_validation(tmp_path, capsys):
    plain = ["--out", str(tmp_path), "--device", "cpu", "--arm", "FGO, calls", "--stages", "arms"]
    assert harness.run(STUDY, plain) == 2
    assert "no validation run chose one of FGO, calls" in capsys.readouterr().err


def exam_of(accuracy, calls):
    return {"sampled": {"accuracy": accuracy, "calls": calls}}


def test_of_rates_within_a_point_the_one_with_the_fewest_calls_is_chosen():
    def run(rate, seed, accuracy, calls, steps=60):
        about = {"arm": "FGO, calls", "seed": seed, "rate": rate, "steps": steps, "terms": [10, 40]}
        return {"training": about, "exam": exam_of(accuracy, calls)}

    runs = [
        run(1e-4, 1000, 0.70, 4.0), run(1e-4, 1001, 0.71, 4.0),  # 0.705 in 4 calls
        run(3e-4, 1000, 0.69, 3.0), run(3e-4, 1001, 0.705, 3.0),  # 0.6975 in 3: within a point
        run(1e-3, 1000, 0.50, 1.0), run(1e-3, 3, 0.99, 1.0),  # too far off; a test seed has no say
        run(3e-5, 1000, 0.99, 1.0, steps=5),  # of another length
    ]  # fmt: skip
    found = {"runs": {str(index): one for index, one in enumerate(runs)}}
    assert chosen_rate(found, "FGO, calls", {"steps": 60, "terms": (10, 40)}) == 3e-4
    assert chosen_rate(found, "diffu-GRPO", {"steps": 60}) is None


# The record


def run_of(arm, seed, right, calls):
    exam = {"right": right, "questions": len(right), "calls": calls, "length": 20.0}
    made = {
        "arm": arm, "seed": seed, "rate": 1e-4, "steps": 2, "questions": 3, "group": 4, "iterations": 2,
        "terms": [10, 40], "temperature": 5.0, "threshold": 0.9,
    }  # fmt: skip
    about = {"provenance": {"device": "Card 9", "time": "2026-01-02T03:04"}}
    return {"training": made, "exam": dict.fromkeys(lab.HOW, exam), **about}


def test_without_a_record_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(diffusion_claims, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError):
        diffusion_claims.claims()
    assert page._recorded("A diffusion model", diffusion_claims, "diffusion") == []


def test_the_findings_are_those_of_the_record(monkeypatch, tmp_path):
    """FGO answers one question of four more in every seed, in three quarters of the calls."""
    monkeypatch.setattr(diffusion_claims, "RESULTS", tmp_path)
    units = {}
    for seed in (0, 1, 2, 1000):
        units[f"grpo-{seed}"] = run_of("diffu-GRPO", seed, "0110", 4.0 + seed % 10)
        units[f"fgo-{seed}"] = run_of("FGO, calls", seed, "1110", (4.0 + seed % 10) * 0.75)
    first = run_of("", 0, "0100", 4.5)
    record = {"first": {"test": first["exam"], "provenance": first["provenance"]}, "runs": units}
    (tmp_path / "diffusion.json").write_text(json.dumps(record))
    (row,) = diffusion_claims.claims()
    assert list(diffusion_claims.runs(record)) == ["diffu-GRPO", "FGO, calls"]
    assert row.measured.startswith("FGO, calls minus diffu-GRPO: accuracy +25.0 points (95 % ")
    assert "calls -25.0 % (95 % -25.0 to -25.0, 3 seeds): fewer" in row.measured
    assert row.measured.endswith(", characters the same")
    told = "lab/sums on sums of 10 to 40; 6 questions a run; 2 settings on validation seeds"
    assert row.conditions == f"Card 9, 2026-01-02; {told}"
    text = "\n".join(page._recorded("A diffusion model", diffusion_claims, "diffusion"))
    assert "## A diffusion model" in text
    assert "2 steps of 3 questions x 4 responses, 2 inner steps" in text
    # three seeds, 3.0, 3.75, 4.5 calls: t(0.975, 2) * 0.75 / sqrt(3) = 1.86
    assert "| FGO, calls | 0.0001 | 3 | 75.0 (75.0 to 75.0) | 3.75 (1.89 to 5.61) |" in text
    assert "| before |  | 1 | 25.0 (" in text
