"""The offline wheelhouse: what is brought and what is left to the machine, by pip on tiny wheels."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from labkit.paths import ROOT

SPEC = spec_from_file_location("wheelhouse", ROOT / ".ci" / "wheelhouse.py")
wheelhouse = module_from_spec(SPEC)
SPEC.loader.exec_module(wheelhouse)


def write_wheel(folder, name, version, *requires, extras=()):
    """A valid wheel of one empty module."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    metadata += [f"Provides-Extra: {extra}" for extra in extras]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip sees these wheels alone: top needs side and torch, torch needs nvidia, side[more] needs deep."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, "top", "1.0", "side>=2", "torch>=2.11")
    write_wheel(folder, "asks", "1.0", "side[more]>=2", 'deep[all]; extra == "never"', extras=("never",))
    write_wheel(folder, "side", "2.0", "leaf", 'deep; extra == "more"', extras=("more",))
    write_wheel(folder, "side", "3.0", "leaf", 'deep; extra == "more"', extras=("more",))
    for name in ("leaf", "deep", "nvidia"):
        write_wheel(folder, name, "1.0")
    write_wheel(folder, "torch", "2.13.0", "nvidia")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


PINS = {"side": "2.0", "torch": "2.13.0"}
TORCH = {"torch": "", "triton": ""}


@pytest.mark.parametrize(
    ("wanted", "has", "versions"),
    [
        ("top", {}, {"top": "1.0", "side": "2.0", "leaf": "1.0"}),  # no torch, and no nvidia with it
        ("top", {"side": "2.5"}, {"top": "1.0"}),  # not the pin, but allowed
        ("top", {"side": "1.9"}, {"top": "1.0", "side": "2.0", "leaf": "1.0"}),  # the pin, not the newest
        ("top", {"side": ""}, {"top": "1.0"}),
        ("top", {"leaf": ""}, {"top": "1.0", "side": "2.0"}),  # neither a version nor a pin
        ("top", {"torch": "2.11.0+cu130"}, {"top": "1.0", "side": "2.0", "leaf": "1.0"}),
        ("asks", {"side": "2.0", "deep": "1.0"}, {"asks": "1.0", "side": "2.0", "leaf": "1.0"}),
        ("asks", {"side": "2.0", "leaf": "1.0"}, {"asks": "1.0", "side": "2.0", "deep": "1.0"}),
    ],
)
def test_what_is_missing_is_brought(index, wanted, has, versions):
    found = wheelhouse.missing([wanted], PINS, TORCH | has)
    assert {name: entry["metadata"]["version"] for name, entry in found.items()} == versions


def test_a_torch_that_is_too_old_is_one_error(index):
    with pytest.raises(ValueError, match=r"torch in HAS must be a version that .* allows; got '2\.5\.1'"):
        wheelhouse.missing(["top"], PINS, TORCH | {"torch": "2.5.1"})


def test_every_form_of_pip_freeze_is_read():
    text = "# a comment\nJinja2==3.1.6\ntorch==2.11.0+cu130\nruamel.yaml==0.18\n\nloose\n"
    text += "local @ file:///tmp/local.whl\n-e git+https://host/x.git#egg=x\n"
    assert wheelhouse.read_freeze(text) == {
        "jinja2": "3.1.6",
        "torch": "2.11.0+cu130",
        "ruamel-yaml": "0.18",
        "loose": "",
        "local": "",
    }
    with pytest.raises(ValueError, match="HAS must have lines NAME==VERSION, .*; got 'numpy>=2'"):
        wheelhouse.read_freeze("numpy>=2")


def test_another_python_and_a_used_folder_are_one_error(tmp_path):
    (tmp_path / "old.whl").touch()
    with pytest.raises(ValueError, match="WHEELHOUSE must be a new or empty folder"):
        wheelhouse.wheelhouse(tmp_path, "", None, [])
    here = "{}.{}".format(*sys.version_info)
    for same in (here, here.replace(".", ""), f"{here}.7"):
        wheelhouse.check_python(["--platform", "any", "--python-version", same])
    for other in ("3.99", "3", here + "1"):
        with pytest.raises(ValueError, match=f"--python-version must be .*, {here} .*; got '{other}'"):
            wheelhouse.check_python(["--python-version", other])


def project(folder, name, ext=False):
    """A project published as source only."""
    folder.mkdir()
    modules = f'ext_modules=[Extension("{name}", ["{name}.c"])]' if ext else f'py_modules=["{name}"]'
    (folder / f"{name}.py").touch()
    (folder / f"{name}.c").write_text("int answer;")
    code = f'from setuptools import Extension, setup\nsetup(name="{name}", version="1", {modules})\n'
    (folder / "setup.py").write_text(code)
    return str(folder)


def test_a_pure_source_becomes_a_wheel_and_a_compiled_one_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip's way to say: no isolation, hence no network
    (tmp_path / "wheels").mkdir()
    wheelhouse.build(tmp_path / "wheels", project(tmp_path / "plain", "plain"))
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["plain-1-py3-none-any.whl"]
    if shutil.which("cc"):
        with pytest.raises(
            ValueError, match="must be pure Python or published as a wheel; got 'fast-1-cp3"
        ):
            wheelhouse.build(tmp_path / "wheels", project(tmp_path / "fast", "fast", ext=True))


def plan(folder, *arguments):
    """The commands of `make run` in a checkout without .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "WHEELHOUSE")  # of a make that runs these tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "-n", "run", *arguments]
    return subprocess.check_output(command, cwd=folder, env=environment, text=True)


def test_make_run_takes_nothing_from_the_network_with_a_wheelhouse(tmp_path):
    commands = plan(tmp_path, "WHEELHOUSE=brought", "EXTRAS=")
    installs = [line for line in commands.splitlines() if " -m pip install " in line]
    assert "-m venv --clear .venv" in commands
    assert "site-packages)/machine.pth" in commands  # where PYTHON's own packages, its torch, are found
    assert [line.rsplit(" ", 2)[1:] for line in installs][1] == ["-e", "."]
    assert len(installs) == 2
    for line in installs:
        assert "--no-index --no-build-isolation --find-links brought -c brought/constraints.txt" in line


def test_make_run_without_a_wheelhouse_is_what_it_was(tmp_path):
    commands = plan(tmp_path)
    assert "-m venv --clear" in commands
    assert "machine.pth" not in commands
    options = "-q --disable-pip-version-check --no-compile -c constraints.txt"
    assert f"-m pip install {options} -e .[dev,eval]\n" in commands
    assert commands.count(" -m pip ") == 1
