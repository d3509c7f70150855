"""Recipes: one YAML file is one experiment."""

from sparring.recipes.load import bundled_recipes, load_recipe, load_stored_recipe
from sparring.recipes.paths import resolve_model

__all__ = ["bundled_recipes", "load_recipe", "load_stored_recipe", "resolve_model"]
