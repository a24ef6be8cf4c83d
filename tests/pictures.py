"""``make pictures``: README's pictures, from real traces and from the instruments as they are now.

Each holds a digest of what it was made from; tests/test_pictures.py compares it. Needs Chromium.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import beam_film

from labkit import widgets
from labkit.paths import CHECKPOINTS, NOTEBOOKS
from labkit.studies.fgo import records
from labkit.studies.fgo.claims import sentence
from labkit.studies.files import digest
from labkit.widgets.esm import standalone
from labkit.widgets.export import COLOURS, Instrument
from labkit.widgets.mask_grid import MaskGrid
from labkit.widgets.scrubber import Scrubber

FOLDER = NOTEBOOKS / "pictures"
PUZZLE, BEAM, THRESHOLD = 7, 4, 0.9995  # those of notebook 00
TEXT = "def area(width, height):\n    return width * height\n"
ARMS = ("GRPO", "FGO")
WIDTH, KEY = 1100, "source"


def sources() -> dict[str, str]:
    """{picture: digest of its code and its data}."""
    film = [
        Path(beam_film.__file__),
        CHECKPOINTS / "sudoku9.safetensors",
        CHECKPOINTS / "sudoku9_puzzles.npz",
    ]
    mask = [CHECKPOINTS / "elas-3m" / "model.safetensors"]
    curves = [records.RESULTS / records.file_of(arm) for arm in ARMS]
    return {
        "beam_tree.svg": digest([*map(digest, film), PUZZLE, BEAM, THRESHOLD]),
        "mask_grid.png": digest([*_script(MaskGrid), *map(digest, mask), TEXT]),
        "scrubber.png": digest([*_script(Scrubber), *map(digest, curves)]),
    }


def _script(kind: type[Instrument]) -> list[str]:
    return [standalone(kind._entry), str(kind._css)]


def recorded(picture: Path) -> str:
    """The digest that a picture holds."""
    from PIL import Image

    if picture.suffix == ".svg":
        return picture.read_text().split("<metadata>")[1].split("</metadata>")[0]
    with Image.open(picture) as image:
        return image.info[KEY]


def tree_film(source: str) -> str:
    from labkit.soar import decode, load_model
    from labkit.soar.tasks.puzzle_sets import load_puzzles

    model = load_model("lab/sudoku9", device="cpu")
    boards, truths = (part[PUZZLE:] for part in load_puzzles("test", PUZZLE + 1))
    run = partial(decode, model, boards.tolist())
    soar = run("soar", beam=BEAM, threshold=THRESHOLD, min_collapse=2)
    return beam_film.beam_film(soar, run("greedy"), truth=truths[0], side=9, source=source)


def mask_grid() -> Instrument:
    from labkit.elas import trace_masks
    from labkit.elas.checkpoints import load_checkpoint

    model, tokenizer = load_checkpoint("lab/elas-3m", device="cpu")
    trace = trace_masks(model, text=TEXT, tokenizer=tokenizer, max_tokens=128)
    return widgets.mask_grid(trace, layer=len(trace.activations) - 1, token=12)


def scrubber() -> Instrument:
    arms = records.runs()
    kept = {arm: arms[arm][: records.SAMPLED] for arm in ARMS}
    return widgets.scrubber(kept, title=sentence(arms, "FGO", "GRPO"))


def shoot(instrument: Instrument, picture: Path, source: str) -> None:
    """The instrument's own page in Chromium, as a PNG of few colours."""
    from browser.lab import CHROMIUM_ARGUMENTS, MISSING, find_chromium
    from PIL import Image, PngImagePlugin
    from playwright.sync_api import sync_playwright

    if (path := find_chromium()) is None:
        raise SystemExit(MISSING)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made, shot = instrument.export(Path(folder) / "page.html"), Path(folder) / "shot.png"
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGUMENTS))
        page = chromium.new_page(viewport={"width": WIDTH, "height": 1200}, device_scale_factor=1.5)
        page.goto(made.as_uri())
        page.wait_for_timeout(1500)
        page.locator(".lk").first.screenshot(path=shot)
        chromium.close()
        note = PngImagePlugin.PngInfo()
        note.add_text(KEY, source)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(COLOURS).save(picture, optimize=True, pnginfo=note)


def main() -> None:
    os.environ.pop("LABKIT_HEADLESS", None)  # where there is no live widget
    found = sources()
    (FOLDER / "beam_tree.svg").write_text(tree_film(found["beam_tree.svg"]))
    make: dict[str, Callable[[], Instrument]] = {"mask_grid.png": mask_grid, "scrubber.png": scrubber}
    for name, build in make.items():
        with contextlib.redirect_stdout(io.StringIO()):  # outside a notebook a display is print
            instrument = build()
        shoot(instrument, FOLDER / name, found[name])
    for name in found:
        print(f"{name}: {(FOLDER / name).stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
