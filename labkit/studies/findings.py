"""What the lab found, in one table: every number is read from a record of a run, none is typed in.

findings   one row per claim: what was asked, what came out with its spread, where it was measured

A record that is not there (a fresh study, an install without results) leaves its rows out.
"""

from pathlib import Path

from labkit.kernels import bench_results

HERE = Path(__file__).resolve().parent
Row = dict[str, str]
SOAR_RULES = {  # of the study -> the question that it answers
    "accurate, 3x": "More puzzles than greedy, with a third of its forward calls?",
    "accurate": "Who solves most puzzles, at any cost?",
}


def findings() -> list[Row]:
    """Rows of ``paper``, ``question``, ``found``, ``measured`` (card and date), ``notebook`` (a stem)."""
    rows: list[Row] = []
    for part in (_kernels, _elas_loss, _elas_memory, _soar, _fgo):
        try:
            rows += part()
        except FileNotFoundError:
            continue
    return rows


def _kernels() -> list[Row]:
    sparse, tokens = bench_results("sparse24"), bench_results("tokenstats")
    measured = f"{sparse['card']}, {sparse['date'][:10]}"
    goals = {goal["name"]: goal["value"] for goal in sparse["goals"] + tokens["goals"]}

    def span(words: str, end: str = "") -> str:
        values = [v for name, v in goals.items() if words in name and name.endswith(end)]
        return f"{min(values):.2f} to {max(values):.2f}x"

    reached = sum(goal["goal_reached"] for goal in sparse["goals"] + tokens["goals"])
    slower = straight_through()["forward + backward"]
    return [
        {
            "paper": "ELAS",
            "question": "Does 2:4 activation sparsity speed up a feed-forward layer?",
            "found": "against torch.compile in its default mode (not max-autotune): full rank, masked "
            f"gradient, forward {span('ffn d', 'forward against torch.compile')}, forward and backward "
            f"{span('ffn d', 'backward against torch.compile')}; low rank, straight-through gradient (the "
            f"default), forward and backward {slower:.2f}x; the sparse product alone against cuBLAS "
            f"{span('sparse product')}",
            "measured": measured,
            "notebook": "07_kernels",
        },
        {
            "paper": "all",
            "question": "How close are the kernels to what the memory allows?",
            "found": f"token statistics {goals['token statistics, share of copy']:.0%} of copy bandwidth; "
            f"{reached} of {len(goals)} speed goals reached, each listed with what is in the way",
            "measured": measured,
            "notebook": "07_kernels",
        },
    ]


def straight_through() -> dict[str, float]:
    """{pass: torch.compile's time over ELAS's} of the packed low-rank layer with the default gradient."""
    from labkit.studies.elas.recorded import results

    record = results("speed")
    tokens = min(row["tokens"] for row in record["ffn"])  # the larger batch has no compiled rivals
    ms = {(r["rival"], r["pass"]): r["ms"]["p50"] for r in record["ffn"] if r["tokens"] == tokens}
    own, rival = "ELAS packed, straight-through", "LORO ReLU², compiled"
    return {kind: ms[rival, kind] / ms[own, kind] for kind in ("forward", "forward + backward")}


def _elas_loss() -> list[Row]:
    from labkit.studies.elas.claims import gap, told
    from labkit.studies.elas.recorded import judged, note

    runs = judged("elas_ste", "lowrank_relu2", "equal_flops", "lowrank_swiglu")
    about, config = runs[0].meta, runs[0].meta["config"]
    horizon = f"{config['steps']} steps of {config['batch_size'] * config['seq_len']:,} tokens"
    return [{
        "paper": "ELAS", "question": "What does the mask cost in loss?",
        "found": f"ELAS minus the same model without its mask {told(gap('elas_ste', 'lowrank_relu2'))}; "
        f"minus a lower rank of equal FLOPs, no mask, {told(gap('elas_ste', 'equal_flops'))}; without the "
        f"gate minus with it {told(gap('lowrank_relu2', 'lowrank_swiglu'))} (per token of test text, "
        f"{about['parameters'] / 1e6:.0f}M parameters, {horizon})",
        "measured": _where(about) + f"; {note(about)}" * bool(note(about)),
        "notebook": "02_elas_pretraining",
    }]  # fmt: skip


def _elas_memory() -> list[Row]:
    from labkit.studies.elas.recorded import results

    record = results("memory")
    by_form: dict[str, dict[int, int]] = {}
    for row in record["ffn"]:
        by_form.setdefault(row["form"], {})[row["batch"]] = row["saved_bytes"]
    packed, plain = by_form["ELAS packed, masked gradient"], by_form["LORO ReLU²"]
    batch = max(set(packed) & set(plain))
    share = packed[batch] / plain[batch]
    return [{
        "paper": "ELAS", "question": "How many bytes does a packed feed-forward layer keep?",
        "found": f"{share:.0%} of the same low-rank ReLU² layer's, masked gradient, at the 1B shape and "
        f"batch {batch}",
        "measured": _where(record), "notebook": "02_elas_pretraining",
    }]  # fmt: skip


def _soar() -> list[Row]:
    from labkit.studies.soar.recorded import claim, load_study, note

    rows = []
    for model, records in load_study(HERE / "soar" / "results" / "study.json").items():
        made = [_where(record) for record in records.values()]
        remark = f"; {note(records)}" * bool(note(records))
        rows += [
            {"paper": "SOAR", "question": f"{question} ({model})", "found": claim(records, rule),
             "measured": max(made) + remark, "notebook": "04_soar_quality_speed"}
            for rule, question in SOAR_RULES.items()
        ]  # fmt: skip
    return rows


def _fgo() -> list[Row]:
    from labkit.studies.fgo.recorded import in_words, paper_step, recorded

    arms = recorded()
    if not {"FGO", "GRPO"} <= set(arms):
        raise FileNotFoundError("no recorded FGO study")
    about, step = arms["FGO"][0].meta, paper_step(arms)
    early, late = (f"{about['questions'] * steps:,} questions" for steps in (step, about["steps"]))
    return [{
        "paper": "FGO", "question": "How do length and accuracy differ from GRPO's?",
        "found": f"after {early}: {in_words(arms, when=step)}; after {late}: {in_words(arms)}",
        "measured": _where(about), "notebook": "06_fgo_entropy",
    }]  # fmt: skip


def _where(meta: dict) -> str:
    made = meta.get("provenance", meta)
    return f"{made['device']}, {made['time'][:10]}"
