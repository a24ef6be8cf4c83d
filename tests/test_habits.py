"""Files for people and services outside Python: they parse, and what they name exists."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from test_wheelhouse import plan

import labkit
from labkit.paths import ROOT

YAML = sorted((*ROOT.glob(".github/**/*.yml"), *ROOT.glob(".*.yaml"), ROOT / "CITATION.cff"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def relative(path):
    return str(path.relative_to(ROOT))


def steps(path):
    """The steps of every job of a workflow."""
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", YAML, ids=relative)
def test_yaml_parses(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize(
    "name",
    [
        "CONTRIBUTING.md",
        "README.md",
        ".ci/run",
        ".devcontainer/devcontainer.json",
        ".pre-commit-config.yaml",
    ]
    + [relative(path) for path in (*WORKFLOWS, *ROOT.glob(".github/**/*.md"))],
)
def test_every_make_target_that_is_named_exists(name):
    text = (ROOT / name).read_text()
    # In code and commands only: "make" is also a word.
    named = re.findall(r"(?:^|[`\"&;(:]|command:) *make ([a-z][a-z-]*)", text, re.M)
    assert set(named) <= TARGETS, name
    assert named or name.endswith("SECURITY.md"), f"{name} was expected to name a target"


def test_workflows_do_what_the_makefile_and_ci_do():
    """Every command is a make target or .ci/run: what hosted CI tests, anyone can run."""
    assert len(WORKFLOWS) == 3
    for path in WORKFLOWS:
        text = path.read_text()
        commands = [step["run"] for step in steps(path) if "run" in step]
        assert not [c for c in commands if re.search(r"pytest|ruff check|mypy \w|papermill", c)], path.name
        assert ("make site" if path.stem == "pages" else "make test") in text
    matrix = yaml.safe_load(WORKFLOWS[0].read_text())["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert [entry["python"] for entry in matrix] == ["3.11", "3.12", "3.13"]
    assert {entry["command"] for entry in matrix} == {"make test", ".ci/run"}
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, "must be executable"


def test_the_nightly_run_leaves_out_the_pins(tmp_path):
    """What `make` runs with that workflow's variables names no constraints.txt."""
    variables = yaml.safe_load(WORKFLOWS[1].read_text())["jobs"]["newest"]["env"]
    planned = plan(tmp_path, f"CONSTRAINTS={variables['CONSTRAINTS']}")
    install = next(line for line in planned.splitlines() if line.endswith("-e .[dev,eval]"))
    assert "-c tools.txt" in install
    assert "constraints.txt" not in install


def test_hooks_call_installed_tools():
    """Nothing is downloaded, so the versions are those of constraints.txt."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    installed = {re.match(r"[\w-]+", line).group() for line in extras}
    assert [repo["repo"] for repo in HOOKS["repos"]] == ["local"]
    hooks = HOOKS["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "nbstripout", "mypy"}
    for hook in hooks:
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        if program == "make":
            assert set(arguments) <= TARGETS
        else:
            assert program == ".venv/bin/python"
            assert arguments[0] == "-m"
            assert arguments[1] in installed
    check = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    subprocess.run(check, cwd=ROOT, check=True)


def test_citation_names_this_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["title"] == project["name"]
    assert citation["version"] == labkit.__version__
    assert citation["license"] == project["license"]
    assert citation["abstract"].startswith(project["description"])
    assert set(citation) >= {"cff-version", "message", "authors"}, "CFF 1.2 requires these"
    papers = re.findall(r"arXiv:([\d.]+\d)", citation["message"])
    assert papers == re.findall(r"\(arXiv ([\d.]+\d)\)", (ROOT / "README.md").read_text())


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")), ids=relative)
def test_issue_forms_have_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text())
    assert set(form) <= {"name", "description", "labels", "body"}
    assert form["name"]
    assert form["description"]
    identities = [field["id"] for field in form["body"]]
    assert len(set(identities)) == len(identities)
    for field in form["body"]:
        assert field["type"] in ("textarea", "input")
        assert field["attributes"]["label"]


def test_the_devcontainer_has_a_promised_python():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    version = container["image"].rsplit(":", 1)[1]
    assert version in ("3.11", "3.12", "3.13")
    assert f"PYTHON=python{version}" in container["postCreateCommand"]
