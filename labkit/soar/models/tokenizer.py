"""load_tokenizer: a checkpoint's tokenizer and chat template from its own files, without remote code."""

from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from labkit import checks
from labkit.soar.models.token_ids import read_object


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder`` with every added token and the chat template that lie beside it.

    tokenizer.json is taken as it stands, whatever class wrote it; vocab.json and merges.txt, as Dream has
    them, are read by Qwen2's class. AutoTokenizer refuses both where the configuration names a class of
    the checkpoint's own.

    Raises:
        ValueError: if there are no such files, they can't be read, or an added token has two ids.
    """
    folder = Path(folder)
    kind: type[PreTrainedTokenizerBase]
    if (folder / "tokenizer.json").exists():
        kind = PreTrainedTokenizerFast
    elif all((folder / name).exists() for name in ("vocab.json", "merges.txt")):
        kind = _Qwen2
    else:
        checks.fail("name", str(folder), "a folder with tokenizer.json, or vocab.json and merges.txt")
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers (Rust) raises Exception itself
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(f"name must hold a tokenizer that can be read; {folder} has {reason}") from error
    about = read_object(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    asked = {token["content"]: int(number) for number, token in about.items()}
    ids = tokenizer.get_vocab()
    tokens = Counter(ids.values())  # of each id
    if wrong := {token: id for token, id in asked.items() if ids.get(token) != id or tokens[id] > 1}:
        checks.fail(
            "added_tokens_decoder in tokenizer_config.json", wrong, "in agreement with the vocabulary"
        )
    return tokenizer


class _Qwen2(Qwen2Tokenizer):
    """Added tokens keep the ids they ask for: one that the vocabulary lacks would get the next free one."""

    def __init__(self, vocab: str, merges: str, **options: Any):
        pairs, joined = BPE.read_file(vocab, merges)
        added = {str(token): id for id, token in options.get("added_tokens_decoder", {}).items()}
        super().__init__(added | pairs, joined, **options)  # type: ignore[arg-type]  # pairs, as BPE wants
