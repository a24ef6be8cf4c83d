"""The 60M study: its loss in chunks, its text in parts, runs that are left and gone on with, records."""

import dataclasses
import io
import json
import lzma
import shutil
import tarfile

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from labkit.elas import ElasConfig, ElasForCausalLM, PretrainConfig
from labkit.elas.data import END
from labkit.elas.sources import kernel
from labkit.studies.__main__ import main
from labkit.studies.elas import corpus, longrun, paper60m
from labkit.studies.elas.longrun import LongRun, flops_per_token
from labkit.studies.elas.trainstep import HeadLoss, loss_and_gradient

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
CONFIG = PretrainConfig(
    arm="elas_ste", model=SMALL | {"rank": 8}, vocab_size=300, seq_len=32, batch_size=4, steps=12,
    lr_warmup=2, dense_steps=6, exact_every=4, log_every=1, eval_every=2, eval_tokens=128,
)  # fmt: skip


def letters(seed: int, size: int) -> str:
    return bytes(np.random.default_rng(seed).integers(97, 105, size, dtype=np.uint8)).decode()


@pytest.fixture(scope="session")  # of a module they would be made anew between stolen tests
def parts(tmp_path_factory):
    """A source of 90 folders with two files each, in two parts."""
    found = [(f"d{i}/x/{name}.c", letters(2 * i + (name == "b"), 400)) for i in range(90) for name in "ab"]
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            corpus, "documents", lambda source: iter([*found, ("nul.c", "a\0b"), ("empty.c", "")])
        )
        about = corpus.write_parts("sympy", folder, 2, 300)
    return folder, dict(found), about


@pytest.fixture(scope="session")
def text(parts, tmp_path_factory):
    return corpus.read_parts(parts[0], tmp_path_factory.mktemp("cache"))


def test_the_loss_in_chunks_is_the_cross_entropy():
    """Against autograd in float64; 23 rows in chunks of 5 leave one of 3."""
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(23, 8, generator=draw), torch.randn(50, 8, generator=draw)
    targets = torch.randint(50, (23,), generator=draw)
    found = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = HeadLoss.apply(*found, targets, 5, loss_and_gradient)
    (3 * loss).backward()
    true = [x.double().requires_grad_(), weight.double().requires_grad_()]
    expected = F.cross_entropy(true[0] @ true[1].T, targets)
    (3 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    for mine, theirs in zip(found, true, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=1e-7)


def test_whole_folders_are_held_out_and_nothing_is_lost(parts):
    folder, found, about = parts
    sides = {
        path.stem: lzma.decompress(path.read_bytes()).decode().split("\0") for path in folder.glob("*.xz")
    }
    assert set(sides) == {"held-out", "train-0", "train-1"}
    assert sorted(text for texts in sides.values() for text in texts) == sorted(found.values())
    held = {name for name, text in found.items() if text in sides["held-out"]}
    assert held
    for name in held:  # both files of the folder, or none
        assert {name.replace("b.c", "a.c"), name.replace("a.c", "b.c")} <= held
    assert sum(one["documents"] for one in about["files"].values()) == 180
    assert about["licences"] == {"sympy": "BSD-3-Clause"}
    assert corpus.unit("linux/drivers/net/ethernet/intel/ice/ice.c") == "linux/drivers/net/ethernet/intel"
    assert corpus.unit("gcide/00012") == "gcide/00012"


def test_the_parts_are_encoded_once_and_decode_to_the_documents(parts, text, tmp_path):
    folder, _, _ = parts
    end = text.tokenizer.token_to_id(END)
    for side, files in {"train": ("train-0", "train-1"), "held_out": ("held-out",)}.items():
        stream = getattr(text, side)
        told = [text.tokenizer.decode(s[s != end]) for s in np.split(stream, np.flatnonzero(stream == end))]
        packed = b"\0".join(lzma.decompress((folder / f"{file}.xz").read_bytes()) for file in files)
        assert [one for one in told if one] == packed.decode().split("\0")
    assert text.token_bytes[text.train].sum() + text.token_bytes[text.held_out].sum() == 180 * 400
    first = corpus.read_parts(folder, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 3
    again = corpus.read_parts(folder, tmp_path)
    assert again.name == first.name == text.name
    assert np.array_equal(again.train, text.train)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match=r"^text must be a folder with tokenizer\.json, held-out\.xz and"):
        corpus.read_parts(tmp_path, tmp_path)


def test_a_kernel_package_gives_what_people_wrote_once(monkeypatch):
    def packed(files: dict[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:xz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()

    tree = {
        "l/init/main.c": b"int main;\n", "l/init/copy.c": b"int main;\n", "l/fs/Kconfig": b"config FS\n",
        "l/drivers/gpu/drm/amd/include/r.h": b"#define R 1\n", "l/logo.ppm": b"P3\n",
        "l/Documentation/a.rst": b"A\xff\n", "l/table.h": b"x" * 300_000,
    }  # fmt: skip
    content = packed({"./usr/src/linux-source-9.tar.xz": packed(tree)})
    archive = b"!<arch>\n" + f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(content):<10}`\n".encode()
    assert dict(kernel(archive + content)) == {
        "init/main.c": "int main;\n", "Documentation/a.rst": "A\ufffd\n", "fs/Kconfig": "config FS\n",
    }  # fmt: skip


def long(text, keep, config=CONFIG) -> LongRun:
    return LongRun(config, text, "cpu", keep, 50, compiled=False, dtype=torch.bfloat16)


def cut(text, keep, at: int, monkeypatch) -> None:
    """Train up to an evaluation and leave, as a deadline does."""
    with monkeypatch.context() as patch:
        patch.setattr(LongRun, "_reached", reached := LongRun._reached)
        patch.setattr(
            LongRun, "_reached", lambda self, log, late: (reached(self, log, True), _stop(log, at))
        )
        with pytest.raises(KeyboardInterrupt):
            long(text, keep).train()


def _stop(log, at: int) -> None:
    if log[-1]["step"] == at:
        raise KeyboardInterrupt


@pytest.fixture(scope="session")
def finished(text, tmp_path_factory):
    """A run that nothing stopped, its checkpoint and its trace."""
    torch.set_num_threads(1)  # as in every test, which a fixture of the session comes before
    keep = tmp_path_factory.mktemp("whole") / "whole.pt"
    run = long(text, keep)
    return run, keep, run.train()


@pytest.mark.parametrize("at", [2, 4, 6, 8, 10])  # before, at and after the mask; at exact steps
def test_a_run_that_was_left_goes_on_bit_for_bit(text, finished, tmp_path, monkeypatch, at):
    whole, _, expected = finished
    cut(text, tmp_path / "cut.pt", at, monkeypatch)
    run = long(text, tmp_path / "cut.pt")
    found = run.train()
    assert found.meta["steps_done"] == 12
    assert found.curve("mask_on")[1].tolist() == [0, 0, 0, 0, 1, 1, 1]
    for name in expected.series.keys() - {"train_seconds"}:
        assert np.array_equal(expected.series[name], found.series[name], equal_nan=True), name
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name]), name
    assert expected.meta["test_nats"] == found.meta["test_nats"]


def test_a_finished_run_is_judged_again_and_another_one_refused(text, finished, tmp_path):
    _, keep, first = finished
    shutil.copyfile(keep, tmp_path / "a.pt")
    again = long(text, tmp_path / "a.pt").train()
    assert again.meta["steps_done"] == 12
    assert again.meta["test_nats"] == first.meta["test_nats"]
    assert np.array_equal(first.series["train_seconds"], again.series["train_seconds"], equal_nan=True)
    with pytest.raises(ValueError, match="^state must be a checkpoint of"):
        long(text, tmp_path / "a.pt", dataclasses.replace(CONFIG, lr=0.02)).train()


def test_a_passed_deadline_leaves_a_checkpoint_at_the_next_evaluation(text, tmp_path):
    trace = long(text, tmp_path / "a.pt").train(deadline=0)
    assert trace.meta["steps_done"] == 2
    assert torch.load(tmp_path / "a.pt")["log"][-1]["step"] == 2


def test_operations_are_six_for_each_weight_that_a_token_meets():
    """The dense 60M model by hand: 8 (4h² + 3hi) + Vh + 17h, and 6 L h S of causal attention."""
    config = ElasConfig.from_name("60m", vocab_size=32000, rank=None, ffn="swiglu", sparse=False)
    with torch.device("meta"):
        count = sum(p.numel() for p in ElasForCausalLM(config).parameters())
    met = 8 * (4 * 512 * 512 + 3 * 512 * 1376) + 32000 * 512 + 17 * 512
    assert flops_per_token(config, count, 256) == 6 * met + 6 * 8 * 512 * 256


def test_the_schedule_keeps_the_papers_proportions():
    whole = paper60m.settings("elas_ste", 10_000, tiny=False)
    assert (whole.lr_warmup, whole.dense_steps, whole.exact_every, whole.lr) == (1000, 1000, 500, 0.01)
    assert whole.batch_size * whole.seq_len * whole.steps == 1_310_720_000
    some = paper60m.settings("elas_no_warmup", 4000, tiny=False)
    assert (some.lr_warmup, some.dense_steps, some.exact_every) == (400, 0, 200)
    assert "4,000 of 10,000 steps, 0.524 of 1.31 billion tokens" in paper60m.differences(some)[1]


def test_the_command_leaves_one_record_an_arm(tmp_path, parts):
    words = ["elas-60m", "--tiny", "--device", "cpu", "--out", str(tmp_path), "--text", str(parts[0])]
    words += ["--stages", "throughput", "arms", "--arms", "dense_swiglu", "elas_ste"]
    assert main(words) == 0
    times = json.loads((tmp_path / "throughput.json").read_text())
    assert set(times["arms"]) == {"dense_swiglu", "elas_ste"}
    a, b = (json.loads((tmp_path / f"{arm}.json").read_text()) for arm in times["arms"])
    assert a["steps_done"] == b["steps_done"] == 6
    assert b["tokens_done"] == 6 * 2 * 64
    assert a["curves"]["loss"]["step"] == [1, 2, 3, 4, 5, 6]
    assert a["mfu"] is None  # no peak is known of a CPU
    assert a["text"] == b["text"]
    assert a["unigram_nats"] == b["unigram_nats"]
    assert b["curves"]["mask_on"]["values"] == [0, 0, 1, 1]


def test_checkpoints_are_rare_but_at_the_end(text, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(longrun, "write_atomic", lambda path, write: written.append(path))
    run = long(text, tmp_path / "a.pt")
    run.train()
    assert len(written) == 1
