"""Real text for language models: held-out split, byte-level BPE, packing (sources.py has the sources).

load_text(source)   tokenizer and token streams, trained and encoded once and cached
windows(stream, n)  the stream as rows for next-token prediction; no token is predicted twice
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from labkit.checks import integer
from labkit.elas.sources import check_source, documents, edition
from labkit.paths import cache_dir, write_atomic
from labkit.reading import read_npz

END = "<|endoftext|>"
HELD_OUT = 20  # one file in twenty is held out


@dataclass(frozen=True)
class Text:
    """A tokenised source; files in an order set by their names' hash."""

    tokenizer: Any  # ``tokenizers.Tokenizer``, byte-level BPE trained on the training files alone
    train: np.ndarray  # uint16 (N,) tokens, END after each file
    held_out: np.ndarray  # likewise
    token_bytes: np.ndarray  # int (V,) bytes of text each token stands for (0 for END)
    name: str  # edition of the source, vocabulary, fingerprint: changes when the content does

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)


def split_documents(source: str = "sympy", max_bytes: int | None = None) -> dict[str, list[str]]:
    """{"train": texts, "held_out": texts}: each file on one side by the hash of its name, never both.

    max_bytes   stop the training side at the first file that goes beyond it (None: all files)
    """
    ordered = sorted(documents(source), key=lambda item: hash_of(item[0]))
    sides: dict[str, list[str]] = {"train": [], "held_out": []}
    room = float("inf") if max_bytes is None else max_bytes
    for name, text in ordered:
        if hash_of(name) % HELD_OUT == 0:
            sides["held_out"].append(text)
        elif room > 0:
            sides["train"].append(text)
            room -= len(text.encode())
    return sides


def load_text(source: str = "sympy", *, vocab_size: int = 1024, max_bytes: int | None = None) -> Text:
    """Tokenizer and streams of a source; trained and encoded on the first call, then read from the cache.

    source      a name of ``sources.SOURCES``, or several joined by "+"; all but "sympy" download on
                first use
    vocab_size  256 bytes + END + merges, 257 to 65536 (fewer come out if the text runs out of pairs)
    max_bytes   limit on the training text; the held-out files do not depend on it

    ValueError names the argument, OSError a failed download. The held-out text never reaches the
    tokenizer's training.
    """
    integer("vocab_size", vocab_size, 257, 65536)
    if max_bytes is not None:
        integer("max_bytes", max_bytes, 1)
    # the checksums are known without a download
    editions, checksums = zip(*map(edition, check_source(source)), strict=True)
    content = ",".join([tokenizers.__version__, *checksums, str(max_bytes), str(HELD_OUT)])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:12]
    name = f"{'+'.join(editions)}-{vocab_size}-{fingerprint}"
    folder = cache_dir("elas")
    vocabulary, path = folder / f"{name}.json", folder / f"{name}.npz"
    if (found := _cached(vocabulary, path)) is None:
        sides = split_documents(source, max_bytes)
        tokenizer = train_tokenizer(vocabulary, sides["train"], vocab_size)
        streams: dict[str, Any] = {side: encode(tokenizer, texts) for side, texts in sides.items()}
        write_atomic(path, lambda temporary: np.savez_compressed(temporary, **streams))
        found = tokenizer, streams["train"], streams["held_out"]
    return Text(*found, token_bytes(found[0]), name)


def _cached(vocabulary: Path, path: Path) -> tuple[Any, np.ndarray, np.ndarray] | None:
    """(tokenizer, train, held_out) of an earlier call; None where a file is missing or damaged."""
    if not (vocabulary.exists() and path.exists()):
        return None
    try:
        streams = read_npz(path, "cache")
        if any(part.dtype != np.uint16 or part.ndim != 1 for part in streams.values()):
            raise ValueError("no streams of tokens")
        return Tokenizer.from_file(str(vocabulary)), streams["train"], streams["held_out"]
    except Exception as error:  # tokenizers raises Exception itself, a damaged npz a handful of others
        print(f"{path}: damaged ({type(error).__name__}); the text is encoded again", file=sys.stderr)
        return None


def token_bytes(tokenizer) -> np.ndarray:
    """int (V,) bytes of text that each token of a byte-level BPE stands for (0 for END)."""
    # in the byte-level alphabet one character stands for one byte
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return np.array([0 if piece == END else len(piece) for piece in pieces])


def windows(stream: np.ndarray, length: int, most: int | None = None) -> np.ndarray:
    """(n, length + 1) rows that overlap by one token: each row predicts ``length`` tokens.

    The tail that fills no row is left out. ValueError if not even one row fits.

    most   at most so many rows, evenly spread: the first ones alone may all lie in one long file
    """
    rows = (len(stream) - 1) // integer("length", length, 1)
    if rows < 1:
        integer("length", length, 1, len(stream) - 1)
    count = rows if most is None else min(rows, integer("most", most, 1))
    chosen = np.arange(count) * rows // count
    return stream[chosen[:, None] * length + np.arange(length + 1)]


def hash_of(name: str) -> int:
    """64 bits of a document's name, the same everywhere: they decide its side."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def train_tokenizer(path: Path, texts: list[str], vocab_size: int) -> Any:
    """Train the lab's byte-level BPE on ``texts`` and save it at ``path``."""
    new = Tokenizer(models.BPE())
    new.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    new.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    new.train_from_iterator(texts, trainer)
    write_atomic(path, lambda temporary: new.save(str(temporary)))
    return Tokenizer.from_file(str(path))


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """uint16 stream of the texts' tokens, END after each text."""
    end = tokenizer.token_to_id(END)
    rows = [np.array([*encoding.ids, end], np.uint16) for encoding in tokenizer.encode_batch(texts)]
    return np.concatenate(rows) if rows else np.empty(0, np.uint16)
