"""A claim of a paper beside what the lab measured: the one shape of every table of findings.

Claim   one row; elas.claims, soar.claims and fgo.claims make them from the records
where   on what, and when, a record was made
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One row. No number of it is typed in: they are read from records and from published.py."""

    paper: str  # "ELAS", "SOAR", "FGO" or "all"
    claim: str  # what is asked or claimed
    measured: str  # with its spread
    conditions: str  # card and date, or sizes and seeds
    published: str = "not printed"
    notebook: str = ""  # its stem


def where(meta: Mapping[str, Any], *notes: str) -> str:
    """``Card 9, 2026-01-02; note`` of a record or of its provenance; empty notes are left out."""
    made = meta.get("provenance", meta)
    return "; ".join([f"{made['device']}, {made['time'][:10]}", *filter(None, notes)])
