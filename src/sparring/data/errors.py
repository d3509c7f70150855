"""The errors of the project. Each says what happened, to which record or field, and what to do."""

from __future__ import annotations


class SparringError(Exception):
    """Base of every error that Sparring raises on purpose."""


class DataError(SparringError, ValueError):
    """A data file or one of its records cannot be used."""


class RecipeError(SparringError, ValueError):
    """A recipe is wrong: an unknown key, a value out of range, a file that is not there."""


class ModelError(SparringError, ValueError):
    """A checkpoint cannot be loaded or does not fit its part."""


class TrainingError(SparringError, RuntimeError):
    """Training cannot go on: losses that are not finite, a phase without signal."""


class RunError(SparringError, RuntimeError):
    """A run folder is missing, in use, or belongs to another recipe."""
