"""A plain HTML table with a caption: every cell escaped."""

import html
from collections.abc import Sequence

from IPython.display import HTML


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> HTML:
    """Left-aligned cells that wrap; ``title`` is the caption above."""
    style = "text-align:left;vertical-align:top;white-space:normal"

    def line(tag: str, cells: Sequence[str]) -> str:
        scope = " scope='col'" if tag == "th" else ""
        inner = (f"<{tag}{scope} style='{style}'>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(line("td", row) for row in rows)
    caption = f"<caption style='{style};caption-side:top;color:inherit'>{html.escape(title)}</caption>"
    return HTML(f"<table>{caption}<thead>{line('th', head)}</thead><tbody>{body}</tbody></table>")
