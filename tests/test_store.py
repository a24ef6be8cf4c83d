"""The store of finished executions: what was cut off or edited counts as absent, in one line."""

import json
import threading

import pytest
from notebook_maker import write_notebook

from labkit.runner import store
from labkit.runner.runs import run


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return write_notebook(tmp_path / "one.ipynb", "from labkit.metrics import record\nrecord('one', 1)")


def kept(tmp_path, suffix):
    """The one kept notebook (".ipynb") or its record (".json")."""
    (path,) = (tmp_path / "runs" / "cache" / "notebooks").glob(f"*{suffix}")
    return path


def cut(text):
    return text[: len(text) // 2]


def without_seconds(text):
    return json.dumps({"sha256": json.loads(text)["sha256"]})


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".json", cut), (".json", lambda text: ""), (".json", lambda text: "[]"),
        (".json", lambda text: "null"), (".json", without_seconds),
        (".json", lambda text: '{"seconds": "2", "sha256": ""}'),
        (".ipynb", cut), (".ipynb", lambda text: "{}"),
        (".ipynb", lambda text: text.replace(": 1,", ": 2,")),
    ],
)  # fmt: skip
def test_a_damaged_entry_counts_as_absent_in_one_line(tmp_path, monkeypatch, capsys, suffix, damage):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    source = write_notebook(tmp_path / "one.ipynb", "print(': 1,')")
    store.put("k", source, 2.0)
    found, seconds = store.get("k")
    assert (found.read_text(), seconds) == (source.read_text(), 2.0)
    path = kept(tmp_path, suffix)
    assert damage(path.read_text()) != path.read_text()
    path.write_text(damage(path.read_text()))
    assert store.get("k") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert str(kept(tmp_path, ".json")) in line
    assert "damaged" in line
    store.put("k", source, 3.0)
    assert store.get("k")[1] == 3.0


def test_two_that_finish_the_same_at_once_keep_one_of_them_whole(tmp_path, monkeypatch, capsys):
    """Two runs begun at the same moment; the second comes between the notebook and the record."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    first, second = (write_notebook(tmp_path / f"{n}.ipynb", f"print({n})") for n in (1, 2))
    digest = store._sha256
    other = threading.Thread(target=store.put, args=("k", second, 2.0))

    def slowly(path):
        found = digest(path)
        if threading.current_thread() is threading.main_thread() and not other.ident:
            other.start()
            other.join(1)
        return found

    monkeypatch.setattr(store, "_sha256", slowly)
    store.put("k", first, 1.0)
    other.join(30)
    found, seconds = store.get("k")
    assert (found.read_text(), seconds) == (second.read_text(), 2.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".json", ".ipynb"])
def test_half_an_entry_is_absent_without_a_word(tmp_path, monkeypatch, capsys, suffix):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    store.put("k", write_notebook(tmp_path / "one.ipynb"), 2.0)
    kept(tmp_path, suffix).unlink()
    assert store.get("k") is None
    assert capsys.readouterr().err == ""


def test_a_resumed_run_executes_again_what_was_damaged(book, tmp_path):
    (tmp_path / "empty.yaml").write_text("{}")
    words = [str(book)], str(tmp_path / "empty.yaml")
    assert not run(*words)[1][0].cached
    assert run(*words, resume=True)[1][0].cached
    kept(tmp_path, ".ipynb").write_text("{")
    (again,) = run(*words, resume=True)[1]
    assert (again.cached, again.values) == (False, {"one": 1})
    assert run(*words, resume=True)[1][0].cached


def test_the_key_knows_every_file_that_is_read(tmp_path, monkeypatch):
    """The kernels' code, checkpoints and records too; no bytecode and no file that is being written."""
    assert all(folder.is_dir() for folder in store.CODE)
    assert {"labkit", "sparse24", "tokenstats"} <= {folder.name for folder in store.CODE}
    monkeypatch.setattr(store, "CODE", (tmp_path,))
    seen = [store.code_digest.__wrapped__()]
    for name in ("a.py", "deep/b.json", "deep/c.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        seen.append(store.code_digest.__wrapped__())
    (tmp_path / "a.py").write_text("y")
    seen.append(store.code_digest.__wrapped__())
    assert len(set(seen)) == 5
    for name in ("a.pyc", "deep/.b.json.7.tmp.json"):
        (tmp_path / name).write_text("x")
        assert store.code_digest.__wrapped__() == seen[-1]
