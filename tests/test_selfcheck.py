"""The rules of the check at first use: once, loud, switched off by the environment, never in a capture."""

import threading
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
import tokenstats.checked
from sparse24 import selfcheck

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")
KEY = ("some kernel", DEVICE, torch.float16, (35, 64))


@pytest.fixture(autouse=True)
def _nothing_checked_yet(monkeypatch):
    monkeypatch.setattr(selfcheck, "_verdicts", {})
    monkeypatch.delenv("LABKIT_KERNEL_CHECK", raising=False)


def wrong():
    raise AssertionError("3 of 4 elements differ")


def test_both_packages_carry_the_same_file():
    files = [Path(package.__file__) for package in (selfcheck, tokenstats.checked.selfcheck)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0] != files[1]


def test_a_right_kernel_is_compared_once():
    ran = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(selfcheck.ok(KEY, lambda: ran.append(1)) for _ in range(3))
    assert ran == [1]
    assert selfcheck.checked() == {KEY: None}


def test_a_wrong_kernel_is_reported_once_with_kernel_card_and_versions():
    with pytest.warns(RuntimeWarning) as seen:
        assert not any(selfcheck.ok(KEY, wrong, instead="plain torch") for _ in range(3))
    (message,) = {str(w.message) for w in seen}
    assert len(seen) == 1
    import triton

    card = torch.cuda.get_device_name() if GPU else "cpu"
    for part in ("some kernel", "torch.float16", card, torch.__version__, triton.__version__,
                 "3 of 4 elements differ", "using plain torch"):  # fmt: skip
        assert part in message


def test_a_kernel_that_does_not_compile_is_as_wrong():
    def broken():
        raise ValueError("no such instruction")

    with pytest.warns(RuntimeWarning, match="ValueError: no such instruction"):
        assert not selfcheck.ok(KEY, broken)


def test_strict_raises_every_time():
    with pytest.warns(RuntimeWarning):
        selfcheck.ok(KEY, wrong)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="some kernel .*elements differ"):
            selfcheck.ok(KEY, wrong, strict=True)


def test_the_environment_switches_it_off(monkeypatch):
    monkeypatch.setenv("LABKIT_KERNEL_CHECK", "0")
    assert selfcheck.ok(KEY, wrong)
    assert selfcheck.checked() == {}
    monkeypatch.delenv("LABKIT_KERNEL_CHECK")
    with pytest.warns(RuntimeWarning):
        assert not selfcheck.ok(KEY, wrong)
    monkeypatch.setenv("LABKIT_KERNEL_CHECK", "0")
    assert selfcheck.ok(KEY, wrong)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no"), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_out_of_memory_is_no_verdict(error):
    def short():
        raise error

    with pytest.raises(type(error)):
        selfcheck.ok(KEY, short)
    assert selfcheck.ok(KEY, lambda: None)


def test_during_a_capture_it_trusts_and_compares_later(monkeypatch):
    with monkeypatch.context() as during:
        during.setattr(selfcheck, "capturing", lambda device: True)
        assert selfcheck.ok(KEY, wrong)
    with pytest.warns(RuntimeWarning):
        assert not selfcheck.ok(KEY, wrong)
    with monkeypatch.context() as during:  # what is known to be wrong is not trusted again
        during.setattr(selfcheck, "capturing", lambda device: True)
        assert not selfcheck.ok(KEY, wrong)


def test_two_threads_compare_once():
    ran, start = [], threading.Barrier(2)

    def check():
        ran.append(1)
        threading.Event().wait(0.05)  # time for the other thread to come in

    def use():
        start.wait()
        selfcheck.ok(KEY, check)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran == [1]
