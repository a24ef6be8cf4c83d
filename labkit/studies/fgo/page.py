"""FGO's page of results: the study's and the bench's numbers as Markdown, from the records."""

from collections.abc import Sequence

from labkit.studies import published, stats
from labkit.studies.fgo.claims import describe_difference, entropy_lost, paper_step, summary
from labkit.studies.fgo.records import PILOTS, bench, runs


def page() -> str:
    """The whole page."""
    arms, speed = runs(), bench()
    about = arms["FGO"][0].meta
    lost, step = entropy_lost(arms), paper_step(arms)
    columns = ("accuracy", "length", "act", "entropy", "entropy_per_token", "checks", "invalid", "constant")
    digits = dict(zip(columns, (1, 1, 0, 2, 3, 2, 0, 0), strict=True))
    lines = [
        "# FGO, recorded",
        "",
        "Written by `python -m labkit.studies report` from the files in this folder.",
        "",
        f"{about['runs']} runs in lockstep on one {about['device']}, {about['time'][:10]}, torch "
        f"{about['versions']['torch']}:",
        f"`{about['command']}`,",
        f"{about['steps']} steps of {about['questions']} questions x {about['group']} responses, learning "
        f"rate {about['learning_rate']:g}, {about['seconds']:.0f} s.",
        f"Exam: {about['final_questions']:,} held-out questions, one sample each. One value a seed.",
        "",
        "| arm | accuracy % | tokens | ACT | entropy, sum | entropy / token | checks | invalid of 3,200 | constant of 3,200 |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summary(arms):
        cells = [stats.spread(row[name], f",.{digits[name]}f") if name in row else "" for name in columns]
        lines.append(f"| {row['arm']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"FGO against GRPO after {published.QUESTIONS:,} questions (step {step}, exams of "
        f"{about['exam_questions']} questions): {describe_difference(arms, when=step)};",
        f"after all {about['steps'] * about['questions']:,}: {describe_difference(arms)}.",
        f"FGO's entropy per token stays below GRPO's of the same seed from step "
        f"{' and '.join(map(str, lost['step']))} on; at the end it is {_percent(lost['ratio'])} of it "
        f"(where the model chooses {_percent(lost['choice_ratio'])}, inside results "
        f"{_percent(lost['result_ratio'])}).",
        "",
        *map(_pilot, PILOTS),
        "",
        f"Sampling, {speed['provenance']['rows']} rows, one model, {speed['provenance']['device']}:",
        "",
        "| way | tokens per second (median; range) |",
        "|---|---|",
    ]
    for way, row in speed["ways"].items():
        span = f"{row['lowest']:,.0f} to {row['highest']:,.0f}"
        lines.append(f"| {way} | {row['tokens_per_second']:,.0f} ({span}) |")
    return "\n".join(lines) + "\n"


def _pilot(name: str) -> str:
    arms = runs(name)
    meta = arms["FGO"][0].meta
    right = [100 * arms[arm][0].meta["after"]["accuracy"] for arm in ("GRPO", "FGO")]
    return (
        f"Pilot, one seed, {meta['steps']} steps at {meta['learning_rate']:g} from a model that sampled "
        f"{meta['before']['accuracy']:.0%} right: GRPO {right[0]:.1f} %, FGO {right[1]:.1f} %; FGO against "
        f"GRPO {describe_difference(arms)}.\n"
    )


def _percent(shares: Sequence[float]) -> str:
    return stats.spread([100 * share for share in shares], ".0f") + " %"
