"""Bounds of what is read, and what is on the disk before it has a name."""

import gzip
import os

import pytest

from labkit import reading
from labkit.paths import write_atomic


def test_a_file_is_compared_with_the_limit_before_it_is_read(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    assert reading.read_bytes(path, 5, "dataset") == b"12345"
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: reading it whole would take a terabyte
    with pytest.raises(ValueError, match=r"dataset must be at most 5 bytes; .*a\.bin has more"):
        reading.read_bytes(path, 5, "dataset")


def test_gzip_is_unpacked_no_further_than_the_limit(tmp_path):
    path = tmp_path / "a.gz"
    assert reading.gunzip(gzip.compress(bytes(99)), 99, "dataset", path) == bytes(99)
    with pytest.raises(ValueError, match=r"dataset must unpack to at most 99 bytes; .*a\.gz has more"):
        reading.gunzip(gzip.compress(bytes(2**26)), 99, "dataset", path)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"9" * 5000, b"\xff"])
def test_no_json_is_one_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"card must be valid JSON; .*a\.json is not: ") as caught:
        reading.read_json(tmp_path / "a.json", "card")
    assert "\n" not in str(caught.value)


def test_bytes_are_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    path, told = tmp_path / "a.txt", []
    monkeypatch.setattr(os, "fsync", lambda file: told.append((os.fstat(file).st_size, path.exists())))
    write_atomic(path, lambda temporary: temporary.write_text("12345"))
    assert told == [(5, False)]
    assert path.read_text() == "12345"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_a_folder_a_pipe_and_a_device_are_not_replaced(tmp_path, make):
    path = tmp_path / "a.txt"
    make(path)
    with pytest.raises(ValueError, match=r"path must be a file or new; got '.*a\.txt', a folder, device"):
        write_atomic(path, lambda temporary: temporary.write_text("12345"))
    assert list(tmp_path.iterdir()) == [path]
    assert not path.is_file()
