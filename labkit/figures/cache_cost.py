"""What caches cost and save (stages of ``labkit.studies.soar.caches``): right answers, and seconds.

plane   left: share right of every arm, a line per checkpoint, block length and strategy; right: times
        faster than without a cache at LLaDA-8B's shape

A stage is a dict with ``arms``, each with ``cache`` (None: without); of the quality stages also
``strategy``, ``block_length``, ``accuracy``, ``low``, ``high``, ``difference``, ``fewer``, of "llada"
``prompts``, ``block_causal``, ``faster``.
"""

from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from labkit.figures import theme

LOOKS = {  # cache: name, colour, marker
    None: ("no cache", theme.INK, "X"),
    "approximate-prefix": ("approximate-prefix", theme.ORANGE, "^"),
    "approximate-dual": ("approximate-dual", theme.PURPLE, "s"),
    "exact-block": ("exact-block", theme.BLUE, "o"),
}


def plane(qualities: dict[str, dict[str, Any]], speed: dict[str, Any]) -> Figure:
    """``qualities`` {checkpoint: its stage, with ``prompts``, how many}, ``speed`` the stage "llada"."""
    lines = [(name, *line) for name, stage in qualities.items() for line in _lines(stage)]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11.5, 1.6 + 0.2 * len(lines)), width_ratios=(1.9, 1)
    )
    ticks = []
    for y, (name, block, strategy) in enumerate(lines):
        arms = [
            a for a in qualities[name]["arms"] if (a["block_length"], a["strategy"]) == (block, strategy)
        ]
        shares = [100 * a["accuracy"] for a in arms]
        left.plot([min(shares), max(shares)], [y, y], color=theme.GRID, linewidth=3, zorder=1)
        for arm in arms:
            _, colour, marker = LOOKS[arm["cache"]]
            left.plot([100 * arm["low"], 100 * arm["high"]], [y, y], color=colour, linewidth=1.5, zorder=2)
            left.plot(
                100 * arm["accuracy"], y, marker, color=colour, markersize=7.5, zorder=3,
                markeredgecolor=theme.PAPER,
            )  # fmt: skip
        first = y == 0 or lines[y - 1][:2] != (name, block)
        run = f"{name}, {f'blocks of {block}' if block else 'one block'}, " if first else ""
        ticks.append(run + strategy)
    left.set_yticks(range(len(lines)), ticks)
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    counts = ", ".join(f"{name} {stage['prompts']:,}" for name, stage in qualities.items())
    left.set(xlabel=f"right answers (%), 95 % interval over prompts, one model each; prompts:\n{counts}")
    used = {arm["cache"] for stage in (*qualities.values(), speed) for arm in stage["arms"]}
    seen = [cache for cache in LOOKS if cache in used]
    marks = [pyplot.Line2D([], [], color=LOOKS[c][1], marker=LOOKS[c][2], linestyle="") for c in seen]
    figure.legend(marks, [LOOKS[c][0] for c in seen], loc="outside lower left", ncols=len(seen))
    _draw_speed(right, speed)
    theme.headline(figure, _finding(qualities, speed))
    return figure


def _lines(stage: dict[str, Any]) -> list[tuple[int | None, str]]:
    found = [(a["block_length"], a["strategy"]) for a in stage["arms"]]
    return sorted(dict.fromkeys(found), key=lambda line: (line[0] or 0, line[1]))


def _draw_speed(axes: Axes, speed: dict[str, Any]) -> None:
    arms = _cached(speed)
    arms.sort(key=lambda a: (a["prompts"], list(LOOKS).index(a["cache"])))
    for y, arm in enumerate(arms):
        _, colour, marker = LOOKS[arm["cache"]]
        axes.plot([1, arm["faster"]], [y, y], color=colour, linewidth=2)
        axes.plot(arm["faster"], y, marker, color=colour, markersize=8, markeredgecolor=theme.PAPER)
        axes.annotate(
            f"{arm['faster']:.1f}×", (arm["faster"], y), (9, 0), textcoords="offset points", va="center",
            fontsize=9,
        )  # fmt: skip
    counts = [a["prompts"] for a in arms]
    names = [f"{n} prompt{'s' * (n > 1)}" if n not in counts[:y] else "" for y, n in enumerate(counts)]
    axes.set_yticks(range(len(arms)), names)
    axes.invert_yaxis()
    axes.axvline(1, color=theme.INK, linewidth=1)
    axes.grid(axis="y", visible=False)
    least, most = (pick(a["faster"] for a in arms) for pick in (min, max))
    ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20) if tick <= 1.3 * most]
    axes.set(xscale="log", xlim=(min(0.9, 0.9 * least), 1.5 * most))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.set(xlabel="times faster than no cache")
    told = f"{speed['shape']}'s shape,\n{speed['length']} + {speed['generated']} tokens, blocks of"
    axes.set_title(f"{told} {speed['block_length']}", fontweight="normal", fontsize=10)


def _cached(speed: dict[str, Any]) -> list[dict[str, Any]]:
    return [arm for arm in speed["arms"] if arm["cache"]]


def _finding(qualities: dict[str, dict[str, Any]], speed: dict[str, Any]) -> str:
    """From the best to the worst change in points of each approximate cache; the largest gain in time."""
    parts = []
    for cache in ("approximate-prefix", "approximate-dual"):
        own = [a["difference"] for s in qualities.values() for a in s["arms"] if a["cache"] == cache]
        if own:
            parts.append(f"{cache} {100 * max(own):+.1f} to {100 * min(own):+.1f} points")
    best = max(_cached(speed), key=lambda arm: arm["faster"])
    fast = f"up to {best['faster']:.1f}× faster ({best['cache']})"
    return "What a frozen neighbour costs: " + "; ".join(parts) + f";\n{fast} at {speed['shape']}'s shape"
