"""The one notion of device: which card, why none, and what the process is then shown."""

import os

import pytest
import torch

from labkit import device

OLD = "0, GPU-aaaa, Tesla V100, 7.0, 31000, 32768"
FULL = "1, GPU-bbbb, NVIDIA A100, 8.0, 500, 40960"
GOOD = "2, GPU-cccc, NVIDIA H100, 9.0, 80000, 81559"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(lines, visible): a driver that tells these GPUs, a torch that could use them."""

    def make(*lines, visible=None):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(lines))
        monkeypatch.setattr(device, "_shown", visible)
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", device.VARIABLE):
            monkeypatch.setenv(name, "")  # so that what ``use`` sets is undone
        device.automatic.cache_clear()

    yield make
    device.automatic.cache_clear()


def test_the_first_card_that_is_new_and_free_enough(machine, capsys):
    machine(OLD, FULL, GOOD)
    assert device.use() == device.current() == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-cccc"
    told = capsys.readouterr().out
    assert told.startswith("device: cuda, NVIDIA H100, 78 of 80 GiB free; ")
    assert told.count("\n") == 1


def test_a_machine_whose_cards_will_not_do_computes_on_its_cpu_and_says_why(machine, capsys):
    machine(OLD, FULL)
    assert device.use("auto") == device.current() == "cpu"
    told = capsys.readouterr().out
    assert "cuda:0 (Tesla V100) has capability 7.0, the lab needs 8.0" in told
    assert "cuda:1 (NVIDIA A100) has 0.5 of 40 GiB free, the lab wants 2" in told
    assert told.count("\n") == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_card_that_is_asked_for_is_never_another_one(machine):
    machine(OLD, FULL, GOOD)
    with pytest.raises(ValueError, match=r"device must be auto or cpu, .*cuda:0 .*7\.0.*; got 'cuda:0'"):
        device.use("cuda:0")
    with pytest.raises(ValueError, match=r"device must be .*\(torch and the driver show 3 GPUs here\)"):
        device.use("cuda:3")
    assert device.use("cuda:2") == "cuda"
    assert device.use("cuda:2") == "cuda"  # the numbers are those of before the first call


def test_without_a_gpu(machine, monkeypatch):
    machine()
    assert device.use() == "cpu"
    with pytest.raises(ValueError, match=r"device must be .*show 0 GPUs.*got 'cuda'"):
        device.class_of("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)  # a CPU build beside a fine card
    assert device.cards() == []


@pytest.mark.parametrize(("visible", "uuids"), [
    ("2", ["GPU-cccc"]), ("2,0", ["GPU-cccc", "GPU-aaaa"]), ("GPU-bb", ["GPU-bbbb"]),
    ("", []), ("-1", []), ("2,7,0", ["GPU-cccc"]),  # CUDA stops at what it does not know
])  # fmt: skip
def test_cards_are_numbered_as_cuda_shows_them(machine, visible, uuids):
    machine(OLD, FULL, GOOD, visible=visible)
    found = device.cards()
    assert [card.uuid for card in found] == uuids
    assert [card.number for card in found] == list(range(len(uuids)))


@pytest.mark.parametrize("word", ["tpu", "cuda:", "cuda:x", "cpu:0", "auto:1", "", None, 0])
def test_other_words_are_one_error(word):
    with pytest.raises(ValueError, match=r"device must be auto, cpu, cuda or cuda:N; got"):
        device.resolve(word)


def test_the_reference_can_be_asked_for(machine, monkeypatch, capsys):
    machine(GOOD)
    monkeypatch.setenv("LABKIT_KERNEL", "reference")
    device.use("cuda")
    assert "plain torch" in capsys.readouterr().out


def test_memory_is_what_the_driver_told_at_most(machine):
    machine(GOOD)
    with device.Memory() as memory:
        memory._thread.join(0.7)
    assert memory.most == 81559 - 80000


def test_a_device_of_the_environment_is_one_that_is_here(machine, monkeypatch):
    machine(GOOD)
    for settled, build in (("gpu", "13.0"), ("cuda:1", "13.0"), ("auto", "13.0"), ("cuda", None)):
        monkeypatch.setenv("LABKIT_DEVICE", settled)
        monkeypatch.setattr(torch.version, "cuda", build)
        with pytest.raises(ValueError, match=rf"\$LABKIT_DEVICE must be one of 'cpu'.*; got '{settled}'"):
            device.class_of()
    monkeypatch.setenv("LABKIT_DEVICE", "cpu")
    assert device.class_of() == "cpu"


def test_a_cuda_build_without_a_driver_has_no_cuda(machine, monkeypatch):
    machine()
    monkeypatch.setenv("LABKIT_DEVICE", "cuda")
    with pytest.raises(ValueError, match=r"^\$LABKIT_DEVICE must be one of 'cpu'; got 'cuda'$"):
        device.class_of()
    machine(GOOD)
    monkeypatch.setenv("LABKIT_DEVICE", "cuda")
    assert device.class_of() == "cuda"
