"""Image editors: one interface over flow-matching families, one short adapter for each."""

from sparring.models.editors.base import FlowEditor
from sparring.models.editors.conditions import Conditions
from sparring.models.editors.loading import check_editor, load_editor

__all__ = ["Conditions", "FlowEditor", "check_editor", "load_editor"]
