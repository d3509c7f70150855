"""The seeds of `sparring.seeds`, under the name that the rooms above `rl` know them by."""

from sparring.seeds import derive_seed

__all__ = ["derive_seed"]
