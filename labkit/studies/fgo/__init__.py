"""The FGO study."""
