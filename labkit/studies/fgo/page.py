"""FGO's page of results: the study's and the bench's numbers as Markdown, from the records."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from labkit.studies.fgo import claims, diffusion_claims, smollm_claims
from labkit.studies.fgo.frontier import EXAMS, LINES, at_equal_length, family, frontier, strongest_rival
from labkit.studies.fgo.records import PILOTS, Arms, bench, missing, runs, tuned

HEAD = """# FGO, recorded

Written by `python -m labkit.studies report` from the files in this folder: one npz an arm, and tune.json
with the choice of learning rates. frontier.json has the points of notebook 06's figure."""
RULE = """Every family got the same validation runs: each learning rate with two seeds that no test uses, on
questions that no test asks. Rule: of the rates whose mean accuracy lies within a point of the family's
best, the one with the shortest answers. Strengths (a coefficient, alpha) were not chosen: every one
that was trained stands in the tables."""
RIVAL = """The strongest rival of an arm is the most accurate arm of another method whose answers are on
average no longer (the shortest, if all are longer), by the same exam: the choice favours the rival."""


def page() -> str:
    """The whole page."""
    arms = runs()
    parts = [HEAD, "", *_made(arms), "", "## Found", "", *(f"- {line}" for line in found(arms)), ""]
    parts += ["## Every arm, the most accurate first", "", f"{claims.paper_words()}", ""]
    parts += _markdown(*claims.table(arms))
    parts += ["", "## FGO's arms, compared", "", RIVAL, "", *_comparisons(arms)]
    parts += ["", "## Accuracy at equal length", "", *_equal(arms)]
    parts += ["", "## Learning rates", "", *_rates()]
    parts += ["", "## Pilots, one seed each", "", *map(_pilot, PILOTS)]
    parts += ["", "## Speed", "", *_speed(bench()), *_recorded("A public model", smollm_claims, "smollm")]
    parts += _recorded("A diffusion model", diffusion_claims, "diffusion")
    return "\n".join(parts) + "\n"


def _made(arms: Arms) -> list[str]:
    about = next(iter(arms.values()))[0].meta
    seeds = {len(own) for own in arms.values()}
    return [
        f"{len(arms)} arms x {' or '.join(map(str, sorted(seeds)))} seeds, paired: all arms of a seed are "
        f"asked the same. {about['steps']} steps of {about['questions']} questions x {about['group']} "
        f"responses ({about['steps'] * about['questions']:,} questions).",
        f"Exam: {about['final_questions']:,} held-out questions, answered by one sample each and greedily. "
        "Brackets: 95 % t intervals over seeds, not corrected for how many are looked at.",
        f"{about['device']}, {about['time'][:10]}, torch {about['versions']['torch']}; in several calls of "
        f"`{about['command'].split(' --seconds')[0]}`, see each file's `command`.",
        f"Not run: {'; '.join(missing(arms)) or 'nothing of the plan'}.",
        "", RULE, "", f"Tried on validation: {claims.settings_tried()}. {_edges()}",
    ]  # fmt: skip


def _edges() -> str:
    """Of how many families the choice stands at an end of the rates tried: a wider grid may do better."""
    ends = [
        name for name, own in tuned().items()
        if own["chosen"] in [pick(run["learning_rate"] for run in own["runs"]) for pick in (min, max)]
    ]  # fmt: skip
    return f"The choice is the lowest or highest rate tried for: {', '.join(ends) or 'none'}."


def found(arms: Arms) -> list[str]:
    """The findings in sentences, what is not resolved first."""
    lines = [f"{row.claim} {row.measured}." for row in claims.claims()]
    lines += [
        f"Answered greedily: {claims.sentence(arms, 'FGO', other, 'greedy')}."
        for other in dict.fromkeys(("GRPO", strongest_rival(arms, "FGO", "greedy")))
    ]
    lines.append(f"{claims.describe_lost(arms)}.")
    points = frontier(arms)
    for exam in EXAMS:
        best = sorted((p["length"][0], arm) for arm, p in points[exam].items() if p["best"])
        lines.append(f"On the frontier of the {exam} exam (no other arm's means are both shorter and more "
                     f"accurate), the shortest first: {'; '.join(arm for _, arm in best)}.")  # fmt: skip
    return lines


def _comparisons(arms: Arms) -> list[str]:
    rows = []
    for arm in (name for name in arms if family(name) in ("FGO", "FGO, std")):
        rival = strongest_rival(arms, arm)
        others = {"GRPO": "", rival: "its strongest rival: "} | {
            other: "without its entropy term: " for own, other in claims.twins(arms) if own == arm
        }
        for other, why in others.items():
            gap = claims.difference(arms, arm, other)
            words = claims.accuracy_words(gap["accuracy"]), claims.length_words(gap["length"])
            rows.append([arm, f"{why}{other}", *(told.split(" ", 1)[1] for told in words)])
    return _markdown(["arm", "minus", "accuracy", "length"], rows)


def _equal(arms: Arms) -> list[str]:
    """FGO's arms against the line between the strengths of each family."""
    rows = []
    for arm in (name for name in arms if family(name) in ("FGO", "FGO, std")):
        for exam in EXAMS:
            gaps = [at_equal_length(arms, arm, line, exam) for line in LINES]
            told = ["" if gap is None else claims.accuracy_words(gap).split(" ", 1)[1] for gap in gaps]
            rows.append([f"{arm}, {exam}", *told])
    return [
        "An arm minus the straight line between neighbouring strengths of a family, at the arm's own "
        "length; seeds in which it is shorter or longer than the whole line are left out.", "",
        *_markdown(["arm", *LINES], rows),
    ]  # fmt: skip


def _rates() -> list[str]:
    rates = sorted({run["learning_rate"] for own in tuned().values() for run in own["runs"]})
    rows = []
    for name, own in tuned().items():
        cells = []
        for rate in rates:
            seen = [run for run in own["runs"] if run["learning_rate"] == rate]
            told = f"{100 * _mean(seen, 'accuracy'):.1f} % at {_mean(seen, 'length'):.1f}" if seen else ""
            cells.append(f"**{told}**" if rate == own["chosen"] else told)
        rows.append([name, own["arm"], *cells])
    head = ["family", "chosen on", *(f"{rate:g}" for rate in rates)]
    return ["Validation accuracy at so many tokens, means of the seeds; the choice in bold.", "",
            *_markdown(head, rows)]  # fmt: skip


def _mean(rows: Sequence[dict], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _pilot(name: str) -> str:
    arms = runs(name)
    meta = arms["FGO"][0].meta
    right = [100 * arms[arm][0].meta["after"]["accuracy"] for arm in ("GRPO", "FGO")]
    return (
        f"- {meta['steps']} steps at {meta['learning_rate']:g} from a model that sampled "
        f"{meta['before']['accuracy']:.0%} right: GRPO {right[0]:.1f} %, FGO {right[1]:.1f} %; FGO against "
        f"GRPO {claims.describe_difference(arms)}."
    )


def _recorded(title: str, part: Any, folder: str) -> list[str]:
    """The section of a study with claims of its own; empty while it has no record."""
    try:
        lines, record = part.section(), part.record()
    except FileNotFoundError:
        return []
    lines += ["", f"Curves of each run: {folder}/*.npz, which `labkit show FILE` draws."]
    told = ["", f"## {title}", "", *lines, "", *_markdown(*part.table())]
    return [*told, *(["", *_speed(record["speed"])] if "speed" in record else [])]


def _speed(speed: dict[str, Any]) -> list[str]:
    rows = [
        [way, f"{row['tokens_per_second']:,.0f} ({row['lowest']:,.0f} to {row['highest']:,.0f})"]
        for way, row in speed["ways"].items()
    ]
    made = speed["provenance"]
    return [f"Sampling, {made['rows']} rows, one model, {made['device']}:", "",
            *_markdown(["way", "tokens per second (median; range)"], rows)]  # fmt: skip


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    plain = ([cell.replace("|", "\\|") for cell in row] for row in (head, *rows))
    first, *rest = (f"| {' | '.join(row)} |" for row in plain)
    return [first, "|---" * len(head) + "|", *rest]
