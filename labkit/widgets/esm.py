"""One ES module text from the small modules of static/: anywidget takes a single text per widget.

The files are plain ES modules, so that node, editors and type checkers read them as they are. When labkit
is imported they are joined: each file becomes a function scope, in the order of dependence. So nothing is
fetched, names of two files cannot clash, and no bundler has to be installed.
"""

import posixpath
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import NoReturn

IMPORT = re.compile(r'^import \{([\w\s,]+)\} from "(\.{1,2}/[\w./]+\.js)";$', re.M)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.M)
DOC = re.compile(r"^ */\*\*.*?\*/[ \n]*", re.M | re.S)  # a block that begins a line
OTHER = re.compile(r"^(?:import|export)\b.*", re.M)


def esm(entry: str) -> str:
    """The module ``entry`` of labkit/widgets/static with all that it imports, as one ES module.

    Its default export, which anywidget wants, is the object of what ``entry`` exports: { render }.
    Understood, at the start of a line: ``import { a, b } from "./file.js";`` and ``export`` before
    ``function``, ``async function``, ``const NAME`` or ``class``. ValueError names the file that imports
    a missing file, a name that is not exported, or itself in a circle, or that has another form of
    import or export.
    """
    return join(entry, _read)


@cache
def standalone(entry: str) -> str:
    """``esm(entry)`` with the host that shows it in a page without Python."""
    start = f"""import {{ host }} from "./shared/host.js";
import {{ render }} from "./{entry}";

export const shown = host(render);
"""
    return join("start", lambda name: start if name == "start" else _read(name))


def _read(name: str) -> str:
    return (files("labkit.widgets") / "static" / name).read_text(encoding="utf-8")


def join(entry: str, read: Callable[[str], str]) -> str:
    """``esm`` over any set of files: ``read(name)`` returns a text or raises FileNotFoundError."""
    exports: dict[str, list[str]] = {}  # by file, in the order in which the scopes are written
    scopes: list[str] = []

    def add(name: str, importers: tuple[str, ...]) -> None:
        if name in importers:
            _fail(name, f"imports itself: {' -> '.join((*importers[importers.index(name) :], name))}")
        if name in exports:
            return
        try:
            text = read(name)
        except FileNotFoundError:
            _fail(importers[-1] if importers else name, f"there is no file {name}")
        for names, target in IMPORT.findall(text):
            add(source := _resolve(name, target), (*importers, name))
            if missing := set(re.findall(r"\w+", names)) - set(exports[source]):
                _fail(name, f"{source} does not export {', '.join(sorted(missing))}")
        exports[name] = EXPORT.findall(text)
        body = IMPORT.sub(lambda found: f"const {{{found[1]}}} = {_scope(_resolve(name, found[2]))};", text)
        body = DOC.sub("", EXPORT.sub("", body))  # types would double what every widget sends to its page
        if other := OTHER.search(body):
            _fail(name, f"neither a named import of a relative file nor an exported name: {other[0]}")
        result = f"return {{ {', '.join(exports[name])} }};"
        scopes.append(f"const {_scope(name)} = (() => {{ // {name}\n{body}\n{result}\n}})();\n")

    add(entry, ())
    return "".join(scopes) + f"export default {_scope(entry)};\n"


def _resolve(importer: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(importer), target))


def _scope(name: str) -> str:
    return "$" + name.removesuffix(".js").replace("/", "$")


def _fail(name: str, problem: str) -> NoReturn:
    raise ValueError(f"labkit/widgets/static/{name}: {problem}")
