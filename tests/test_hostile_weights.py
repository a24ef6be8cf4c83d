"""Weights of damaged, lying or empty safetensors files: one line that names the file or its folder."""

import json
import shutil
import struct

import pytest

from labkit.causal_lm import load_causal_lm
from labkit.fgo.lab.reasoner import load_reasoner
from labkit.paths import CHECKPOINTS
from labkit.soar import load_model
from labkit.soar.tasks.sums import SumsLM


def safetensors(header, weights=b""):
    """A file of this header, as it is or as JSON, before ``weights``."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + weights


def of_integers(content):
    """The same bytes, said to be integers."""
    return content.replace(b'"F32"', b'"I32"').replace(b'"BF16"', b'"I16" ').replace(b'"F16"', b'"I16"')


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "empty": lambda content: b"", "8 EB": lambda content: struct.pack("<Q", 2**63) + b"{}",
    "no JSON": lambda content: safetensors(b"x" * 64), "deep": lambda content: safetensors(b"[" * 100_000),
    "overlap": lambda content: safetensors({"a": ONE, "b": ONE}, bytes(8)),
    "far": lambda content: safetensors({"a": ONE | {"data_offsets": [2**62, 2**62 + 8]}}, bytes(8)),
    "huge": lambda content: safetensors({"a": ONE | {"shape": [2**40, 2**40]}}, bytes(8)),
    "no dtype": lambda content: safetensors({"a": ONE | {"dtype": "X9"}}, bytes(8)),
    "nothing": lambda content: safetensors({}), "cut": lambda content: content[:-9],
    "integers": of_integers,
}  # fmt: skip


@pytest.mark.parametrize("damage", HEADERS.values(), ids=HEADERS)
def test_weights_that_are_none_are_one_line(tmp_path, damage):
    file = tmp_path / "x.safetensors"
    for kind in ("sums", "fgo_sums_small"):
        file.write_bytes(damage((CHECKPOINTS / f"{kind}.safetensors").read_bytes()))
        with pytest.raises(ValueError, match=r"^(name|path) must .*x\.safetensors"):
            load_model(str(file)) if kind == "sums" else load_reasoner(file)
    for kind in ("gsm", "elas-3m"):
        folder = shutil.copytree(CHECKPOINTS / kind, tmp_path / kind)
        file = min(folder.glob("*.safetensors"))
        file.write_bytes(damage(file.read_bytes()))
        if (kind, damage) == ("elas-3m", of_integers):
            continue  # its counters are integers
        with pytest.raises(ValueError, match=rf"must .*{folder}") as caught:
            load_model(folder) if kind == "gsm" else load_causal_lm(str(folder))
        assert "\n" not in str(caught.value)


def test_the_lab_s_own_class_takes_no_integers(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(of_integers((CHECKPOINTS / "sums.safetensors").read_bytes()))
    with pytest.raises(
        ValueError, match=r"path must be a SumsLM whose weights .* are floats; got .*x\.safe"
    ):
        SumsLM.load(file)
