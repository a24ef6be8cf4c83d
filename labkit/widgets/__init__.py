"""Live controls over traces; each is also a page without Python (labkit.widgets.export)."""

from labkit.widgets.base import explore
from labkit.widgets.beam_tree import beam_tree
from labkit.widgets.comparison import Comparison
from labkit.widgets.controls import run_panel
from labkit.widgets.exercise import exercise
from labkit.widgets.mask_grid import mask_grid
from labkit.widgets.scrubber import scrubber

__all__ = ["Comparison", "beam_tree", "exercise", "explore", "mask_grid", "run_panel", "scrubber"]
