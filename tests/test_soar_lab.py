"""The shipped models, their training, the study and the bench, at the smallest size that says something."""

import json
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from labkit.paths import CHECKPOINTS
from labkit.soar import decode, load_model
from labkit.soar.models.fixed_batch import FixedBatch
from labkit.soar.tasks.puzzle_sets import load_puzzles
from labkit.soar.tasks.sudoku import solved
from labkit.soar.tasks.sudoku_model import SudokuConfig, SudokuLM
from labkit.soar.tasks.sums import SumsConfig, SumsLM, sums
from labkit.studies import harness
from labkit.studies.soar import bench, lab_model, records
from labkit.studies.soar import study as lab_study
from labkit.studies.soar.llada_shape import random_llada
from labkit.studies.soar.outcomes import family, label
from labkit.traces import TrainTrace


@pytest.fixture(scope="module")
def early():
    return load_model("lab/sudoku9-early")


@pytest.mark.parametrize(("name", "least"), [("sudoku9", 0.5), ("sudoku9-early", 0.2)])
def test_a_shipped_model_comes_with_its_card_and_can_do_what_it_says(name, least):
    card = json.loads((CHECKPOINTS / f"{name}.json").read_text())
    model = load_model(f"lab/{name}")
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]
    assert {"command", "seed", "device", "steps", "data", "versions"} <= set(card)
    boards, truths = load_puzzles("test", 8)
    trace = decode(model, torch.from_numpy(boards), "adaptive", threshold=0.95, record=False)
    assert solved(trace.sequences, truths).mean() >= least
    assert (trace.sequences > 0).all()


def test_fixed_rows_make_an_answer_independent_of_the_batch(early):
    model = FixedBatch(early, 2)
    boards = torch.from_numpy(load_puzzles("test", 4)[0])
    given = {"beam": 3, "threshold": 0.99, "min_collapse": 2, "record": False}
    many = decode(model, boards, "soar", **given)
    for index in (0, 3):
        alone = decode(model, boards[index : index + 1], "soar", **given)
        assert alone.sequences[0].tolist() == many.sequences[index].tolist()
        assert alone.scores[0] == many.scores[index]  # to the last bit
    torch.testing.assert_close(model(boards), early(boards), atol=1e-4, rtol=1e-4)
    where = torch.tensor([[0, 5]]).expand(4, -1)
    assert torch.equal(model.logits_at(boards, where), model(boards)[:, [0, 5]])


def test_fixed_rows_are_for_the_labs_own_models():
    with pytest.raises(ValueError, match="model must be one of the lab's own models; got 'Linear'"):
        FixedBatch(torch.nn.Linear(1, 1), 2)
    with pytest.raises(ValueError, match="fixed_rows must be None for a model that is not the lab's own"):
        load_model("somewhere", fixed_rows=8)
    with pytest.raises(ValueError, match=r"tokens must be of shape \(B, 16\)"):
        FixedBatch(SudokuLM(SudokuConfig()), 2)(torch.zeros(1, 81, dtype=torch.long))


def test_a_file_of_another_kind_is_one_clear_error(tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"no header")
    save_file({"weight": torch.zeros(2)}, tmp_path / "plain.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "fields.safetensors", {"config": '{"sides": 9}'})
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors", {"config": '{"side": 9}'})
    save_file({"weight": torch.zeros(2)}, tmp_path / "deep.safetensors", {"config": "[" * 10**5})
    for name in ("missing", "damaged", "plain", "fields", "weights", "deep"):
        with pytest.raises(
            ValueError, match=f"name must be a file that labkit.studies soar-models.*{name}"
        ):
            load_model(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("layers", "width", "norm"), [(10**9, 4, 4), (1, 2**40, 4), (1, 2**20, 2**20), (2, 4, 4), (1, 8, 8)]
)
def test_a_card_that_asks_for_more_than_the_file_holds_takes_no_memory(layers, width, norm, tmp_path):
    weights = SudokuLM(SudokuConfig(width=4, layers=1)).state_dict() | {"norm.weight": torch.zeros(norm)}
    card = {"config": json.dumps({"side": 4, "heads": 4, "layers": layers, "width": width}), "card": "{}"}
    save_file(weights, tmp_path / "m.safetensors", card)
    with pytest.raises(ValueError, match=f"weights have the shapes of SudokuConfig.*width={width}"):
        SudokuLM.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("what", ["sudoku9", "sums"])
def test_the_trainer_writes_model_card_and_curves(what, tmp_path, monkeypatch):
    monkeypatch.setattr(lab_model, "training_puzzles", lambda count: load_puzzles("test", count))
    monkeypatch.setattr(lab_model, "HEADROOM", (0.0, 0.5, 1.0))
    words = f"--stages {what} --tiny --device cpu --out {tmp_path}".split()
    assert harness.run(lab_model.STUDY, words) == 0
    model, card = (SudokuLM if what == "sudoku9" else SumsLM).load(tmp_path / f"{what}.safetensors")
    assert card == json.loads((tmp_path / f"{what}.json").read_text())
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert card["steps"] > 0
    assert (tmp_path / "sudoku9-early.json").exists() == (what == "sudoku9")
    trace = TrainTrace.load(tmp_path / f"{what}_training.npz")
    assert len(trace.curve("solved")[0]) >= 2
    again = load_model(tmp_path / f"{what}.safetensors", fixed_rows=2)
    assert isinstance(again.model, type(model))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_training_moves_the_loss():
    torch.manual_seed(0)
    texts = lab_model.encode(sums(200))
    draw = lambda source: lab_model.sums_batch(texts, 16, source)  # noqa: E731
    model = SumsLM(SumsConfig(32, 1, 2))
    options = {"seconds": 3, "every": 9, "learning_rate": 3e-3, "warmup": 5}
    trace, shots = lab_model.train(model, draw, lambda twin: 0.25, **options)
    loss = trace.curve("loss")[1]
    assert loss[-1] < loss[0] - 0.3
    assert [shot["solved"] for shot in shots] == [0.25]


def test_the_question_is_never_masked_and_clues_neither():
    source = torch.Generator().manual_seed(0)
    inputs, targets, masked = lab_model.sums_batch(lab_model.encode(sums(50)), 200, source)
    assert not masked[:, : lab_model.QUESTION].any()
    assert (inputs[masked] == 0).all()
    assert (inputs[~masked] == targets[~masked]).all()
    assert 0.3 < masked[:, lab_model.QUESTION :].float().mean() < 0.7
    boards, answers = (torch.from_numpy(part) for part in load_puzzles("test", 20))
    inputs, targets, masked = lab_model.sudoku_batch(boards, answers, 50, source)
    assert ((inputs == 0) == masked).all()
    assert masked.sum(1).max() <= (boards == 0).sum(1).max()


def test_the_early_checkpoint_has_headroom():
    shots = [{"solved": share} for share in (0.2, 0.62, 0.74, 0.83, 0.76)]
    assert lab_model.early(shots) is shots[2]  # the last is the final one
    assert lab_model.early(shots[:1] + shots[-1:]) is None


def test_the_study_chooses_on_validation_tests_once_and_goes_on(tmp_path, monkeypatch, capsys):
    wanted, every = ["greedy", "adaptive .9, uncapped", "soar 2, .9"], lab_study.settings()
    monkeypatch.setattr(lab_study, "settings", lambda: [s for s in every if label(s) in wanted])
    monkeypatch.setattr(lab_study, "ablations", list)
    out = tmp_path / "study.json"
    words = f"--checkpoints lab/sudoku9 --tiny --device cpu --out {tmp_path}".split()
    assert harness.run(lab_study.STUDY, words) == 0
    found = records.study(out)["lab/sudoku9"][0]
    assert [o["label"] for o in found["validation"]] == wanted
    assert not any("right" in o for o in found["validation"])
    assert found["chosen"]["soar, accurate"] == "soar 2, .9"
    assert {o["label"] for o in found["test"]} == set(wanted)
    assert [o["right"].mean() for o in found["test"]] == [o["accuracy"] for o in found["test"]]
    assert found["tried"] == {"greedy": 1, "parallel": 0, "adaptive": 0, "adaptive uncapped": 1, "pbs": 0,
                              "soar": 1}  # fmt: skip
    assert found["training"]["steps"] == 9466
    assert "soar --checkpoints lab/sudoku9 --tiny" in found["provenance"]["command"]
    assert "Settings tried on 1 puzzles: greedy 1" in capsys.readouterr().out
    monkeypatch.setattr(lab_study, "compare", None)  # nothing is left to run
    assert harness.run(lab_study.STUDY, words) == 0
    monkeypatch.setattr(lab_study, "kernel_digest", lambda: "another kernel")
    assert harness.run(lab_study.STUDY, words) == 1  # and everything is, once the kernel has changed
    assert "'NoneType' object is not callable" in (tmp_path / "errors.txt").read_text()


def test_the_budget_of_tuning_is_the_same_for_soar_and_adaptive_decoding():
    tried = Counter(family(s) for s in lab_study.settings())
    assert tried["soar"] == tried["adaptive"] == tried["adaptive uncapped"] == 18
    every = lab_study.settings() + lab_study.ablations()
    assert len({label(s) for s in every}) == len(every)


def test_records_of_other_seeds_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_study, "RECORD", {"training": {"name": str}})
    context = SimpleNamespace(command="", out=tmp_path)
    context.write = partial(harness.Context.write, context)
    test = [{"label": "greedy", "right": np.arange(9) % 3 == 0}]
    for index in (2, 0):
        record = {"training": {"name": "lab/nine", "seed": index}, "puzzles": {"test": 9}, "test": test}
        lab_study.save(record, context)
    found = records.study(tmp_path / "study.json")["lab/nine"]
    assert list(found) == [0, 2]
    assert (found[2]["test"][0]["right"] == test[0]["right"]).all()


def test_the_bench_finds_the_same_answers(tmp_path, capsys):
    words = f"--stages lab llada --prompts 1 --tiny --device cpu --out {tmp_path}".split()
    assert harness.run(bench.STUDY, words) == 0
    lab = json.loads((tmp_path / "bench_lab.json").read_text())
    assert set(lab["same answer"].values()) == {1.0}
    assert lab["tokens per second"]["batched"] > 0
    llada = json.loads((tmp_path / "bench_llada.json").read_text())
    assert (llada["shape"], llada["same tokens"]) == ("tiny", 1)
    assert all(0 < share < 1 for found in llada["share"].values() for share in found["share"])
    assert lab["provenance"]["kernel"] == records.kernel_digest()


def test_the_forward_is_timed(early):
    timed = bench.Timed(early)
    boards = torch.from_numpy(load_puzzles("test", 1)[0])
    found = bench._share(timed, boards, {"strategy": "adaptive", "threshold": 0.5}, 2)
    assert len(found["wall"]) == 2
    assert all(0 < inside < wall for inside, wall in zip(found["forward"], found["wall"], strict=True))
    assert timed.seconds() == 0


def test_llada_rotates_in_fp32_and_rounds_once():
    model = random_llada("cpu", tiny=True)
    layer, seen = model.net.model.layers[0].self_attn, {}
    layer.q_proj.register_forward_hook(lambda _m, _i, out: seen.update(q=out))
    from labkit.soar.models import rope

    kept = rope.sdpa_attention_forward
    rope.sdpa_attention_forward = lambda m, q, *rest, **given: (
        seen.setdefault("rotated", q),
        kept(m, q, *rest, **given),
    )[1]
    try:
        model(torch.randint(0, 400, (1, 300)))
    finally:
        rope.sdpa_attention_forward = kept
    q = seen["q"].view(1, 300, 4, 16).transpose(1, 2).float()
    angle = torch.arange(300)[:, None] * 500000.0 ** (-torch.arange(8) / 8)
    a, b = q[..., :8], q[..., 8:]
    by_hand = torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
    assert seen["rotated"].dtype == torch.bfloat16
    assert (seen["rotated"] == by_hand.bfloat16()).float().mean() > 0.999  # fp32 rounds rarely across
    coarse = torch.cat([angle, angle], 1).cos().bfloat16().float()
    assert (coarse - torch.cat([angle, angle], 1).cos()).abs().max() > 1e-3  # what the stock class loses
