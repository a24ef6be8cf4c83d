"""Notebooks executed: presets, papermill, sweeps, baselines, reports."""
