"""Which token is the mask, and which end a text: from a checkpoint's JSON files, without its tokenizer."""

from pathlib import Path
from typing import Any

from labkit import checks
from labkit.reading import read_json

# Ends of a turn that chat models write although only their chat template names them.
END_OF_TURN = ("<|eot_id|>", "<|im_end|>")


def read_object(file: Path) -> dict:
    """The JSON object in ``file``; {} if there is no such file. ValueError if it holds anything else."""
    found = read_json(file, file.name) if file.exists() else {}
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} must be a JSON object; {file} holds a {type(found).__name__}")
    return found


def mask_and_ends(
    folder: Path, config: dict, size: int, mask_token: str | None = None
) -> tuple[int, tuple[int, ...]]:
    """(mask id, ids that end a text) of the checkpoint in ``folder`` with ``size`` tokens.

    The mask id stands in config.json or generation_config.json; where neither has one it is that of the
    tokenizer's ``mask_token``, or else of the token called ``mask_token`` here. A text is ended by any of
    the ids that these files call ``eos_token_id``, the first of them first; by the tokenizer's
    ``eos_token``; and by the ends of a turn, END_OF_TURN, that its tokens include.

    ValueError names the key that lacks, is no token id, or disagrees.
    """
    other = "generation_config.json"
    masks, ends = {}, []
    for file, about in (("config.json", config), (other, read_object(folder / other))):
        if about.get("mask_token_id") is not None:
            masks[file] = checks.integer(f"mask_token_id in {file}", about["mask_token_id"], 0, size - 1)
        given = about.get("eos_token_id")
        for end in given if isinstance(given, list) else [given] if given is not None else []:
            ends.append(checks.integer(f"eos_token_id in {file}", end, 0, size - 1))
    ids = _ids(folder)
    if not masks:
        number = ids.get(_named(folder, "mask_token"), ids.get(mask_token))
        if number is None:
            checks.fail("mask_token_id in config.json", None, f"an integer between 0 and {size - 1}")
        masks["the tokenizer"] = checks.integer("the id of the mask token", number, 0, size - 1)
    if len(set(masks.values())) > 1:
        checks.fail("mask_token_id", masks, "the same in both files")
    mask = next(iter(masks.values()))
    if mask in ends:
        checks.fail("mask_token_id in config.json", mask, "another token than eos_token_id")
    also = [ids.get(token) for token in (_named(folder, "eos_token"), *END_OF_TURN)]
    ends += [end for end in also if isinstance(end, int) and end < size and end != mask]
    return mask, tuple(dict.fromkeys(ends))


def _named(folder: Path, role: str) -> Any:
    """The text of the tokenizer's special token ``role``; None if it has none."""
    about = read_object(folder / "tokenizer_config.json")
    named: Any = about.get(role) or read_object(folder / "special_tokens_map.json").get(role)
    return named.get("content") if isinstance(named, dict) else named


def _ids(folder: Path) -> dict[Any, Any]:
    """Ids of the tokens in ``folder``'s vocabulary files, added ones over others."""
    tokenizer_config = read_object(folder / "tokenizer_config.json")
    whole = read_object(folder / "tokenizer.json")
    vocabulary = (whole.get("model") or {}).get("vocab")
    decoder = tokenizer_config.get("added_tokens_decoder") or {}
    return (
        read_object(folder / "vocab.json")
        | (vocabulary if isinstance(vocabulary, dict) else {})
        | read_object(folder / "added_tokens.json")
        | {token["content"]: int(number) for number, token in decoder.items()}
        | {token["content"]: token["id"] for token in whole.get("added_tokens") or []}
    )
