"""Live controls over traces; each has a static twin for headless runs."""

from labkit.widgets.base import explore
from labkit.widgets.mask_grid import mask_grid
from labkit.widgets.scrubber import scrubber

__all__ = ["explore", "mask_grid", "scrubber"]
