"""Image editors: one interface over flow-matching families, one short adapter for each."""

from sparring.models.editors.base import Conditions, FlowEditor, load_editor

__all__ = ["Conditions", "FlowEditor", "load_editor"]
