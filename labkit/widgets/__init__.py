"""Live controls over traces; each has a static twin for headless runs."""

from labkit.widgets.base import explore

__all__ = ["explore"]
