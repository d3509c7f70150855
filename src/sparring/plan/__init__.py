"""What a recipe would do, found out without loading a weight: its data, its models, what they need of GPUs,
how long it takes and what it costs.
"""

from sparring.plan.make import Plan, make_plan
from sparring.plan.models import ModelPlan, find_model, require_models

__all__ = ["ModelPlan", "Plan", "find_model", "make_plan", "require_models"]
