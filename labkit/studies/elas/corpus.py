"""The text of the 60M run in files small enough to carry to a machine without a network.

write_parts   the documents of a source as train-0.xz, train-1.xz, ..., held-out.xz and tokenizer.json
read_parts    those files as a Text, encoded once

Whole folders are held out: files of one folder share their idioms, and often their lines.
"""

import json
import lzma
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from labkit.checks import fail
from labkit.elas.data import Text, encode, hash_of, token_bytes, train_tokenizer
from labkit.elas.sources import SOURCES, documents
from labkit.paths import write_atomic, write_json
from labkit.reading import read_npz
from labkit.studies.files import digest

HELD_OUT = 60  # one folder in sixty
DEPTH = 5  # folders of a name that make the unit: "linux/drivers/net/ethernet/intel"
END_OF_FILE = "\0"  # between documents; those that hold one are left out
TRAINING = 120_000_000  # characters that the tokenizer is trained on
AT_ONCE = 2000  # documents
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**26}]  # equal passages up to 64 MiB apart


def unit(name: str) -> str:
    """What of a document's name decides its side: its first folders, or a name without any itself."""
    folders = name.split("/")[:-1]
    return "/".join(folders[:DEPTH]) if len(folders) > 1 else name


def side(name: str, parts: int) -> str:
    """ "held-out" or "train-I", by the folder's hash: alike files in one part, which packs them better."""
    held, part = divmod(hash_of(unit(name)), HELD_OUT)[::-1]
    return f"train-{part % parts}" if held else "held-out"


def split(source: str, parts: int) -> dict[str, list[tuple[str, str]]]:
    """{side: (name, text) of its documents}; those held out with their folders mixed.

    The held-out stream is cut into validation and test, which so have the same kinds of text.
    """
    sides: dict[str, list[tuple[str, str]]] = {}
    for name, text in documents(source):
        if text and END_OF_FILE not in text:
            name = name if "+" in source else f"{source}/{name}"
            sides.setdefault(side(name, parts), []).append((name, text))
    for file, found in sides.items():
        found.sort(key=lambda item: (hash_of(unit(item[0])) if file == "held-out" else 0, item[0]))
    return dict(sorted(sides.items()))


def write_parts(source: str, folder: Path, parts: int, vocab_size: int) -> dict[str, Any]:
    """Make the files of ``source`` in ``folder``; what they hold, by the name of the file.

    The tokenizer has seen training text alone.
    """
    sides = split(source, parts)
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(folder / "tokenizer.json", some(sides), vocab_size)
    files = {file: pack(folder / f"{file}.xz", found) for file, found in sides.items()}
    licences = {part: SOURCES[part].licence for part in source.split("+")}
    about = {"source": source, "licences": licences, "files": files}
    write_json(folder / "about.json", about)
    return about


def some(sides: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Training texts for the tokenizer, drawn by hash until TRAINING characters are full."""
    training = [item for file, found in sides.items() if file != "held-out" for item in found]
    training.sort(key=lambda item: hash_of(item[0]))
    sizes = np.cumsum([len(text) for _, text in training])
    return [text for (_, text), size in zip(training, sizes, strict=True) if size <= TRAINING]


def pack(path: Path, found: list[tuple[str, str]]) -> dict[str, int]:
    """Write the texts, neighbours beside each other, as one .xz; how many there are and their bytes."""
    data = END_OF_FILE.join(text for _, text in found).encode()
    packed = lzma.compress(data, lzma.FORMAT_XZ, filters=XZ)
    write_atomic(path, partial(Path.write_bytes, data=packed))
    return {"documents": len(found), "bytes": len(data), "packed_bytes": len(packed)}


def read_parts(folder: Path, cache: Path) -> Text:
    """The parts that stand in ``folder`` as a Text; ``cache`` keeps the encoded streams.

    ValueError unless the folder has tokenizer.json, held-out.xz and at least one train-*.xz.
    """
    vocabulary, training = folder / "tokenizer.json", sorted(folder.glob("train-*.xz"))
    files = [vocabulary, *training, folder / "held-out.xz"]
    if not training or not all(file.is_file() for file in files):
        fail("text", str(folder), "a folder with tokenizer.json, held-out.xz and train-*.xz")
    about, tokenizer = json.loads((folder / "about.json").read_text()), Tokenizer.from_file(str(vocabulary))
    streams = [_stream(tokenizer, digest(vocabulary), file, cache) for file in files[1:]]
    name = f"{about['source']}-{tokenizer.get_vocab_size()}-{digest([digest(file) for file in files])}"
    return Text(tokenizer, np.concatenate(streams[:-1]), streams[-1], token_bytes(tokenizer), name)


def _stream(tokenizer: Tokenizer, vocabulary: str, file: Path, cache: Path) -> np.ndarray:
    """The tokens of one file, from the cache where it was encoded before."""
    path = cache / f"{file.stem}-{vocabulary}-{digest(file)}.npz"
    if not path.exists():
        texts = lzma.decompress(file.read_bytes()).decode().split(END_OF_FILE)
        parts = [encode(tokenizer, texts[i : i + AT_ONCE]) for i in range(0, len(texts), AT_ONCE)]
        stream = np.concatenate(parts)
        write_atomic(path, lambda temporary: np.savez(temporary, allow_pickle=False, stream=stream))
    return read_npz(path, "cache")["stream"]
