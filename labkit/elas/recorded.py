"""What the lab keeps of its ELAS study: results of the runs, and small trained models.

results(stage)         memory, speed or study, measured on a GPU, as a dict
judged, curves         the runs of the study: what they came to, and how
runs(prefix)           other recorded TrainTraces
note(meta)             what to say of a record made with an older optimiser
load_checkpoint(name)  (model, tokenizer) of a trained model in labkit/checkpoints
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.checks import choice
from labkit.paths import CHECKPOINTS, write_atomic
from labkit.traces import TrainTrace

if TYPE_CHECKING:
    from labkit.elas.model import ElasForCausalLM

RESULTS = Path(__file__).resolve().parent / "results"
# Of Loro's arithmetic, written into every record. 1, until November 2026: K0 of the exact step was read
# from the other factor, and the schedule neither restarted within the warm-up nor had LORO's late cosine.
LORO_REVISION = 2


def results(stage: str) -> dict:
    """The record "memory" or "speed" (rows: study_ffn) or "study" (study_record). ValueError for others."""
    return json.loads(
        (RESULTS / f"{choice('stage', stage, ('memory', 'speed', 'study'))}.json").read_text()
    )


def note(meta: Mapping[str, Any]) -> str:
    """What to say of a record, or of a run's meta, that an older optimiser made; empty for the present."""
    if meta.get("loro_revision", 1) == LORO_REVISION:
        return ""
    return "run before Loro's exact step and schedule were corrected"


def judged(*arms: str) -> list[TrainTrace]:
    """The study's runs on the test text, of all arms and rules or of some, without curves.

    ``meta``: the run's row in study.json and, for all alike, config, text, provenance; NaN where it broke.
    """
    record = results("study")
    about = {key: record[key] for key in ("config", "provenance", "loro_revision")}
    about |= record["text"] | {"text": record["text"]["name"]}
    rows = [row for row in record["runs"] if row["stage"] != "tune"]
    known = {row["arm"] for row in rows}
    for arm in arms:
        choice("arms", arm, sorted(known))
    return [
        TrainTrace(np.array([], int), meta=about | _with_nan(row))
        for row in rows
        if row["arm"] in (arms or known)
    ]


def _with_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.nan if value is None else value for name, value in row.items()}


def curves(*arms: str) -> list[TrainTrace]:
    """The study's runs whose curves are kept, the first seeds of each arm and rule, or of some."""
    known = load_curves(RESULTS / "curves.npz")
    for arm in arms:
        choice("arms", arm, sorted({trace.meta["arm"] for trace in known}))
    return [trace for trace in known if trace.meta["arm"] in (arms or {trace.meta["arm"]})]


def runs(prefix: str = "") -> list[TrainTrace]:
    """Other recorded runs whose names start so, in the order of their names. ValueError if none does."""
    paths = [path for path in sorted(RESULTS.glob(f"{prefix}*.npz")) if path.stem != "curves"]
    if not paths:
        names = sorted({path.stem.rsplit("-", 1)[0] for path in RESULTS.glob("*-*.npz")})
        choice("prefix", prefix, names)
    return [TrainTrace.load(path) for path in paths]


def save_curves(path: Path, traces: Sequence[TrainTrace]) -> None:
    """Several runs in one .npz without pickle: their steps, series and meta, not their samples."""
    arrays = {"json": np.array(json.dumps([trace.meta for trace in traces]))}
    for i, trace in enumerate(traces):
        arrays[f"{i}/step"] = trace.step
        arrays |= {f"{i}/{name}": values for name, values in trace.series.items()}
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def load_curves(path: Path) -> list[TrainTrace]:
    """What ``save_curves`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    traces = []
    for i, meta in enumerate(json.loads(str(arrays.pop("json")))):
        own = {name.removeprefix(f"{i}/"): v for name, v in arrays.items() if name.startswith(f"{i}/")}
        traces.append(TrainTrace(own.pop("step"), own, meta=meta))
    return traces


def load_checkpoint(name: str, *, device: str = "cpu") -> tuple["ElasForCausalLM", object]:
    """(model in float32 and eval mode, ``tokenizers.Tokenizer``) of the lab's own trained models.

    name   "lab/elas-3m"; README.md beside the weights says how it was trained
    """
    known = {f"lab/{path.name}": path for path in CHECKPOINTS.glob("elas*") if path.is_dir()}
    folder = known[choice("name", name, tuple(sorted(known)))]
    import torch
    from tokenizers import Tokenizer

    from labkit.elas.model import ElasForCausalLM

    model = ElasForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.to(device).eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def save_model(folder: Path, model: "ElasForCausalLM", tokenizer) -> None:
    """What transformers opens by path: weights, config, generation config and the tokenizer.

    tokenizer   a ``tokenizers.Tokenizer`` of data.py; its END is where generation begins, ends and pads
    """
    from transformers import PreTrainedTokenizerFast

    from labkit.elas.data import END

    end = tokenizer.token_to_id(END)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = settings.eos_token_id = end
    # not in model.config, where it would keep END's embedding from being trained
    model.generation_config.pad_token_id = end
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, padding_side="left",
        model_max_length=model.config.max_position_embeddings, clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)  # fmt: skip


def save_checkpoint(folder: Path, model: "ElasForCausalLM", trace: TrainTrace, tokenizer) -> None:
    """bfloat16 safetensors, tokenizer and configuration, see ``save_model``, and a card."""
    import torch

    save_model(folder, model.to_dtype(torch.bfloat16), tokenizer)
    (folder / "README.md").write_text(card(folder.name, trace))


def card(name: str, trace: TrainTrace) -> str:
    """What a model is, where its data came from, how it was trained and how good it is: Markdown."""
    meta, origin = trace.meta, trace.meta["provenance"]
    config = meta["config"]
    mask = "with the 2:4 mask" if meta["arm"].startswith("elas") else "without a mask"
    return f"""# {name}

A low-rank ReLU² language model ({meta["parameters"]:,} parameters), trained {mask}. Input and output are
tokens of the byte-level BPE in tokenizer.json.

- Data: {config["source"]} ({meta["text"]}), {meta["steps_done"]} of {config["steps"]} planned steps of
  {config["batch_size"]} x {config["seq_len"]} tokens, seed {config["seed"]}
- Test loss: {meta["test_nats"]:.4f} nats per token, {meta["test_bits_per_byte"]:.4f} bits
  per byte over {meta["test_tokens"]:,} tokens; counting tokens alone gives
  {meta["unigram_bits_per_byte"]:.4f} bits per byte
- Trained with `{origin["command"]}` on {origin["device"]}, {origin["time"]},
  {json.dumps(origin["versions"])}
- Weights: Apache-2.0, like the lab. Text: {config["source"]}, see labkit/elas/sources.py for its licence
"""
