"""nbformat, a second sooner: without the check of IRIs, which no notebook has.

Where JupyterLab has installed ``rfc3987_syntax``, jsonschema imports it along with nbformat, and that
compiles a grammar: 1.1 of 1.3 seconds in every process that opens a notebook.
"""

import sys

GRAMMAR = "rfc3987_syntax"
WIDGET = "application/vnd.jupyter.widget-view+json"  # of an output that a live page alone can show

if GRAMMAR in sys.modules:
    import nbformat
else:
    sys.modules[GRAMMAR] = None  # type: ignore[assignment]  # to jsonschema, a package that is not installed
    try:
        import nbformat
    finally:
        del sys.modules[GRAMMAR]

__all__ = ["WIDGET", "nbformat"]
