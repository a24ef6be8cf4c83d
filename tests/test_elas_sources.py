"""Text sources: what is read out of each kind of archive; how a download is checked, kept, refused."""

import base64
import contextlib
import gzip
import hashlib
import io
import itertools
import socketserver
import tarfile
import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution, version

import pytest

from labkit.elas import data, sources
from labkit.elas.sources import SOURCES, Source, dictionary, documents, tarball


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def number(value: int) -> str:
    """A dictd number, by way of the standard library's base 64."""
    return base64.b64encode(value.to_bytes(3)).decode().lstrip("A") or "A"


def deb(entries: list[str]) -> bytes:
    body, index = "about\n", ["00-database-short\tA\tG"]
    for entry in entries:
        index.append(f"{entry.split()[0].lower()}\t{number(len(body))}\t{number(len(entry))}")
        body += entry
    index.append(index[-1].replace("zebra", "equus"))  # a second headword of the same entry
    share = "./usr/share/dictd/tiny"
    content = tar(
        {f"{share}.dict.dz": gzip.compress(body.encode()), f"{share}.index": "\n".join(index).encode()},
        "w:xz",
    )
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": content}
    out = b"!<arch>\n"
    for name, member in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(member):<10}`\n".encode()
        out += member + b"\n" * (len(member) % 2)
    return out


def test_a_dictionary_gives_each_entry_once_in_order(monkeypatch):
    monkeypatch.setattr(sources, "ENTRIES", 2)
    entries = [f"{word} is an animal\n" for word in ("Ant", "Bee", "Cat", "Zebra")]
    found = list(dictionary(deb(entries), "tiny"))
    assert found == [("00000", entries[0] + entries[1]), ("00001", entries[2] + entries[3])]


def test_a_tarball_gives_the_files_asked_for():
    archive = tar({"p/b.txt": b"B", "p/a.txt": "ä".encode(), "p/c.json": b"{}", "q/d.txt": b"D"})
    assert list(tarball(archive, ".txt", "p/")) == [("p/a.txt", "ä"), ("p/b.txt", "B")]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A source "tiny" whose archive a server on this machine hands out; counts the requests."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    (tmp_path / "web").mkdir()
    pages = {f"p/{i}.txt": f"page {i} says {i * i} and no more\n".encode() * 20 for i in range(60)}
    archive = tar(pages)
    (tmp_path / "web" / "tiny.tgz").write_bytes(archive)
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "web"))

        def log_message(self, *args):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/tiny.tgz"
    checksum = hashlib.sha256(archive).hexdigest()
    tiny = Source(lambda content: tarball(content, ".txt", "p/"), "free for tests", url, checksum)
    monkeypatch.setitem(SOURCES, "tiny", tiny)
    yield server, asked, tmp_path
    server.shutdown()


def test_a_download_states_the_licence_is_kept_and_not_repeated(served, capsys):
    server, asked, _ = served
    first = list(documents("tiny"))
    assert "tiny (free for tests)" in capsys.readouterr().err
    assert len(first) == 60
    server.shutdown()
    assert list(documents("tiny")) == first
    assert asked == ["/tiny.tgz"]


def test_a_damaged_copy_is_fetched_again(served):
    _, asked, folder = served
    first = list(documents("tiny"))
    (kept,) = (folder / "runs" / "cache" / "downloads").iterdir()
    kept.write_bytes(kept.read_bytes()[:-10])
    assert list(documents("tiny")) == first
    assert len(asked) == 2


def test_another_file_than_expected_is_refused_and_not_kept(served):
    _, _, folder = served
    (folder / "web" / "tiny.tgz").write_bytes(b"something else")
    with pytest.raises(OSError, match=r"tiny\.tgz is not the file expected: its SHA-256 is \w+, not \w+"):
        list(documents("tiny"))
    assert not list((folder / "runs" / "cache" / "downloads").iterdir())


def test_without_a_network_one_error_names_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    gone = Source(lambda content: iter(()), "none", "http://127.0.0.1:9/x.tgz", "0" * 64)
    monkeypatch.setitem(SOURCES, "gone", gone)
    with pytest.raises(OSError, match=r"cannot download http://127\.0\.0\.1:9/x\.tgz .*'sympy' needs no"):
        data.load_text("gone")


def test_a_downloaded_source_becomes_tokens(served):
    text = data.load_text("tiny", vocab_size=280)
    assert text.name.startswith("tiny-280-")
    assert text.tokenizer.decode(text.train[:12].tolist()).startswith("page")


def test_joined_sources_keep_their_names_apart(served):
    names = [name for name, _ in documents("tiny+sympy")]
    assert {name.split("/")[0] for name in names} == {"tiny", "sympy"}
    with pytest.raises(ValueError, match="source must be one of 'sympy', .*; got 'web'"):
        list(documents("tiny+web"))


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_states_its_licence_and_its_checksum(name):
    source = SOURCES[name]
    assert source.licence
    assert (source.url is None) == (name == "sympy")
    assert len(bytes.fromhex(source.sha256)) == 32


@pytest.fixture
def hashed_anew():
    sources._installed_digest.cache_clear()
    yield
    sources._installed_digest.cache_clear()


def test_the_recorded_checksum_is_that_of_the_wheel(pins):
    """Of the hashes that SymPy's wheel, one file for every Python and platform, lists for its files."""
    found = distribution("sympy")
    if found.version != pins["sympy"]:
        pytest.skip(f"SymPy {found.version} is installed, not the pinned {pins['sympy']}")
    whole = hashlib.sha256()
    for path in sorted(found.files, key=str):
        package, *inner = path.parts
        if package == "sympy" and path.suffix == ".py" and sources.SKIPPED.isdisjoint(inner):
            whole.update(hashlib.sha256("/".join(inner).encode()).digest())
            whole.update(base64.urlsafe_b64decode(path.hash.value + "="))
    assert sources.edition("sympy") == (f"sympy-{found.version}", SOURCES["sympy"].sha256)
    assert whole.hexdigest() == SOURCES["sympy"].sha256


def test_the_pinned_text_gives_the_same_tokens_on_every_python(tmp_path, monkeypatch, pins):
    if any(version(name) != pins[name] for name in ("sympy", "tokenizers")):
        pytest.skip("SymPy or tokenizers is not the pinned version")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    text = data.load_text(vocab_size=400, max_bytes=200_000)
    assert text.name == "sympy-1.14.0-400-6ff6962c8258"
    streams = hashlib.sha256(text.train.tobytes() + text.held_out.tobytes())
    assert streams.hexdigest()[:16] == "895861a6995493c2"  # seen on 3.11.7, 3.12.1 and 3.13.0


def test_another_text_than_the_pinned_one_loads_and_says_so(tmp_path, monkeypatch, hashed_anew):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    pinned = data.load_text(vocab_size=300, max_bytes=50_000)
    assert "unpinned" not in pinned.name
    files = dict(documents("sympy"))
    files["core/expr.py"] += "# one line more"
    other = replace(SOURCES["sympy"], documents=lambda _: iter(files.items()))
    monkeypatch.setitem(SOURCES, "sympy", other)
    sources._installed_digest.cache_clear()
    text = data.load_text(vocab_size=300, max_bytes=50_000)
    assert text.name.startswith(f"sympy-{version('sympy')}-unpinned-300-")
    assert text.name.rsplit("-", 1)[1] != pinned.name.rsplit("-", 1)[1]
    assert len(text.train) > 0


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """A function that makes the source "raw": a server that sends these bytes, then hangs up."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))

    def make(head, body=(b"",), archive=b"expected"):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                with contextlib.suppress(OSError):  # whoever asked has had enough
                    for part in itertools.chain((head,), body):
                        self.wfile.write(part)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True  # server_close() waits for no client that keeps its connection
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/raw.bin"
        raw = Source(lambda content: iter([("raw", content.decode())]), "-", url, sha256(archive))
        monkeypatch.setitem(SOURCES, "raw", raw)

    servers = []
    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


OK, MOVED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nLocation: "


@pytest.mark.parametrize(
    ("head", "body", "problem"),
    [
        (OK + b"Content-Length: 9\r\n\r\n", [b"expected"], "8 bytes of 9|IncompleteRead"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", [b"8\r\nexpe"], "IncompleteRead"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", [b"zz\r\nexpected"], "IncompleteRead"),
        (b"FTP nonsense\r\n\r\n", [], "FTP nonsense"), (b"", [], "closed connection|reset"),
        (b"HTTP/1.1 abc OK\r\n\r\n", [], "abc"), (b"HTTP/1.1 404 Not Found\r\n\r\n", [], "Not Found"),
        (OK + b"x" * 70_000 + b"\r\n\r\n", [], "line"),
        (OK + b"a: b\r\n" * 200 + b"\r\n", [], "headers"),
        (OK + b"\r\n", (bytes(1000) for _ in range(10_000)), "more than 5,000 bytes"),
        (OK + b"Content-Length: 9999999\r\n\r\n", [bytes(9999)], "more than 5,000 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", [b"-8\r\nexpected"], "length|IncompleteRead"),
        (MOVED + b"http://[bad/x\r\n\r\n", [], "IPv6"), (MOVED + b"http://a..b/x\r\n\r\n", [], "label"),
        (MOVED + b"http://" + b"a" * 300 + b"/x\r\n\r\n", [], "label"),
        (MOVED + b"file:///etc/passwd\r\n\r\n", [], "not allowed"),
    ],
)  # fmt: skip
def test_an_answer_that_goes_wrong_is_one_error_and_leaves_nothing(
    answer, tmp_path, monkeypatch, head, body, problem
):
    monkeypatch.setattr(sources, "MOST_BYTES", 5000)
    answer(head, body)
    with pytest.raises(OSError, match=rf"^cannot download http.*/raw\.bin \(.*({problem})") as caught:
        list(documents("raw"))
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_server_that_drips_is_not_waited_for(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE", 2)
    answer(OK + b"Content-Length: 9999\r\n\r\n", (time.sleep(0.05) or b"x" for _ in range(240)))
    begun = time.monotonic()
    with pytest.raises(
        OSError, match=r"^cannot download http.*/raw\.bin \(slower than 1,000 bytes a second"
    ):
        list(documents("raw"))
    assert time.monotonic() - begun < 9  # of 12
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("drip", [b"HTTP/1.1 100 Continue\r\n\r\n", b"a"], ids=["interim", "header"])
def test_a_head_without_end_is_not_waited_for(answer, tmp_path, monkeypatch, drip):
    monkeypatch.setattr(sources, "PATIENCE", 0.4)
    answer(b"" if drip.startswith(b"HTTP") else OK, (time.sleep(0.02) or drip for _ in range(600)))
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"^cannot download http.*/raw\.bin \(no whole head .* in 0.4 s\)"):
        list(documents("raw"))
    assert time.monotonic() - begun < 9  # of 12
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "length",
    [
        b"",
        b"Content-Length: soon\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
    ],
)
def test_a_length_that_is_missing_or_no_number_does_not_matter(answer, length):
    answer(OK + length + b"\r\n", [b"expe", b"cted"])
    assert list(documents("raw")) == [("raw", "expected")]
