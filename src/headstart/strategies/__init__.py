"""How to transfer: each strategy turns a model's layer groups into a training plan, which is a value."""

from headstart.strategies.build import build_plan
from headstart.strategies.plan import Phase, TrainingPlan

__all__ = ["Phase", "TrainingPlan", "build_plan"]
