"""Download what the lab needs into one folder, for a machine that has torch but no network.

``make wheelhouse [WHEELHOUSE=wheels] [EXTRAS=[dev,eval]] [HAS=freeze.txt] [FOR="--python-version ..."]``

pip resolves and downloads. torch and triton, with all that only they need, are left to that
machine, and so is every distribution of HAS whose version suits. FOLDER/constraints.txt pins the
wheels in FOLDER and nothing else. Standard library only: no .venv is needed here.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("torch", "triton")  # their build belongs to the machine's driver


def fail(name: str, given: object, allowed: str) -> None:
    """ValueError in one line."""
    raise ValueError(f"{name} must be {allowed}; got {given!r}")


def normalise(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_freeze(text: str) -> dict[str, str]:
    """{name: version} of what ``pip freeze`` or ``pip list --format=freeze`` printed.

    The version is empty where a line gives none. Comments and editable installs are dropped.
    ValueError names a line that is none of these.
    """
    versions = {}
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith(("#", "-e ")):
            continue
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?:\s*==\s*(\S+)|\s*@\s.*)?", line)
        if not match:
            raise ValueError(f"HAS must have lines NAME==VERSION, as pip freeze prints; got {line!r}")
        versions[normalise(match[1])] = match[2] or ""
    return versions


def resolve(requirements: list[str], pins: dict[str, str], installed: dict[str, str]) -> dict[str, dict]:
    """pip's choice of what is missing beside ``installed``: {name: its entry in pip's report}.

    pip sees a bare environment in which the distributions of ``installed`` exist by name and version.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-") as temporary:
        folder = Path(temporary)
        venv.create(folder / "bare", with_pip=False, symlinks=True)
        (site,) = (folder / "bare" / "lib").glob("python*/site-packages")
        for name, version in installed.items():
            metadata = site / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        constraints, report = folder / "constraints.txt", folder / "report.json"
        constraints.write_text(listed(pins))
        python = folder / "bare" / "bin" / "python"
        options = ["--dry-run", "--report", str(report), "-c", str(constraints)]
        pip("--python", str(python), "install", *options, *requirements)
        entries = json.loads(report.read_text())["install"]
    return {normalise(entry["metadata"]["name"]): entry for entry in entries}


def missing(requirements: list[str], pins: dict[str, str], has: dict[str, str]) -> dict[str, dict]:
    """What to bring to a machine with ``has``: {name: pip's entry}.

    A version there that does not suit is brought; an empty one suits, whatever it may be.
    """
    has = {name: version or pins.get(name, "") for name, version in has.items()}
    while True:
        known = {name: version for name, version in has.items() if version}
        free = {name: version for name, version in pins.items() if name not in known}
        found = resolve(requirements, free, known)
        unfit = {name for name in found if has.get(name)}
        if refused := unfit & set(LEFT_OUT):
            name = refused.pop()
            fail(f"{name} in HAS", has[name], "a version that pyproject.toml allows")
        bring = unfit | (with_extras(found) & known.keys() - set(LEFT_OUT))
        unknown = {
            name: entry["metadata"]["version"] for name, entry in found.items() if has.get(name) == ""
        }
        if not bring and not unknown:
            return found
        # What is brought has its pin again: pip must not choose freely. A version that was not given
        # is now the one that pip would bring, so that what it needs is not brought either.
        has = {name: version for name, version in (has | unknown).items() if name not in bring}


def with_extras(found: dict[str, dict]) -> set[str]:
    """Distributions that some entry of pip's report asks for with an extra, as in jsonschema[format].

    What the extra needs stands in the distribution's own metadata: a name and a version do not tell.
    """
    lines = [
        (name, line) for name, entry in found.items() for line in entry["metadata"].get("requires_dist", ())
    ]
    asked, before = {"labkit"}, set()
    while asked != before:  # an optional line counts where its distribution is asked for with an extra
        before = set(asked)
        active = [line for name, line in lines if name in asked or "extra ==" not in line]
        asked |= {normalise(match[1]) for line in active if (match := re.match(r"([\w.-]+)\s*\[", line))}
    return asked


def build(folder: Path, requirement: str) -> None:
    """Make the wheel of a pure Python distribution that is published as source only."""
    with tempfile.TemporaryDirectory(prefix="labkit-") as temporary:
        pip("wheel", "--no-deps", "--wheel-dir", temporary, requirement)
        (wheel,) = Path(temporary).iterdir()
        if not wheel.name.endswith("-none-any.whl"):
            fail(requirement, wheel.name, "pure Python or published as a wheel")
        shutil.move(wheel, folder)


def wheelhouse(folder: Path, extras: str, has: Path | None, options: list[str]) -> None:
    """Fill ``folder``, which must be new or empty; see the module.

    options   pip download's for another platform: --python-version, --platform, ...
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail("WHEELHOUSE", str(folder), "a new or empty folder")
    check_python(options)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    installed = dict.fromkeys(LEFT_OUT, "")
    if has:
        installed |= read_freeze(has.read_text())
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    del pins["setuptools"]  # torch refuses new ones, as every version on that machine says for itself
    needed = [line + ",<82" * line.startswith("setuptools") for line in needed]
    found = missing([f"{ROOT}{extras}", *needed], pins, installed)
    found.pop("labkit")
    versions = {name: entry["metadata"]["version"] for name, entry in sorted(found.items())}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=folder.parent) as temporary:
        target = Path(temporary) / "wheels"
        target.mkdir()
        ready = []
        for name, version in versions.items():
            if found[name]["download_info"]["url"].endswith(".whl"):
                ready.append(f"{name}=={version}")
            else:
                build(target, f"{name}=={version}")
        pip("download", "--no-deps", "--only-binary=:all:", "-d", str(target), *options, *ready)
        (target / "constraints.txt").write_text(listed(versions))
        target.replace(folder)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder}: {len(versions)} wheels, {size:.1f} MB")


def check_python(options: list[str]) -> None:
    """ValueError where --python-version is not this Python's, for which pip evaluates markers."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--python-version", default="")
    given = parser.parse_known_args(options)[0].python_version
    here = "{}.{}".format(*sys.version_info)
    if given and not re.fullmatch(rf"{re.escape(here)}(\.\d+)?|{here.replace('.', '')}", given):
        fail("--python-version", given, f"that of the Python that runs this, {here} (see PYTHON=)")


def listed(versions: dict[str, str]) -> str:
    """The text of a constraints file."""
    return "".join(f"{name}=={version}\n" for name, version in versions.items())


def pip(*arguments: str) -> None:
    """Run pip quietly; its own error stands before ours. An installed labkit and PYTHONPATH are hidden."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    if code := subprocess.run(command, env=environment).returncode:
        raise ValueError(f"pip must succeed; it ended with code {code}, its error stands above")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python .ci/wheelhouse.py", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--extras", default="[dev,eval]", help="as in pip install .[dev]; default: [dev,eval]"
    )
    parser.add_argument("--has", type=Path, help="what pip freeze printed on that machine")
    parser.add_argument("--for", default="", dest="options", help="pip download's, for another platform")
    arguments = parser.parse_args()
    try:
        wheelhouse(arguments.folder, arguments.extras, arguments.has, shlex.split(arguments.options))
    except (ValueError, OSError) as error:
        sys.exit(f"wheelhouse: {error}")
