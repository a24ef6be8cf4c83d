"""Trace in, figure out. matplotlib for the page, plotly for the pointer; no torch here."""
