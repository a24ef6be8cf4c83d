"""What ``studies soar-bench`` recorded of the implementation's speed, in sentences.

sentences     ours against one prompt at a time; the share of the forward; whether a batch changes an answer
times_faster  tokens per second of ours over those of one prompt at a time
least_share   the smallest share of the time that the lab's model spends in its forward, as one CUDA graph
"""

from labkit.studies.soar import records


def sentences() -> list[str]:
    """A line per finding, each with the numbers of its record."""
    lab, llada = records.bench("lab"), records.bench("llada")
    fast, slow = (lab["tokens per second"][arm] for arm in ("batched", "one at a time"))
    shape = f"{llada['shape']}'s shape"
    lines = [
        f"{lab['prompts']} puzzles, SOAR: {fast:,.0f} against {slow:,.0f} tokens/s, "
        f"{times_faster():.0f} times, {lab['same answer']['one at a time']:.0%} equal answers",
        f"{shape}, PBS of one prompt: {llada['times faster']:.2f} times faster, {llada['same tokens']:.0%} "
        "equal tokens",
    ]
    searches = {f"{lab['prompts']} puzzles, {arm}": seen for arm, seen in _searches().items()}
    searches |= {f"{shape}, {arm}": seen for arm, seen in llada["share"].items()}
    lines += [
        f"{arm}: {min(seen['share']):.1%} to {max(seen['share']):.1%} of the time in the model's forward"
        for arm, seen in searches.items()
    ]
    lines += [f"SOAR 8: {records.OLD_KERNEL}"] * ("kernel" not in records.bench("share")["provenance"])
    return lines + [
        f"{arm['prompts']} puzzles alone and in a batch, {arm['dtype']}, fixed_rows={arm['fixed_rows']}: "
        f"{arm['same answer']:.1%} equal answers, {arm['same score to the last bit']:.0%} with the same "
        "score to the last bit"
        for arm in records.bench("identity")["arms"]
    ]


def times_faster() -> float:
    rates = records.bench("lab")["tokens per second"]
    return rates["batched"] / rates["one at a time"]


def least_share() -> float:
    return min(min(seen["share"]) for arm, seen in _searches().items() if "graph" in arm)


def _searches() -> dict[str, dict]:
    return records.bench("share")["searches"]
