"""What the lab found, in one table, and the pages of its results: every number is read from a record.

findings   a Claim per question, of all papers; a record that is not there leaves its rows out
pages      {paper: its results/README.md as Markdown}

    python -m labkit.studies report [--out DIR]
"""

from functools import partial
from pathlib import Path

from labkit.kernels import bench_results
from labkit.paths import write_atomic, write_json
from labkit.studies.claims import Claim
from labkit.studies.elas import claims as elas
from labkit.studies.elas.claims60m import headline_60m
from labkit.studies.fgo import claims as fgo
from labkit.studies.fgo import diffusion_claims, smollm_claims
from labkit.studies.fgo import page as fgo_page
from labkit.studies.fgo.frontier import frontier
from labkit.studies.fgo.records import runs
from labkit.studies.harness import Context, Stage, Study
from labkit.studies.soar import claims as soar
from labkit.studies.soar import page as soar_page

HERE = Path(__file__).resolve().parent
PAGES = {"soar": soar_page.page, "fgo": fgo_page.page}


def findings() -> list[Claim]:
    """The rows of the table, each with the notebook that shows it."""
    rows: list[Claim] = []
    parts = (
        kernel_claims, elas.loss_headline, headline_60m, elas.memory_headline, soar.claims, fgo.claims,
        smollm_claims.claims, diffusion_claims.claims,
    )  # fmt: skip
    for part in parts:
        try:
            rows += part()
        except FileNotFoundError:
            continue
    return rows


def kernel_claims() -> list[Claim]:
    """Speed of the kernels: what ``make bench`` wrote, and ELAS's default gradient."""
    sparse, tokens = bench_results("sparse24"), bench_results("tokenstats")
    goals = {goal["name"]: goal["value"] for goal in sparse["goals"] + tokens["goals"]}

    def span(words: str, end: str = "") -> str:
        values = [v for name, v in goals.items() if words in name and name.endswith(end)]
        return f"{min(values):.2f} to {max(values):.2f}x"

    reached = sum(goal["goal_reached"] for goal in sparse["goals"] + tokens["goals"])
    speed = (
        "against torch.compile in its default mode (not max-autotune): full rank, masked gradient, forward "
        f"{span('ffn d', 'forward against torch.compile')}, forward and backward "
        f"{span('ffn d', 'backward against torch.compile')}; low rank, straight-through gradient (the "
        f"default), forward and backward {elas.straight_through()['forward + backward']:.2f}x; the sparse "
        f"product alone against cuBLAS {span('sparse product')}"
    )
    bound = (
        f"token statistics {goals['token statistics, share of copy']:.0%} of copy bandwidth; {reached} of "
        f"{len(goals)} speed goals reached, each listed with what is in the way"
    )
    made = {"conditions": f"{sparse['card']}, {sparse['date'][:10]}", "notebook": "07_kernels"}
    ask = "Does 2:4 activation sparsity speed up a feed-forward layer?"
    return [
        Claim("ELAS", ask, speed, **made),
        Claim("all", "How close are the kernels to what the memory allows?", bound, **made),
    ]


def pages() -> dict[str, str]:
    """{"soar": Markdown, "fgo": Markdown} of the records in their results folders."""
    return {paper: page() for paper, page in PAGES.items()}


def _write(context: Context, paper: str) -> None:
    text, results = PAGES[paper](), context.out / paper / "results"
    write_atomic(results / "README.md", lambda part: part.write_text(text))
    if paper == "fgo":
        write_json(results / "frontier.json", frontier(runs()), strict=True)


STUDY = Study(
    "report",
    "The pages of results: PAPER/results/README.md in --out, computed from the records; FGO's frontier.",
    {paper: Stage(partial(_write, paper=paper), f"of {paper.upper()}'s records") for paper in PAGES},
    out=HERE,
)
