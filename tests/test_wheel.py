"""The wheel stands alone: installed away from the checkout, it lists, runs and reports the same."""

import json
import os
import shutil
import subprocess
import sys
import venv

import pytest

from labkit.notebooks import describe, find_notebooks
from labkit.paths import ROOT
from labkit.studies import readme

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "labkit", "kernels", "notebooks", "tests/baselines")
PIP = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")


def files(folder):
    """Paths below ``folder`` of what people wrote there."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with an environment .venv that has the wheel and, by a .pth file, the machine's packages."""
    source, home = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("home")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (source / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", source / "wheels", source]
    subprocess.run([*PIP, *build], check=True)
    (wheel,) = (source / "wheels").iterdir()
    venv.create(home / ".venv", with_pip=False, symlinks=True)
    (site,) = (home / ".venv" / "lib").glob("python*/site-packages")
    machine = [line for line in sys.path if line.endswith(("site-packages", "dist-packages"))]
    (site / "machine.pth").write_text("\n".join(machine))  # a .pth of theirs, as of labkit -e, is not read
    target = ["--python", home / ".venv" / "bin" / "python"]
    subprocess.run([*PIP, *target, "install", "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    shutil.rmtree(source)
    return home


def call(home, program, *arguments):
    """What a program of the environment prints, away from the checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LABKIT_RUNS")}
    command = [home / ".venv" / "bin" / program, *arguments]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_in_the_wheel(home):
    (site,) = (home / ".venv" / "lib").glob("python*/site-packages")
    data = ("_notebooks", "_baselines", "_benches")
    installed = {path for path in files(site / "labkit") if path.parts[0] not in data}
    assert installed == files(ROOT / "labkit")
    for name in ("sparse24", "tokenstats"):
        assert files(site / name) == files(ROOT / "kernels" / name)
    assert files(site / "labkit" / "_baselines") == files(ROOT / "tests" / "baselines")
    assert files(site / "labkit" / "_benches") == files(ROOT / "kernels" / "results")


def test_the_wheel_lists_and_copies_its_notebooks(home):
    assert call(home, "labkit", "--version").startswith("labkit 0.")
    listed = json.loads(call(home, "labkit", "list", "--json"))
    assert listed == [describe(path) for path in find_notebooks()]
    call(home, "labkit", "notebooks", "mine")
    own = {path for path in files(ROOT / "notebooks") if path.suffix in (".ipynb", ".yaml")}
    assert files(home / "mine") == own
    for path in own:
        assert (home / "mine" / path).read_bytes() == (ROOT / "notebooks" / path).read_bytes()


def test_the_wheel_runs_a_notebook_against_its_baseline_and_writes_to_runs_here(home):
    (site,) = (home / ".venv" / "lib").glob("python*/site-packages")
    before = files(site / "labkit")
    said = call(home, "labkit", "run", "07", "--preset", "smoke", "-p", "device", "cpu")
    assert "report: " in said
    run = json.loads((home / "runs" / "latest" / "run.json").read_text())
    (item,) = run["notebooks"]
    assert item["ours"]
    assert set(item["verdicts"].values()) == {"ok"}
    assert run["provenance"]["commit"] == "unknown"
    assert (home / "runs" / "latest" / "report.html").is_file()
    assert files(site / "labkit") == before


def test_the_wheel_reads_its_records(home):
    told = call(home, "python", "-m", "labkit.studies.readme")
    wanted = {**readme.finds(), **readme.speed()}
    assert told == "".join(f"{what}: {text}\n" for what, text in wanted.items())
