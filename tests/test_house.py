"""The house rules that a machine can check: one list of dependencies, clean notebooks, import direction."""

import ast
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from labkit.paths import ROOT
from labkit.presets import find_notebooks, load_preset, parameters_for

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = find_notebooks()
MODULES = sorted((*ROOT.glob("labkit/**/*.py"), *ROOT.glob("kernels/**/*.py")))


def by_stem(path):
    return path.stem


def test_environment_yml_installs_the_one_list():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = content["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    names = {item.split("=")[0]: item.split("=")[-1] for item in conda}
    assert set(names) == {"python", "pip"}
    assert names["python"] in SpecifierSet(PROJECT["requires-python"])


def test_every_file_promises_the_same_pythons():
    wanted = ["3.11", "3.12", "3.13"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in allowed] == wanted
    pythons = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert pythons == wanted
    for name in ("README.md", "CONTRIBUTING.md", "Makefile", "environment.yml"):
        text = (ROOT / name).read_text()
        assert "3.11 to 3.13" in text, name
        assert not re.search(r"3\.\d+(\+| or newer)", text), name


def test_every_dependency_is_pinned_to_a_version_it_allows(pins):
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        assert requirement.name in pins, f"constraints.txt lacks {requirement.name}"
        assert pins[requirement.name] in requirement.specifier


def test_kernels_is_no_package_and_transformers_imports_from_the_root():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import transformers"], cwd=ROOT, check=True)


def test_labkit_imports_without_triton():
    names = "labkit.elas, labkit.soar, labkit.fgo, sparse24, tokenstats"
    code = f"import sys; sys.modules['triton'] = None; import {names}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way_and_modules_stay_short(path):
    source = path.read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    area = path.relative_to(ROOT).parts
    plotting = ("matplotlib", "plotly", "ipywidgets", "labkit.figures", "labkit.widgets")
    banned = {"kernels": ("labkit", *plotting), "figures": ("torch", "labkit.widgets")}.get(
        area[0] if area[0] == "kernels" else area[1], ()
    )
    if area[1] in ("elas", "soar", "fgo"):
        others = {"elas", "soar", "fgo"} - {area[1]}
        banned = (*plotting, *(f"labkit.{other}" for other in others))
    wrong = {name for name in imported for ban in banned if name == ban or name.startswith(ban + ".")}
    assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
    assert len(source.splitlines()) <= 260, f"{path.relative_to(ROOT)} has grown too long"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_stem)
def test_notebook_conventions(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert book.cells[0].cell_type == "markdown"
    assert book.cells[0].source.startswith("# ")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "one cell tagged parameters"
    assert code[0] is tagged[0], "the parameters come first"
    for line in tagged[0].source.splitlines():
        assert re.match(r"\w+: [\w\[\], ]+ = .+  # .+", line), f"typed, with a trailing comment: {line!r}"
    source = "\n".join(cell.source for cell in code)
    assert "load_text(" not in source or "record_input(" in source, "a baseline must know the text"
    for cell in code:
        assert not cell.outputs, "committed without outputs"
        assert cell.execution_count is None
        assert sum(map(bool, map(str.strip, cell.source.splitlines()))) < 15, cell.source
        assert not re.search(r"^\s*(def|class) ", cell.source, re.M), cell.source


@pytest.mark.parametrize("preset", ["smoke", "full"])
def test_presets_name_real_parameters(preset):
    values = load_preset(preset)
    assert set(values) <= {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        parameters_for(path, values, {})
