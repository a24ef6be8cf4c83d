"""HTML tables with a caption: every cell escaped unless it is Markup."""

from collections.abc import Collection, Sequence
from typing import Any

from IPython.display import HTML
from markupsafe import Markup, escape

from labkit.figures.theme import BLUE
from labkit.studies.claims import Claim

DARK_RED = "#A84300"  # theme.RED as small text on white would have a contrast of 3.9, below WCAG's 4.5
CLAUSE = "<div style='padding-left:1em;text-indent:-1em'>{}</div>"  # one comparison of a finding
NULLS = ("not resolved", "no difference")  # as labkit.studies.stats words them
CODE = "font-family:monospace;overflow-wrap:anywhere"  # of what a model wrote: it has no spaces to break at


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], title: str, numbers: Collection[int] = ()
) -> HTML:
    """Cells that wrap, left-aligned but for the columns ``numbers``; ``title`` is the caption above."""

    def line(tag: str, cells: Sequence[str]) -> str:
        scope = " scope='col'" if tag == "th" else ""
        inner = (
            f"<{tag}{scope} style='{_style(i in numbers)}'>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(line("td", row) for row in rows)
    style = f"{_style(False)};caption-side:top;color:inherit"
    caption = f"<caption style='{style}'>{escape(title)}</caption>"
    return HTML(f"<table>{caption}<thead>{line('th', head)}</thead><tbody>{body}</tbody></table>")


def folded(words: str, *tables: Any) -> HTML:
    """Tables (HTML or pandas') and preformatted text behind one line, ``words``, that opens them."""
    parts = [
        Markup("<pre style='white-space:pre-wrap'>{}</pre>").format(one) if isinstance(one, str)
        else Markup(one.data if isinstance(one, HTML) else one.to_html())
        for one in tables
    ]  # fmt: skip
    return HTML(
        Markup("<details><summary style='cursor:pointer'>{}</summary>{}</details>").format(
            words, Markup().join(parts)
        )
    )


def recorded(part: Any) -> tuple[str, HTML]:
    """What a study with claims of its own says (its ``section``), and its ``table``: for ``folded``."""
    head, rows = part.table()
    return "\n".join(part.section()), html_table(head, rows, "")


def findings_table(findings: Sequence[Claim]) -> HTML:
    """What ``labkit.studies.report.findings`` returned; the last column links to the notebook."""
    rows = []
    for row in findings:
        link = Markup("<a href='{}.ipynb'>{}</a>").format(row.notebook, row.notebook[:2])
        found = Markup("<div style='min-width:min(34em,60vw)'>{}</div>").format(
            Markup().join(Markup(CLAUSE).format(one) for one in row.measured.split("; "))
        )
        rows.append((row.paper, row.claim, found, row.conditions, link))
    head = ("paper", "question", "found", "measured on", "notebook")
    return html_table(head, rows, "Recorded findings, read from the lab's own results")


def findings_by_paper(findings: Sequence[Claim]) -> HTML:
    """``findings_table`` of each paper, folded; the line of each says how many of its results are nulls."""
    parts = []
    for paper in dict.fromkeys(row.paper for row in findings):
        rows = [row for row in findings if row.paper == paper]
        results = [one for row in rows for one in row.measured.split("; ")]
        nulls = sum(any(null in one for null in NULLS) for one in results)
        questions = "1 question" if len(rows) == 1 else f"{len(rows)} questions"
        title = f"{'kernels of all' if paper == 'all' else paper}: {questions}, {len(results)} results, "
        title += f"{nulls} of them nulls ({' or '.join(NULLS)})"
        parts.append(folded(title, findings_table(rows)).data)
    return HTML("".join(parts))


def marked(text: str, style: str) -> Markup:
    """``text``, escaped, in a style of its own: a cell."""
    return Markup("<span style='{}'>{}</span>").format(style, text)


def verdict(right: bool) -> Markup:
    """The cell of a response that was graded: a word and a sign, not the colour alone."""
    colour, words = (BLUE, "✓ right") if right else (DARK_RED, "✗ wrong")
    return marked(words, f"color:{colour};white-space:nowrap")


def _style(number: bool) -> str:
    return f"text-align:{'right' if number else 'left'};vertical-align:top;white-space:normal"
