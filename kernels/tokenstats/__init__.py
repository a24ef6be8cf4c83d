"""Argmax, confidence, log-probability and entropy of rows of logits (torch alone; Triton if found)."""

from tokenstats.dispatch import token_stats
from tokenstats.reference import TokenStats

__all__ = ["TokenStats", "token_stats"]
