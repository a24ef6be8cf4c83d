"""SOAR (arXiv 2602.10953): beam search for diffusion language models that speeds up when it is sure."""

from labkit.soar.load import load_model
from labkit.soar.search import decode

__all__ = ["decode", "load_model"]
