"""The text pipeline: which files, which side, what the tokenizer keeps, how rows are cut."""

import dataclasses

import numpy as np
import pytest

from labkit.elas import data, sources
from labkit.studies.elas.fastloop import validation_and_test


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield data.load_text(vocab_size=400, max_bytes=200_000)


def test_the_sides_share_no_file_and_the_limit_leaves_held_out_alone():
    whole, limited = data.split_documents(), data.split_documents(max_bytes=100_000)
    assert len(whole["train"]) > 10 * len(whole["held_out"]) > 0
    assert limited["held_out"] == whole["held_out"]
    assert limited["train"] == whole["train"][: len(limited["train"])]
    assert sum(map(len, limited["train"][:-1])) < 100_000
    assert not set(whole["train"]) & {t for t in whole["held_out"] if len(t) > 500}


def test_no_tests_and_no_generated_parsers_among_the_documents():
    names = [name for name, _ in sources.documents("sympy")]
    assert "core/expr.py" in names
    assert not any("/tests/" in name or "_antlr/" in name for name in names)


def test_tokens_decode_to_the_files_and_know_their_bytes(text):
    first = data.split_documents()["held_out"][0]
    end = text.tokenizer.token_to_id(data.END)
    stop = int(np.argmax(text.held_out == end))
    assert text.tokenizer.decode(text.held_out[:stop].tolist()) == first
    assert text.token_bytes[text.held_out[:stop]].sum() == len(first.encode())
    assert text.token_bytes[end] == 0
    assert text.vocab_size == 400


def test_bytes_of_tokens_beyond_ascii(text):
    ids = text.tokenizer.encode("größer – 漢字 🙂").ids
    assert text.token_bytes[ids].sum() == len("größer – 漢字 🙂".encode())


def test_the_cache_gives_the_same_streams(text, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    for _ in range(2):  # trained anew, then read back
        again = data.load_text(vocab_size=400, max_bytes=200_000)
        assert again.name == text.name
        assert np.array_equal(again.train, text.train)
        assert np.array_equal(again.held_out, text.held_out)
    assert not list(tmp_path.rglob("*.tmp*"))


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_a_damaged_cache_is_made_anew(ending, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    data.load_text(vocab_size=400, max_bytes=200_000)
    (path,) = (tmp_path / "cache" / "elas").glob(f"*{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = data.load_text(vocab_size=400, max_bytes=200_000)
    assert capsys.readouterr().err.count("damaged (") == 1
    assert np.array_equal(again.train, text.train)
    assert again.tokenizer.to_str() == text.tokenizer.to_str()


def test_another_text_gets_another_name(text, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    assert data.load_text(vocab_size=400, max_bytes=50_000).name != text.name


def test_validation_and_test_share_no_file_and_lose_none(text):
    validation, test = validation_and_test(text)
    assert np.array_equal(np.concatenate((validation, test)), text.held_out)
    end = text.tokenizer.token_to_id(data.END)
    assert validation[-1] == test[-1] == end
    ends = np.flatnonzero(text.held_out == end) + 1
    apart = np.abs(ends - len(text.held_out) / 2)
    assert abs(len(validation) - len(text.held_out) / 2) == apart.min()


def test_one_held_out_file_cannot_be_on_two_sides(text):
    one = text.held_out[: int(np.argmax(text.held_out == text.tokenizer.token_to_id(data.END))) + 1]
    with pytest.raises(ValueError, match="text must be one with at least two held-out files; got 'sympy-"):
        validation_and_test(dataclasses.replace(text, held_out=one))


@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_windows_predict_every_token_once(length):
    stream = np.arange(10, dtype=np.uint16)
    rows = data.windows(stream, length)
    assert rows.shape == (9 // length, length + 1)
    assert rows[:, 1:].ravel().tolist() == list(range(1, 1 + rows.shape[0] * length))


def test_a_few_windows_are_spread_over_the_stream():
    stream = np.arange(22, dtype=np.uint16)  # seven rows of three
    assert data.windows(stream, 3, most=3)[:, 0].tolist() == [0, 6, 12]
    for most in (None, 7, 8):
        assert len(data.windows(stream, 3, most)) == 7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.load_text("wikipedia"), "source must be one of 'sympy', .*; got 'wikipedia'"),
        (lambda: data.load_text(vocab_size=256), "vocab_size must be an integer between 257 and 65536"),
        (lambda: data.load_text(max_bytes=0), "max_bytes must be an integer >= 1; got 0"),
        (lambda: data.windows(np.arange(5), 5), "length must be an integer between 1 and 4; got 5"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
