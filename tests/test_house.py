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

from labkit.notebooks import describe, find_notebooks, parameters_for
from labkit.paths import ROOT
from labkit.runner.presets import load_preset

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = find_notebooks()
MODULES = sorted((*ROOT.glob("labkit/**/*.py"), *ROOT.glob("kernels/**/*.py")))


def by_stem(path):
    return path.stem


def test_environment_yml_installs_the_one_list():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = content["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev,eval]"]}
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


def test_notebooks_are_read_without_the_grammar_that_takes_a_second_to_compile():
    code = "import sys, labkit.runner.report, labkit.runner.execute, papermill; " + (
        "assert 'rfc3987_syntax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def name_of(path):
    """``labkit.soar.search`` of labkit/soar/search.py; a package's is that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "kernels" else parts
    return ".".join(parts).removesuffix(".__init__")


def imports_of(path):
    """Dotted names of the modules that a file imports anywhere in it, those of the house in full."""
    package = name_of(path) if path.stem == "__init__" else name_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in HOUSE else base for alias in node.names
            }
    return found


HOUSE = {name_of(path): path for path in MODULES}
# What data passes through on its way from a model to a report; nothing imports what stands behind it.
ROOMS = (("labkit.elas", "labkit.soar", "labkit.fgo"), ("labkit.studies",), ("labkit.figures",),
         ("labkit.widgets",), ("labkit.runner",), ("labkit.__main__",))  # fmt: skip
PLOTTING = ("matplotlib", "plotly", "ipywidgets", "anywidget")
# The papers' options, one keyword each.
LONG_SIGNATURE = ("decode", "fgo_advantages", "decode_one")


def within(name, rooms):
    return any(name == room or name.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    name = name_of(path)
    own = next((rank for rank, rooms in enumerate(ROOMS) if within(name, rooms)), -1)
    banned = [room for rooms in ROOMS[own + 1 :] for room in rooms]
    if path.is_relative_to(ROOT / "kernels"):
        banned = ["labkit", *PLOTTING]
    elif own == 0:
        banned += [*PLOTTING, *(room for room in ROOMS[0] if not within(name, [room]))]
    elif within(name, ["labkit.figures"]):
        banned += ["torch"]
    assert not (wrong := {one for one in imports_of(path) if within(one, banned)}), wrong


def test_no_two_files_import_each_other():
    waiting = {name: imports_of(path) & HOUSE.keys() - {name} for name, path in HOUSE.items()}
    while free := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"in a circle, or behind one: {sorted(waiting)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 250
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_kernel(node):
            continue
        assert node.end_lineno - node.lineno < 60 or node.name == "decode", f"{node.name} is too long"
        if path.is_relative_to(ROOT / "kernels"):  # what a launch needs, it is given
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([one for one in arguments if one.arg not in ("self", "cls")])
        assert count <= 8 or node.name in LONG_SIGNATURE, f"{node.name} takes {count} parameters"


def is_kernel(function):
    """Whether Triton compiles it: one launch, one signature, unrolled by hand."""
    return any("jit" in ast.unparse(one) for one in function.decorator_list)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("labkit/widgets/static/**/*.js")), ids=lambda path: path.name
)
def test_scripts_stay_short(path):
    assert len(path.read_text().splitlines()) <= 250


def test_nothing_in_the_package_reads_the_tests():
    """Nor the rest of a checkout: where that lies, and whether there is one, labkit.paths alone says."""
    for path in MODULES:
        outside = re.search(
            r"""/ ?["']tests["'/]|["']tests/|parents\[[1-9]|\.parent\.parent""", path.read_text()
        )
        known = name_of(path) == "labkit.paths" or path.is_relative_to(ROOT / "kernels")
        assert not outside or known, f"{path}: {outside[0]}"


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_stem)
def test_the_smoke_preset_is_what_a_notebook_does_by_itself(path):
    """So ``make run`` executes what nbval would, and the baselines hold for a notebook run by hand."""
    defaults = {one["name"]: ast.literal_eval(one["default"]) for one in describe(path)["parameters"]}
    given = parameters_for(path, load_preset("smoke"), {})
    assert given == {name: defaults[name] for name in given}
