"""Rows with ``prompt`` and ``answer`` from files or the hub, and the names of those built in."""

import gzip
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labkit import checks

GYM = ("chain_sum", "gsm_symbolic")
BUILT_IN = ("lab/verbose-sums", "lab/small-sums", *(f"gym/{name}" for name in GYM))
JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
TABLES = {".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv"}
_ON_HUB = re.compile(r"(?!lab/|gym/)[\w-][\w.-]*/[\w-][\w.-]*")
FORMATS = ".jsonl or .json file (also .gz), .parquet or .csv, or a save_to_disk folder"


def read_rows(
    name: str, *, prompt: str = "prompt", answer: str = "answer", config: str | None = None,
    split: str = "train",
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of a file (``FORMATS``), a folder of ``Dataset.save_to_disk`` or a data set on the hub.

    prompt, answer  the columns that hold them; the rows have them as ``prompt`` and ``answer`` (as text)
    config          of a data set on the hub that has several
    split           of one on the hub or in a save_to_disk folder that has several

    ValueError if it cannot be read or a row lacks either.
    """
    rows = _read(name, config, split)
    if not isinstance(rows, list) or not rows:
        checks.fail("dataset", name, "a file with at least one row, in a list where it is .json")
    for number, row in enumerate(rows, 1):
        _check(row, number, name, prompt, answer)
    rows = [{**row, "prompt": row[prompt], "answer": str(row[answer]).strip()} for row in rows]
    if len({type(row["prompt"]) for row in rows}) > 1:
        checks.fail("dataset", name, "of texts or of conversations throughout, not of both")
    return rows


def columns_of(name: str) -> set[str]:
    """The columns of the first row of a file or folder; ValueError if it cannot be read."""
    rows = _read(name, None, "train")
    return set(rows[0]) if isinstance(rows, list) and rows and isinstance(rows[0], dict) else set()


def _read(name: str, config: str | None, split: str) -> Any:
    path = Path(name)
    if path.is_dir() and any((path / file).is_file() for file in ("state.json", "dataset_dict.json")):
        return _with_datasets(name, None, split)
    ending = next((end for end in (*JSON, *TABLES) if path.name.lower().endswith(end)), None)
    if ending is None and not path.exists() and _ON_HUB.fullmatch(name):
        return _from_hub(name, config, split)
    if ending is None or not path.is_file():
        checks.fail(
            "dataset",
            name,
            f"a {FORMATS} that exists, owner/name on the hub, or one of {', '.join(BUILT_IN)}",
        )
    if ending in TABLES:
        return _with_datasets(name, TABLES[ending], split)
    try:
        content = gzip.decompress(path.read_bytes()) if ending.endswith(".gz") else path.read_bytes()
        text = content.decode("utf-8-sig")  # Windows tools put a byte order mark before UTF-8
        return _lines(text, name) if ".jsonl" in ending else json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"dataset must be valid JSON; {name} is not: {error}") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"dataset must be a whole gzip file; {name} is not: {error}") from None


def _from_hub(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split).to_list()
    except Exception as error:  # of the network, the hub and the files
        reason = str(error).strip().split("\n")[0]
        where = f"{name} (config {config}, split {split})"
        raise ValueError(f"dataset must be on the hub or a file; {where}: {reason}") from None


def _with_datasets(name: str, kind: str | None, split: str) -> list[dict[str, Any]]:
    """The rows of a table, or of a save_to_disk folder where ``kind`` is None; no cache is left."""
    import pandas
    from datasets import Dataset, DatasetDict, load_from_disk

    try:
        if kind == "csv":  # texts as they stand: 007 is no number, and the word NaN no hole
            table = pandas.read_csv(name, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            return table.to_dict("records")
        if kind == "parquet":
            with TemporaryDirectory() as cache:
                return Dataset.from_parquet(name, cache_dir=cache, keep_in_memory=True).to_list()
        found = load_from_disk(name)
    except Exception as error:  # pyarrow, pandas and datasets each have their own
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"dataset must be a {FORMATS} that is whole; {name} is not: {reason}") from None
    if isinstance(found, DatasetDict):
        if split not in found:
            checks.fail("dataset", name, f"a folder with the split {split}, not only {', '.join(found)}")
        found = found[split]
    return found.to_list()


def _check(row: Any, number: int, name: str, prompt: str, answer: str) -> None:
    missing = {prompt, answer} - set(row) if isinstance(row, dict) else {prompt, answer}
    if missing:
        has = f"has {', '.join(sorted(row)) or 'none'}" if isinstance(row, dict) else "is no object"
        raise ValueError(
            f"dataset must have the columns {prompt} and {answer}; row {number} of {name} lacks "
            f"{' and '.join(sorted(missing))} ({has})"
        )
    if not _is_prompt(row[prompt]):
        checks.fail(
            f"{prompt} in row {number} of {name}",
            row[prompt],
            "a text or a list of messages whose content is text",
        )
    if row[answer] is None or not str(row[answer]).strip():
        checks.fail(f"{answer} in row {number} of {name}", row[answer], "a text or a number, not empty")


def _lines(text: str, name: str) -> list[Any]:
    """The rows of a .jsonl file; only \\n parts them, JSON strings may hold Unicode's other line ends."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            where = f"line {number} of {name} is not: {error.msg} at column {error.colno}"
            raise ValueError(f"dataset must be valid JSON; {where}") from None
    return rows


def _is_prompt(prompt: Any) -> bool:
    if not isinstance(prompt, list):
        return isinstance(prompt, str)
    return bool(prompt) and all(
        isinstance(turn, dict) and {"role", "content"} <= set(turn) and isinstance(turn["content"], str)
        for turn in prompt
    )
