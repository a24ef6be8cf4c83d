"""Tiny notebooks for the runner's tests."""

from pathlib import Path

import nbformat


def write_notebook(path: Path, *cells: str, parameters: str = "") -> Path:
    """Write a notebook with a heading, a tagged parameters cell and ``cells``."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    heading = nbformat.v4.new_markdown_cell(f"# About {path.stem}")
    book = nbformat.v4.new_notebook(cells=[heading, tagged, *map(nbformat.v4.new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path
