"""Asking models: prompts, answers read out of replies, and one desk that asks."""
