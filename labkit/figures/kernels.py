"""The kernels: how four numbers become two and four bits, what was checked, what an H100 measured.

group_bits     one group of four and its packed form
byte_map       where the tensor cores' layout puts each group's bits in a 64 x 64 tile
checked        the live comparison, operation by operation
bandwidth      share of copy bandwidth of every one-pass kernel (bench JSON)
speedups       sparse and fused products and the feed-forward against their rivals (bench JSON)
"""

from collections.abc import Callable

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from labkit.figures import theme

RACES = (  # parts of ``speedups``
    "sparse product against cuBLAS, tokens × inner → outer",
    "fused product + pack against two kernels",
    "feed-forward, masked gradient, against torch.compile (default mode)",
)
OURS = ("relu2_compress", "compress", "decompress", "masked", "straight", "sparsify", "token_stats")
SHORT = {
    "relu2_compress rows": "ReLU² + 2:4 + pack (rows)",
    "relu2_compress cusparselt": "ReLU² + 2:4 + pack (tensor cores)",
    "compress cusparselt": "2:4 + pack (tensor cores)",
    "decompress rows": "unpack (rows)",
    "decompress": "unpack (tensor cores)",
    "masked gradient": "masked gradient",
    "masked gradient + packed": "masked gradient, dense and packed",
    "straight-through gradient": "straight-through gradient",
    "sparsify": "sparsify",
    "relu2 eager": "torch eager ReLU², no pruning",
    "relu2 compiled": "torch.compile ReLU², no pruning",
    "torch._cslt_compress": "torch: compress a pruned tensor",
    "torch 4x4 tile": "torch: prune and pack 4×4 tiles",
}


def group_bits(a: float, b: float, c: float, d: float, *, pack: Callable[[list[float]], dict]) -> Figure:
    """Four values, the kept pair and the four position bits; ``pack`` as labkit.kernels.pack_group."""
    group = pack([a, b, c, d])
    (first, second), bits = group["kept"], f"{group['nibble']:04b}"
    figure, axes = pyplot.subplots(figsize=(8.6, 3.3))
    axes.set(xlim=(-0.9, 8.4), ylim=(-0.3, 3.3), xticks=[], yticks=[])
    axes.axis("off")
    for i, value in enumerate(group["values"]):
        kept = i in group["kept"]
        x = 1.0 + 1.5 * i
        _cell(axes, x, 2.1, 1.3, f"{value:g}", theme.BLUE if kept else theme.GRID, kept)
        axes.text(x + 0.65, 2.95, f"position {i}", ha="center", color=theme.MUTED, fontsize=9)
        if not kept:
            axes.plot([x + 0.15, x + 1.15], [2.2, 2.65], color=theme.MUTED, linewidth=1.2)
    for slot, i in enumerate((first, second)):
        _cell(axes, 1.0 + 1.5 * slot, 0.55, 1.3, f"{group['packed'][slot]:g}", theme.BLUE, True)
        start, end = (1.65 + 1.5 * i, 2.08), (1.65 + 1.5 * slot, 1.2)
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=theme.BLUE))
    for k, bit in enumerate(bits):
        _cell(axes, 4.7 + 0.62 * k, 0.55, 0.58, bit, theme.ORANGE if k >= 2 else theme.YELLOW, False)
    axes.text(-0.8, 2.35, "dense", fontsize=10, color=theme.MUTED)
    axes.text(-0.8, 0.8, "packed", fontsize=10, color=theme.MUTED)
    axes.text(1.0, 0.2, "two values", fontsize=9, color=theme.MUTED)
    axes.text(4.7, 0.2, f"i1 = {second}", fontsize=9, color=theme.MUTED)
    axes.text(5.94, 0.2, f"i0 = {first}", fontsize=9, color=theme.MUTED)
    axes.set_title(
        f"Positions {first} and {second} stay: bits {bits} = {second} << 2 | {first}; 64 bits become 36"
    )
    return figure


def _cell(axes: Axes, x: float, y: float, width: float, text: str, colour: str, strong: bool) -> None:
    axes.add_patch(Rectangle((x, y), width, 0.62, facecolor=colour, edgecolor=theme.PAPER, linewidth=1.5))
    ink = theme.PAPER if strong else theme.INK
    weight = "bold" if strong else "normal"
    axes.text(x + width / 2, y + 0.31, text, ha="center", va="center", color=ink, fontweight=weight)


def byte_map(numbers: np.ndarray) -> Figure:
    """``numbers`` (rows, groups): byte of each group's nibble, as labkit.kernels.byte_map; its corner."""
    corner = numbers[:16, :8]
    figure, axes = pyplot.subplots(figsize=(8.6, 3.7))
    axes.imshow(corner, aspect="auto", cmap=theme.MAGNITUDE)
    for (row, group), byte in np.ndenumerate(corner):
        ink = theme.PAPER if byte < corner.max() / 2 else theme.INK
        half = "low" if row < 8 else "high"
        axes.text(group, row, f"{byte} {half}", ha="center", va="center", fontsize=8, color=ink)
    axes.axhline(7.5, color=theme.PAPER, linewidth=2)
    axes.axvline(3.5, color=theme.PAPER, linewidth=2)
    axes.set(xlabel="group of four", ylabel="row", xticks=range(8), yticks=range(16))
    axes.grid(visible=False)
    step = numbers[1, 0] - numbers[0, 0]
    axes.set_title(
        f"Byte and half of each group's bits: rows r and r + 8 share one, the next row is {step} bytes on"
    )
    return figure


def checked(rows: list[dict], caption: str) -> Figure:
    """``rows`` of labkit.kernels.live_check: numbers compared, and how many differ."""
    names = [row["operation"] for row in rows]
    wrong = sum(row["different"] for row in rows)
    total = sum(row["compared"] for row in rows)
    figure, axes = pyplot.subplots(figsize=(8.6, 0.9 + 0.33 * len(rows)))
    y = np.arange(len(rows))
    axes.barh(y, [row["compared"] for row in rows], color=theme.SKY, height=0.62)
    for i, row in enumerate(rows):
        mark = "✓ all equal" if row["different"] == 0 else f"✗ {row['different']:,} differ"
        axes.text(row["compared"], i, f"  {mark}", va="center", fontsize=9)
    axes.set(yticks=y, yticklabels=names, xlabel="numbers compared with the reference")
    axes.set_xlim(0, 1.25 * max(row["compared"] for row in rows))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(f"{wrong:,} of {total:,} numbers differ between the kernels and plain torch")
    theme.caption(figure, caption)
    return figure


def bandwidth(sparse: dict, tokens: dict) -> Figure:
    """Share of copy bandwidth from the two bench results, widest activation and most logits."""
    one_pass = [row for row in sparse["rows"] if row["section"] == "elementwise"]
    width = max(row["width"] for row in one_pass)
    rows = [row for row in one_pass if row["width"] == width and row["rival"] != "copy"]
    most = max(row["rows"] * row["vocabulary"] for row in tokens["rows"])
    rows += [row for row in tokens["rows"] if row["rows"] * row["vocabulary"] == most]
    rows.sort(key=lambda row: (row["rival"].startswith(OURS), row["share_of_copy"]))
    figure, axes = pyplot.subplots(figsize=(8.6, 1.2 + 0.28 * len(rows)))
    for y, row in enumerate(rows):
        ours = row["rival"].startswith(OURS)
        share = 100 * row["share_of_copy"]
        # The spread of time becomes the spread of bandwidth.
        low, high = (share * row["ms"]["p50"] / row["ms"][q] for q in ("p80", "p20"))
        colour = theme.BLUE if ours else theme.MUTED
        axes.barh(y, share, color=colour, height=0.66, hatch=None if ours else "//", edgecolor=theme.PAPER)
        axes.plot([low, high], [y, y], color=theme.INK, linewidth=2)
        axes.text(102 if share > 90 else high + 1, y, f"{share:.0f} %", va="center", fontsize=9)
    axes.axvline(100, color=theme.RED, linewidth=1.2, linestyle="--")
    axes.text(99, len(rows) - 0.35, "copy ", color=theme.RED, fontsize=9, ha="right", va="bottom")
    labels = [_label(row) for row in rows]
    axes.set(
        yticks=range(len(rows)), yticklabels=labels, xlim=(0, 115), xlabel="share of copy bandwidth (%)"
    )
    axes.grid(axis="y", visible=False)
    own = [100 * row["share_of_copy"] for row in rows if row["rival"].startswith(OURS)]
    axes.set_title(
        f"One-pass kernels reach {min(own):.0f} to {max(own):.0f} % of what a copy moves", pad=14
    )
    theme.caption(
        figure, _source(sparse, f"copy {sparse['ceilings']['copy_gbps']:,.0f} GB/s, width {width}")
    )
    return figure


def _label(row: dict) -> str:
    if row["section"] == "token_stats":
        return {"token_stats": "token statistics"}.get(row["rival"], f"{row['rival']}: token statistics")
    return SHORT[row["rival"]]


def speedups(sparse: dict) -> Figure:
    """Every product and feed-forward of the bench result against its rival = 1."""
    parts: list[dict[str, float]] = [{}, {}, {}]  # of RACES: label -> speedup
    products, fused, ffn = parts
    for row in sparse["rows"]:
        section, rival = row["section"], row["rival"]
        if section in ("product", "fused product") and (rival == "fused" or rival.startswith("matmul")):
            best = products if section == "product" else fused
            shape = f"{row['rows']:,} × {row['k']:,} → {row['n']:,}"
            best[shape] = max(best.get(shape, 0), row["speedup"])
        elif section.startswith("ffn") and rival == "sparse24":
            ffn[f"{section.removeprefix('ffn ')}, {row['pass']}"] = row["speedup"]
    height = sum(len(part) + 1 for part in parts)
    figure, axes = pyplot.subplots(figsize=(8.6, 1.2 + 0.3 * height))
    y, ticks = 0, dict[int, str]()
    paper = {"facecolor": theme.PAPER, "edgecolor": "none", "pad": 1}  # over the line at 1
    for title, part, marker, colour in zip(RACES, parts, theme.MARKERS, theme.CYCLE, strict=False):
        axes.text(0.62, y, title, fontweight="bold", fontsize=9, va="center", bbox=paper)
        for line, (label, value) in enumerate(part.items(), y + 1):
            axes.hlines(line, 1, value, color=theme.GRID, linewidth=3)
            axes.plot(value, line, marker, color=colour, markersize=8)
            side, pad = ("left", " ") if value >= 1 else ("right", "  ")
            axes.text(value, line, f"{pad} {value:.2f}× {pad}", va="center", fontsize=9, ha=side)
            ticks[line] = label
        y += len(part) + 1
    axes.axvline(1, color=theme.RED, linewidth=1.2, linestyle="--")
    axes.set_yticks(list(ticks), ticks.values())
    axes.set_xlabel("times as fast as the rival (medians, interleaved)")
    fastest = max(value for part in parts for value in part.values())
    axes.set(xlim=(0.6, fastest + 0.15), ylim=(height - 0.4, -0.7))
    axes.grid(axis="y", visible=False)
    backward = [value for label, value in ffn.items() if "backward" in label]
    spans = [f"{min(own):.2f} to {max(own):.2f}×" for own in (products.values(), backward)]
    axes.set_title(f"Sparse product {spans[0]} cuBLAS; feed-forward with backward {spans[1]}")
    theme.caption(
        figure, _source(sparse, f"bfloat16 product {sparse['ceilings']['product_tflops']:.0f} TFLOP/s")
    )
    return figure


def _source(result: dict, extra: str) -> str:
    versions = result["versions"]
    return (
        f"{result['card']}, {result['date'][:10]}, torch {versions['torch']}, Triton {versions['triton']}, "
        f"{extra}; `{result['command']}`"
    )
