"""The studies as commands.

python -m labkit.studies NAME [--stages ...] [--out DIR] [options of the study]
python -m labkit.studies NAME --help
python -m labkit.studies --list
"""

import sys
from importlib import import_module

from labkit.checks import choice
from labkit.studies import harness

STUDIES = {  # name: the module that has it as STUDY
    "elas": "labkit.studies.elas.study",
    "elas-60m": "labkit.studies.elas.paper60m",
    "elas-parallel": "labkit.studies.elas.parallel",
    "elas-generate": "labkit.studies.elas.generate",
    "soar": "labkit.studies.soar.study",
    "soar-words": "labkit.studies.soar.words",
    "soar-bench": "labkit.studies.soar.bench",
    "soar-caches": "labkit.studies.soar.caches",
    "soar-models": "labkit.studies.soar.lab_model",
    "fgo": "labkit.studies.fgo.study",
    "fgo-bench": "labkit.studies.fgo.bench",
    "fgo-models": "labkit.studies.fgo.reasoner",
    "fgo-smollm": "labkit.studies.fgo.smollm",
    "fgo-diffusion": "labkit.studies.fgo.diffusion",
    "report": "labkit.studies.report",
}


def load(name: str) -> harness.Study:
    """A study by its name. ValueError for an unknown one."""
    return import_module(STUDIES[choice("study", name, tuple(STUDIES))]).STUDY


def main(words: list[str] | None = None) -> int:
    """Run the study that the first word names; its exit status, see harness.run."""
    name, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        name = "--list"
    if name == "--list":
        for study in map(load, STUDIES):
            print(f"{study.name:12} {study.about}\n{'':12} stages: {' '.join(study.stages)}")
        return 0
    try:
        study = load(name)
    except ValueError as error:
        print(f"studies: {error}", file=sys.stderr)
        return 2
    return harness.run(study, rest)


if __name__ == "__main__":
    sys.exit(main())
