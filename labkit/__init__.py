"""labkit: three papers as one interactive lab. See README.md."""

__version__ = "0.1.0"
