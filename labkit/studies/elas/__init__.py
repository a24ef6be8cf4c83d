"""The ELAS study."""
