"""Rows with ``prompt`` and ``answer`` from files in the usual formats."""

import gzip
import json
import zlib
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labkit import checks
from labkit.reading import DATA_BYTES, gunzip, read_bytes

JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
TABLES = (".parquet", ".csv", ".csv.gz")
MOST_ROWS = 10_000_000  # of a table: a column of one value takes no bytes in parquet
FORMATS = ".jsonl or .json file (also .gz), .parquet or .csv, or a save_to_disk folder"


def read_rows(name: str, built_in: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a file (``FORMATS``) or of a folder of ``Dataset.save_to_disk`` (its split "train").

    built_in  names that the error for one that is no file offers too

    ``answer`` becomes text. ValueError if it cannot be read or a row lacks ``prompt`` or ``answer``.
    """
    rows = _read(name, built_in)
    if not isinstance(rows, list) or not rows:
        checks.fail("dataset", name, "a file with at least one row, in a list where it is .json")
    for number, row in enumerate(rows, 1):
        _check(row, number, name)
    if len({type(row["prompt"]) for row in rows}) > 1:
        checks.fail("dataset", name, "of texts or of conversations throughout, not of both")
    return [{**row, "answer": str(row["answer"]).strip()} for row in rows]


def _read(name: str, built_in: Sequence[str]) -> Any:
    path = Path(name)
    if path.is_dir() and any((path / file).is_file() for file in ("state.json", "dataset_dict.json")):
        return _with_datasets(name, None)
    ending = next((end for end in (*JSON, *TABLES) if path.name.lower().endswith(end)), None)
    if ending is None or not path.is_file():
        others = f", or one of {', '.join(built_in)}" if built_in else ""
        checks.fail("dataset", name, f"a {FORMATS} that exists{others}")
    if ending == ".parquet":
        return _with_datasets(name, ending)
    try:
        content = read_bytes(path, DATA_BYTES, "dataset")
        if ending.endswith(".gz"):
            content = gunzip(content, DATA_BYTES, "dataset", path)
        text = content.decode("utf-8-sig")  # Windows tools put a byte order mark before UTF-8
        if ".csv" in ending:
            return _table(text, name)
        return _lines(text, name) if ".jsonl" in ending else json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        kind = "UTF-8" if ".csv" in ending else "JSON"
        raise ValueError(f"dataset must be valid {kind}; {name} is not: {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"dataset must be a whole gzip file; {name} is not: {error}") from None


def _with_datasets(name: str, kind: str | None) -> list[dict[str, Any]]:
    """The rows of a parquet file, or of a save_to_disk folder where ``kind`` is None; no cache is left."""
    from datasets import Dataset, DatasetDict, load_from_disk
    from pyarrow.parquet import ParquetFile

    try:
        if kind == ".parquet":
            about = ParquetFile(name).metadata
            size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if size > DATA_BYTES or about.num_rows > MOST_ROWS:
                raise ValueError(f"it has more than {DATA_BYTES:,} bytes or {MOST_ROWS:,} rows")
            with TemporaryDirectory() as cache:
                return Dataset.from_parquet(name, cache_dir=cache, keep_in_memory=True).to_list()
        found = load_from_disk(name)
    except Exception as error:  # pyarrow, pandas and datasets each have their own
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"dataset must be a {FORMATS} that is whole; {name} is not: {reason}") from None
    if isinstance(found, DatasetDict):
        if "train" not in found:
            checks.fail("dataset", name, f"a folder with the split train, not only {', '.join(found)}")
        found = found["train"]
    return found.to_list()


def _table(text: str, name: str) -> list[dict[str, Any]]:
    """The rows of a csv, as texts as they stand: 007 is no number, and the word NaN no hole."""
    import pandas

    try:
        return pandas.read_csv(StringIO(text), dtype=str, keep_default_na=False).to_dict("records")
    except ValueError as error:  # pandas' own are such
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"dataset must be a {FORMATS} that is whole; {name} is not: {reason}") from None


def _check(row: Any, number: int, name: str) -> None:
    missing = {"prompt", "answer"} - set(row) if isinstance(row, dict) else {"prompt", "answer"}
    if missing:
        has = f"has {', '.join(sorted(row)) or 'none'}" if isinstance(row, dict) else "is no object"
        raise ValueError(
            f"dataset must have the columns prompt and answer; row {number} of {name} lacks "
            f"{' and '.join(sorted(missing))} ({has})"
        )
    if not _is_prompt(row["prompt"]):
        checks.fail(
            f"prompt in row {number} of {name}",
            row["prompt"],
            "a text or a list of messages whose content is text",
        )
    if row["answer"] is None or not str(row["answer"]).strip():
        checks.fail(f"answer in row {number} of {name}", row["answer"], "a text or a number, not empty")


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
