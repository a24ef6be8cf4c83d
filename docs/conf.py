"""The API pages: `make docs` builds them offline into runs/docs, every warning an error."""

import re

import labkit

project, author, version = "labkit", "The labkit authors", labkit.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_parser",
]
myst_enable_extensions = ["dollarmath"]
html_theme, html_title = "furo", f"labkit {version}"
html_favicon = "icon.svg"  # without one a browser asks the server for it
templates_path = ["templates"]
autosummary_ignore_module_all = True
autodoc_typehints, autodoc_member_order = "signature", "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_inherit_docstrings = False  # those of torch and transformers are theirs
napoleon_numpy_docstring = False

ENTRY = re.compile(r"(\S+(?:,? \S+)*?) {2,}(\S.*)")
LITERAL = re.compile(r"(``.*?``|`.*?`)", re.DOTALL)


def plain_text(app, what, name, obj, options, lines):
    """A docstring is prose and ``code``: |x| and *args mean themselves."""
    parts = LITERAL.split("\n".join(lines))
    parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def aligned_lists(app, what, name, obj, options, lines):
    """``name   what it is``, the lab's columns in a docstring, as a definition list."""
    done, inside = [], False
    for line in lines:
        entry = ENTRY.fullmatch(line)
        if entry:
            done += [*[""] * (not inside), f"``{entry[1]}``", f"    {entry[2]}"]
        elif inside and line.startswith("  "):
            done.append(f"    {line.strip()}")
        else:
            done += [*[""] * (inside and bool(line)), line]
        inside = bool(entry) or (inside and line.startswith("  "))
    lines[:] = done


def setup(app):
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", aligned_lists, priority=900)  # after napoleon
