"""Rows with ``prompt`` and ``answer``.

read_rows   from files in the usual formats or from the hub
as_prompts  as a model is asked them, in training (labkit train fgo) as in evaluation (labkit eval)
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Sequence
from io import StringIO
from numbers import Number
from pathlib import Path
from typing import Any

from labkit import checks
from labkit.reading import DATA_BYTES, gunzip, read_bytes

Rows = list[dict[str, Any]]
JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
TABLES = (".parquet", ".csv", ".csv.gz")
MOST_ROWS = 10_000_000  # of a table: a column of one value takes no bytes in parquet
FORMATS = ".jsonl or .json file (also .gz), .parquet or .csv, or a save_to_disk folder"
_ON_HUB = re.compile(r"(?!lab/|gym/)[\w-][\w.-]*/[\w-][\w.-]*")


def read_rows(
    name: str, built_in: Sequence[str] = (), *, prompt: str = "prompt", answer: str = "answer",
    config: str | None = None, split: str = "train",
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of a file (``FORMATS``), a folder of ``Dataset.save_to_disk`` or a data set on the hub.

    built_in        names that the error for what is none of these offers too
    prompt, answer  the columns that hold them; the rows have them as ``prompt`` and ``answer`` (as text)
    config          of a data set on the hub that has several
    split           of one on the hub or in a save_to_disk folder that has several

    ValueError if it cannot be read or a row lacks either.
    """
    rows = _read(name, built_in, config, split)
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
    rows = _read(name, (), None, "train")
    return set(rows[0]) if isinstance(rows, list) and rows and isinstance(rows[0], dict) else set()


def as_prompts(rows: Rows, *, instruction: str | None = None, chat: bool = False) -> Rows:
    """``rows`` with ``instruction`` on a line behind each prompt and, for ``chat``, as a user's message.

    ValueError if a prompt is a conversation already and either is asked for.
    """
    if not instruction and not chat:
        return rows
    if not all(isinstance(row["prompt"], str) for row in rows):
        checks.fail("--instruction and --chat", "prompts that are conversations", "left out for these")
    made = []
    for row in rows:
        text = f"{row['prompt']}\n{instruction}" if instruction else row["prompt"]
        made.append({**row, "prompt": [{"role": "user", "content": text}] if chat else text})
    return made


def _read(name: str, built_in: Sequence[str], config: str | None, split: str) -> Any:
    path = Path(name)
    if path.is_dir() and any((path / file).is_file() for file in ("state.json", "dataset_dict.json")):
        return _with_datasets(name, None, split)
    ending = next((end for end in (*JSON, *TABLES) if path.name.lower().endswith(end)), None)
    if ending is None and not path.exists() and _ON_HUB.fullmatch(name):
        return _from_hub(name, config, split)
    if ending is None or not path.is_file():
        others = f", or one of {', '.join(built_in)}" if built_in else ""
        checks.fail("dataset", name, f"a {FORMATS} that exists, owner/name on the hub{others}")
    if ending == ".parquet":
        return _with_datasets(name, ending, split)
    try:
        content = read_bytes(path, DATA_BYTES, "dataset")
        if ending.endswith(".gz"):
            content = gunzip(content, DATA_BYTES, "dataset", path)
        text = content.decode("utf-8-sig")  # Windows tools put a byte order mark before UTF-8
        if ".csv" in ending:
            return _table(text, name)
        return _lines(text, name) if ".jsonl" in ending else _document(text, name)
    except (UnicodeDecodeError, RecursionError) as error:
        kind = "UTF-8" if ".csv" in ending else "JSON"
        raise ValueError(f"dataset must be valid {kind}; {name} is not: {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
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
    """The rows of a parquet file, or of a save_to_disk folder where ``kind`` is None."""
    from datasets import DatasetDict, load_from_disk
    from pyarrow.parquet import ParquetFile

    try:
        if kind == ".parquet":
            file = ParquetFile(name)
            about = file.metadata
            size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if size > DATA_BYTES or about.num_rows > MOST_ROWS:
                raise ValueError(f"it has more than {DATA_BYTES:,} bytes or {MOST_ROWS:,} rows")
            return file.read().to_pylist()
        found = load_from_disk(name)
    except Exception as error:  # pyarrow, pandas and datasets each have their own
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"dataset must be a {FORMATS} that is whole; {name} is not: {reason}") from None
    if isinstance(found, DatasetDict):
        if split not in found:
            checks.fail("dataset", name, f"a folder with the split {split}, not only {', '.join(found)}")
        found = found[split]
    return found.to_list()


def _table(text: str, name: str) -> list[dict[str, Any]]:
    """The rows of a csv, as texts as they stand: 007 is no number, and the word NaN no hole."""
    import pandas

    try:
        table = pandas.read_csv(StringIO(text), dtype=str, keep_default_na=False)
        names = next(csv.reader(StringIO(text)), [])
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"its header has {', '.join(twice)} more than once")
        if not isinstance(table.index, pandas.RangeIndex):  # pandas took the first fields for names of rows
            raise ValueError("its rows have more fields than its header; text with a comma needs quotes")
        return table.to_dict("records")
    except ValueError as error:  # pandas' own are such
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"dataset must be a {FORMATS} that is whole; {name} is not: {reason}") from None


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
            "a text or a list of messages whose content is text, not blank, of whole characters",
        )
    given = row[answer]
    if not isinstance(given, str | Number) or given != given or not str(given).strip():  # NaN: no equal
        checks.fail(f"{answer} in row {number} of {name}", given, "a text or a number, not empty")


def _document(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise ValueError(f"dataset must be valid JSON; {name} is not: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; ValueError for a key that stands twice, as a value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _lines(text: str, name: str) -> list[Any]:
    """The rows of a .jsonl file; only \\n parts them, JSON strings may hold Unicode's other line ends."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [json.loads(line, object_pairs_hook=_once)] if line.strip() else []
        except ValueError as error:  # also a number of more digits than Python reads
            reason = str(error)
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg} at column {error.colno}"
            where = f"line {number} of {name} is not: {reason}"
            raise ValueError(f"dataset must be valid JSON; {where}") from None
    return rows


def _is_prompt(prompt: Any) -> bool:
    if not isinstance(prompt, list):
        return isinstance(prompt, str) and bool(prompt.strip()) and checks.whole(prompt)
    return bool(prompt) and all(
        isinstance(turn, dict)
        and {"role", "content"} <= set(turn)
        and isinstance(turn["content"], str)
        and checks.whole(turn["content"])
        for turn in prompt
    )
