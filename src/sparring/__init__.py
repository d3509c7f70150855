"""Sparring: an image editor and a vision-language model train each other by playing against each other.

What is meant to be used from Python stands in `HOMES` (docs/python.md), and is imported when it is first
asked for: `import sparring` loads nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

HOMES = {
    "Answer": "sparring.data.records",
    "Edit": "sparring.data.records",
    "Target": "sparring.data.records",
    "Verdict": "sparring.data.records",
    "VisualQuestion": "sparring.data.records",
    "Recipe": "sparring.config",
    "SparringError": "sparring.data.errors",
    "ask": "sparring.asking.questions",
    "load_attacker": "sparring.python",
    "load_defender": "sparring.python",
    "load_judge": "sparring.python",
    "load_recipe": "sparring.recipes",
    "load_stored_recipe": "sparring.recipes",
    "pictures_of": "sparring.data.images",
    "read_ledger": "sparring.python",
    "read_questions": "sparring.data.questions",
    "run_game": "sparring.selfplay.loop",
    "write_report": "sparring.report.page",
}
"""Public name -> module that it stands in. `__init__.pyi` says the same to type checkers."""
__all__ = [*HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module 'sparring' has no attribute {name!r}; it offers {', '.join(HOMES)}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
