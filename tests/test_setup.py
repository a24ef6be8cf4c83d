"""What `make setup` would do to a .venv that is whole, half-made, moved, or lost its interpreter."""

import os
import shutil
import subprocess

import pytest

from labkit.paths import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def planned(folder, *words):
    done = subprocess.run(
        ["make", "-n", "setup", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return "venv --clear .venv" in done.stdout, "pip install" in done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile and a .venv whose python knows pip, made there and ready."""
    folder = tmp_path / "a"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
        os.utime(folder / name, (1, 1))
    python = folder / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (folder / ".venv" / ".ready").write_text(f"{folder}\n")
    return folder


def test_a_whole_environment_is_left_alone(checkout):
    assert planned(checkout) == (False, False)


def test_changed_constraints_are_installed_into_it(checkout):
    os.utime(checkout / "constraints.txt")
    os.utime(checkout / ".venv" / ".ready", (2, 2))
    assert planned(checkout) == (False, True)


def test_an_installation_that_was_cut_off_is_gone_on_with(checkout):
    (checkout / ".venv" / ".ready").unlink()
    assert planned(checkout) == (False, True)


def test_an_environment_without_pip_is_made_anew(checkout):
    (checkout / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    assert planned(checkout) == (True, True)


def test_an_environment_that_lost_its_interpreter_is_made_anew(checkout):
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert planned(checkout) == (True, True)


def test_a_moved_environment_is_installed_into_once_more(checkout):
    checkout.rename(checkout.parent / "b")
    assert planned(checkout.parent / "b") == (False, True)
