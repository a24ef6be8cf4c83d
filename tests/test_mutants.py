"""The mutation check itself: its faults fit today's code, and it tells a survivor from a caught fault."""

import dataclasses

import mutants
import pytest

from labkit.paths import ROOT

NAN = next(fault for fault in mutants.FAULTS if fault.name == "record accepts NaN")


@pytest.mark.parametrize("fault", mutants.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_fits_the_code(fault):
    source = (ROOT / fault.file).read_text()
    changed = fault.apply(source)
    assert changed != source
    compile(changed, fault.file, "exec")


def test_names_are_unique():
    names = [fault.name for fault in mutants.FAULTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("source", ["", "ab ab"])
def test_a_stale_fault_names_itself(source):
    fault = mutants.Fault("swapped", "a.py", "ab", "ba", ())
    with pytest.raises(mutants.Unusable, match="'swapped' is stale: .* once in a.py"):
        fault.apply(source)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the copy is made from git's list of files")
def test_a_survivor_and_a_red_suite_are_told(monkeypatch, capsys):
    before = (ROOT / NAN.file).read_text()
    harmless = dataclasses.replace(NAN, name="only words", old="for the runner to collect", new="for later")
    monkeypatch.setattr(mutants, "FAULTS", (NAN, harmless))
    assert mutants.main([]) == 1
    told = capsys.readouterr()
    assert "test_only_finite_numbers" in told.out
    assert "SURVIVED" in told.out
    assert "1 of 2 faults caught" in told.out
    monkeypatch.setattr(mutants, "FAULTS", (dataclasses.replace(NAN, tests=("tests/no_such_test.py",)),))
    assert mutants.main([]) == 2
    assert "must pass without any fault" in capsys.readouterr().err
    assert (ROOT / NAN.file).read_text() == before
