"""Instruments without Python: one HTML page each, and what stands for a widget in a saved notebook.

Instrument  an anywidget that can also be a page: ``tree.export("tree.html")``
page        script, style and state in one text; nothing is fetched
twin        for a notebook's output: the page in a sandboxed frame, and a picture where frames are stripped
picture     a matplotlib figure as a small PNG with its titles as text
"""

import base64
import html
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from labkit.figures.theme import describe
from labkit.paths import write_page
from labkit.widgets.esm import standalone

NOTEBOOK = "needs Python: open the notebook that made it."  # ends the line about what is missing
UNTRUSTED = "(live where the notebook is trusted or its cell is run)"
ROOM = 16_000_000  # bytes of state in a page of its own
FRAMED = 1_000_000  # of state, then of letters, in a notebook's output; what has more gets a picture
COLOURS = 256  # of a picture, dithered: a third of the bytes, without bands
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; }}
{style}
</style>
</head>
<body>
<main id="instrument"><h1 class="lk-live">{title}</h1></main>{note}
<script type="text/plain" id="state">{state}</script>
<script type="module">
{script}</script>
</body>
</html>
"""
# The live widget hides its twin. Where it cannot come, its output would say "model not found" beside it.
INSTEAD = ".jp-OutputArea-child:has(#{id}:not([hidden])) + .jp-OutputArea-child {{ display: none; }}"
TWIN = """<div id="{id}" class="labkit-twin" data-kind="{kind}">
<style>#{id} iframe + div {{ display: none; }} {instead}</style>
{frame}<div>{pictures}</div></div>"""
FRAME = """<iframe title="{title}" sandbox="allow-scripts" loading="lazy" srcdoc="{page}"
 style="width: 100%; height: 760px; border: 0"></iframe>"""
FIT = """<script>
addEventListener("message", ({{ source, data }}) => {{
  for (const frame of document.querySelectorAll("#{id} iframe"))
    if (frame.contentWindow === source && data.labkitHeight) frame.style.height = data.labkitHeight + "px";
}});
</script>"""


class Instrument(anywidget.AnyWidget):
    """A widget whose script needs Python for nothing, or for a few things that ``frozen`` names.

    twin   id of the HTML element that stands for the widget in a saved notebook, hidden while it lives
    """

    _entry: ClassVar[str]  # its script in static/
    twin = traitlets.Unicode().tag(sync=True)

    def __init__(self, **state: Any):
        super().__init__(**state)
        self.on_msg(answer_ping)

    def __repr__(self) -> str:
        """What a notebook that is not trusted shows in the widget's place."""
        return UNTRUSTED

    @property
    def instrument(self) -> "Instrument":
        """Itself; a panel has one inside, or None."""
        return self

    def still(self) -> list[object]:
        """Figures, HTML and text that say the same in a place without scripts."""
        return []

    def heading(self) -> str:
        """The title of its page."""
        return type(self).__name__

    def frozen(self, room: int) -> tuple[dict[str, Any], str]:
        """Traits that differ without Python, and one line about what is then missing (or "").

        room   bytes that the state may have, before it is compressed
        """
        return {}, ""

    def export(self, path: str | Path) -> Path:
        """Write the instrument as it stands as one HTML page that needs no Python and no network."""
        return write_page(path, page(self))


def answer_ping(widget: Any, content: dict[str, Any], _buffers: object) -> None:
    """Tell static/shared/kernel.js that Python is there."""
    if "ping" in content:
        widget.send({"pong": content["ping"]})


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows, in words."""

    png: bytes
    text: str

    def html(self) -> str:
        return (
            f'<img src="data:image/png;base64,{base64.b64encode(self.png).decode()}" '
            f'alt="{html.escape(self.text)}" style="max-width: 100%">'
        )


def picture(figure: Figure) -> Picture:
    """The figure as a PNG of few colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    small = io.BytesIO()
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(
            small, "PNG", optimize=True
        )
    return Picture(small.getvalue(), describe(figure))


def quick(figure: Figure) -> Picture:
    """The figure as a PNG in half of ``picture``'s time, at its full size: for a panel that redraws it."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", pil_kwargs={"compress_level": 1})
    return Picture(drawn.getvalue(), describe(figure))


def page(instrument: Instrument, room: int = ROOM) -> str:
    """The instrument as one HTML text; ``room``: bytes of state at most, before it is compressed."""
    changes, missing = instrument.frozen(room)
    state = {
        name: value
        for name, value in instrument.get_state().items()
        if not name.startswith("_") and name not in ("layout", "style", "twin")
    }
    plain = json.dumps(state | changes, default=_bytes)
    return PAGE.format(
        title=html.escape(instrument.heading()),
        style=instrument._css,
        note=f'\n<p class="lk-missing">{html.escape(missing)}</p>' if missing else "",
        state=base64.b64encode(zlib.compress(plain.encode(), 9)).decode(),
        script=standalone(instrument._entry),
    )


def _bytes(value: object) -> dict[str, str]:
    """Byte strings as static/shared/host.js reads them."""
    if isinstance(value, memoryview | bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"a state holds JSON and bytes; got {type(value).__name__}")


def twin(key: str, shown: Sequence[Picture | str], live: Instrument | None, *, widget: bool) -> dict:
    """A mimebundle: ``live`` in a frame where that is small enough, over pictures and text.

    key      id of the element
    shown    pictures, and HTML between them
    widget   whether the live widget's own output comes next
    """
    pictures = [one for one in shown if isinstance(one, Picture)]
    words = "; ".join(one.text for one in pictures) or "an instrument"
    content = html.escape(page(live, FRAMED)) if live else ""
    if len(content) > FRAMED:
        content = ""
    frame = FRAME.format(title=html.escape(words), page=content) if content else ""
    text = TWIN.format(
        id=key,
        kind=live._entry if live else "",
        instead=INSTEAD.format(id=key) if widget else "",
        frame=frame,
        pictures="\n".join(one if isinstance(one, str) else one.html() for one in shown),
    )
    bundle = {"text/html": text + (FIT.format(id=key) if frame else ""), "text/plain": words}
    if pictures:
        bundle["image/png"] = base64.b64encode(pictures[0].png).decode()
    return bundle
