"""The errors of the project. Each says what happened, to which record or field, and what to do."""

from __future__ import annotations

from collections.abc import Mapping


class SparringError(Exception):
    """Base of every error that Sparring raises on purpose."""


class DataError(SparringError, ValueError):
    """A data file or one of its records cannot be used."""


class RecipeError(SparringError, ValueError):
    """A recipe is wrong: an unknown key, a value out of range, a file that is not there."""


class ModelError(SparringError, ValueError):
    """A checkpoint cannot be loaded or does not fit its part."""


class RefusedError(ModelError):
    """A question that a model, its processor or its server does not take, or answers with no reply. Others may be asked.

    places: of several that were asked together, the number of each that is not taken -> why.
    """

    def __init__(self, message: str, places: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.places: dict[int, str] = dict(places or {})


class TrainingError(SparringError, RuntimeError):
    """Training cannot go on: losses that are not finite, a phase without signal."""


class RunError(SparringError, RuntimeError):
    """A run folder is missing, in use, or belongs to another recipe."""
