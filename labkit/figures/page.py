"""labkit show: the curves and the last completions of a training run as one HTML page, without network."""

import argparse
import html
from io import StringIO
from pathlib import Path

from matplotlib import pyplot

from labkit import checks
from labkit.figures import theme
from labkit.figures.curves import REINFORCEMENT, sample_table, training_curves
from labkit.paths import write_atomic
from labkit.traces import TrainTrace

NAME = "train_trace.npz"


def show(arguments: argparse.Namespace) -> int:
    """Write the page and say where; 0. ValueError or OSError if there is no trace of a run."""
    given = Path(arguments.trace)
    path = given / NAME if given.is_dir() else given
    if not path.is_file():
        checks.fail("trace", str(given), f"a trace of labkit train fgo, or the folder of its {NAME}")
    text = page(TrainTrace.load(path))
    output = Path(arguments.output) if arguments.output else path.with_suffix(".html")
    write_atomic(output, lambda part: part.write_text(text, encoding="utf-8"))
    print(output)
    return 0


def page(trace: TrainTrace) -> str:
    """The curves that the run logged, its settings and what it wrote at its last step, as HTML."""
    panels = {name: label for name, label in REINFORCEMENT.items() if name in trace.series}
    panels = panels or {name: name for name in sorted(trace.series)[:8]}
    arm = str(trace.meta.get("arm", "run"))
    theme.apply()
    drawn = StringIO()
    figure = training_curves({arm: trace}, panels)
    figure.savefig(drawn, format="svg")
    pyplot.close(figure)
    picture = drawn.getvalue()
    picture = picture[picture.index("<svg") :]
    told = sorted({sample["step"] for sample in trace.samples})
    written = sample_table(trace, told[-1]).data if told else ""
    about = "".join(
        f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(str(value))}</dd>"
        for key, value in trace.meta.items()
    )
    title = html.escape(f"{arm}, {len(trace.step)} logged steps")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<body style='font-family:sans-serif;max-width:80em;margin:auto'><h1>{title}</h1>"
        f"<figure role='img' aria-label='training curves'>{picture}</figure>{written}"
        f"<details><summary>settings and provenance</summary><dl>{about}</dl></details></body></html>\n"
    )
