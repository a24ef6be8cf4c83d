"""Groups of sampled responses (GroupTrace): who is praised, who is blamed, and which groups say nothing.

hover_group    advantages of one group over length and entropy, FGO beside GRPO, for the pointer
response_table the group's responses as a readable table
silent_groups  how many groups teach nothing under each method, by the number of right responses
entropy_kinds  how much of each entropy is only length
reweighed      the same weighed by other settings: what ``explore`` draws
"""

import html
from collections.abc import Callable, Mapping

import numpy as np
import plotly.graph_objects as go
from IPython.display import HTML
from matplotlib import pyplot
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from labkit import checks
from labkit.figures import theme
from labkit.figures.tables import CODE, html_table, marked, verdict
from labkit.traces import GroupTrace

SILENT = 1e-6  # a group whose largest |advantage| is below this moves no weight
RIGHT, WRONG = ("right", theme.BLUE, "o", "circle"), ("wrong", theme.RED, "X", "x")
UNITS = {
    "sampled_sum": "−Σ p log p of sampled tokens (nats)",
    "full_sum": "summed entropy (nats)",
    "full_mean": "entropy per token (nats)",
}


def _read(trace: GroupTrace, group: int) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """(entropy kind FGO read, its values, lengths, correctness) of one group."""
    checks.integer("group", group, 0, len(trace.prompts) - 1)
    kind = trace.meta["settings"]["entropy"]
    return kind, trace.entropy[kind][group], trace.length[group], trace.correct[group]


def finding(trace: GroupTrace, group: int) -> str:
    """One sentence, computed: how differently FGO treats this group's like-scored responses."""
    _, _, length, correct = _read(trace, group)
    fgo, grpo = trace.advantages["fgo"][group], trace.advantages["grpo"][group]
    size, right = len(length), int(correct.sum())
    if np.abs(fgo).max() < SILENT:
        return f"{right} of {size} right: this group is silent under FGO and GRPO"
    if right in (0, size):
        word = "right" if right else "wrong"
        heard = "GRPO is silent" if np.abs(grpo).max() < SILENT else "GRPO speaks"
        return f"All {size} {word}: {heard}, FGO spreads {fgo.min():+.2f} to {fgo.max():+.2f}"
    rows, word = (correct, "right") if right > 1 else (~correct, "wrong")
    if rows.sum() < 2:
        return f"1 right, 1 wrong: FGO {fgo.max():+.2f} and {fgo.min():+.2f}, as GRPO without scaling"
    best, worst = fgo[rows].max(), fgo[rows].min()
    spread = np.ptp(grpo[rows])
    rest = "GRPO gives each the same" if spread < SILENT else f"GRPO spreads {spread:.2f}"
    return f"Equally {word}, yet FGO gives {best:+.2f} to {worst:+.2f}; {rest} {grpo[rows].mean():+.2f}"


def hover_group(trace: GroupTrace, group: int, ask: str = "") -> go.Figure:
    """FGO's advantages and GRPO's (hollow) over length and over the entropy that FGO read.

    Point at a mark to read its response.

    ask  stands before the finding, where the groups are not as they were measured
    """
    kind, entropy, length, correct = _read(trace, group)
    panels = ("over length", "over entropy")
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=panels)
    for method, hollow in (("fgo", ""), ("grpo", "-open")):
        for (word, colour, _, symbol), rows in ((RIGHT, correct), (WRONG, ~correct)):
            picked = np.flatnonzero(rows)
            text = [
                f"#{i + 1} {word}, {length[i]} tokens, {entropy[i]:.2f} nats<br>"
                + ";<br>".join(map(html.escape, trace.texts[group][i].split(";")))
                for i in picked
            ]
            for column, across in enumerate((length, entropy), 1):
                figure.add_scatter(
                    x=np.round(across[picked], 3).tolist(),
                    y=np.round(trace.advantages[method][group][picked], 4).tolist(),
                    mode="markers", name=f"{method.upper()}, {word}", legendgroup=f"{method}{word}",
                    showlegend=column == 1, hovertext=text, hovertemplate="%{hovertext}<br>A = %{y:+.3f}",
                    marker={"color": colour, "symbol": symbol + hollow, "size": 11},
                    row=1, col=column,
                )  # fmt: skip
    figure.update_xaxes(title_text="response length (tokens)", row=1, col=1)
    figure.update_xaxes(title_text=UNITS[kind], row=1, col=2)
    figure.update_yaxes(title_text="advantage", row=1, col=1)
    theme.plotly_title(figure, ask + finding(trace, group))
    above = figure.layout.margin.t + 20  # the panels' own titles
    return figure.update_layout(height=380, margin_t=above, legend={"orientation": "h", "y": -0.25})


def response_table(trace: GroupTrace, group: int) -> HTML:
    """The responses of one group, shortest first: text, verdict, length, entropy, both advantages."""
    kind, entropy, length, correct = _read(trace, group)
    rows = []
    for i in np.argsort(length, kind="stable"):
        pair = [f"{trace.advantages[method][group][i]:+.3f}" for method in ("fgo", "grpo")]
        text = marked(trace.texts[group][i], CODE)
        measured = f"{length[i]}", f"{entropy[i]:.2f}"
        rows.append((f"{i + 1}", text, verdict(correct[i]), *measured, *pair))
    head = ("#", "response", "verdict", "tokens", "entropy", "FGO", "GRPO")
    words = f"{trace.prompts[group]} right answer {trace.answers[group]}; entropy is {UNITS[kind]}"
    return html_table(head, rows, words, numbers=(0, 3, 4, 5, 6))


def silent_share(trace: GroupTrace, method: str) -> float:
    """Share of groups whose advantages are all zero (below 1e-6) under ``method``."""
    return float((np.abs(trace.advantages[method]).max(1) < SILENT).mean())


def silent_groups(trace: GroupTrace) -> Figure:
    """Groups by their number of right responses, and the largest |advantage| each method gives them."""
    size = trace.correct.shape[1]
    right = trace.correct.sum(1)
    counts = np.bincount(right, minlength=size + 1)
    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(9.2, 3.4))
    one_sided = np.isin(np.arange(size + 1), (0, size))
    for rows, colour, hatch, word in (
        (~one_sided, theme.SKY, None, "mixed: both methods speak"),
        (one_sided, theme.PAPER, "///", "one-sided: no reward difference"),
    ):
        bars.bar(
            np.flatnonzero(rows), counts[rows], color=colour, hatch=hatch, edgecolor=theme.INK, label=word
        )
    bars.set(xlabel=f"right responses of {size}", ylabel=f"groups (of {len(right)})")
    bars.margins(y=0.3)
    bars.legend(loc="upper center", fontsize=9)
    for index, method in enumerate(("grpo", "fgo")):  # as where their trainings are drawn
        largest = np.abs(trace.advantages[method]).max(1)
        shown = np.flatnonzero(counts)
        lines.plot(
            shown, [largest[right == k].mean() for k in shown],
            label=method.upper(), **theme.look(index),
        )  # fmt: skip
    lines.set(xlabel=f"right responses of {size}", ylabel="largest |advantage|, mean of groups")
    lines.set_ylim(bottom=0)
    lines.legend()
    for axis in (bars, lines):
        axis.set_xticks(range(size + 1))
    silent = {method: silent_share(trace, method) for method in ("grpo", "fgo")}
    title = f"{silent['grpo']:.0%} of groups teach GRPO nothing; for FGO it is {silent['fgo']:.0%}"
    theme.headline(figure, title)
    return figure


def entropy_kinds(trace: GroupTrace) -> Figure:
    """The summed and the per-token entropy of every response over its length, with correlations."""
    kinds = ("sampled_sum", "full_mean")
    figure, axes = pyplot.subplots(1, 2, figsize=(9.2, 3.6))
    summed, mean = (np.corrcoef(trace.length.flat, trace.entropy[kind].flat)[0, 1] for kind in kinds)
    for axis, kind in zip(axes, kinds, strict=True):
        for (word, colour, marker, _), rows in ((RIGHT, trace.correct), (WRONG, ~trace.correct)):
            axis.scatter(
                trace.length[rows], trace.entropy[kind][rows],
                s=22, c=colour, marker=marker, alpha=0.55, label=word, linewidths=0,
            )  # fmt: skip
        axis.set(xlabel="response length (tokens)", ylabel=UNITS[kind])
    axes[0].legend(loc="upper left")
    title = f"Correlation with length: {summed:.2f} for the summed entropy, {mean:.2f} per token"
    theme.headline(figure, title)
    return figure


def reweighed(
    traces: Mapping[str, GroupTrace],
    run: Callable[..., GroupTrace],
    group: int,
    grades: str,
    **settings: object,
) -> go.Figure:
    """``hover_group`` of ``run(traces[grades], **settings)``; the title says where that is a what-if.

    traces    the groups as they were graded and weighed first, then others
    """
    measured = next(iter(traces.values()))
    own = measured.meta["settings"]
    same = traces[grades] is measured and all(own[name] == value for name, value in settings.items())
    return hover_group(run(traces[grades], **settings), group, "" if same else "What if: ")
