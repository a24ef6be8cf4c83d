"""The fast loop: many runs of small reasoning models in one process."""
