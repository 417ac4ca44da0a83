"""How to transfer: each strategy turns a model's layer groups into a training plan, which is a value."""

from headstart.strategies.build import build_plan, resolve_strategy
from headstart.strategies.plan import Phase, Timing, TrainingPlan
from headstart.strategies.stage import Stage

__all__ = ["Phase", "Stage", "Timing", "TrainingPlan", "build_plan", "resolve_strategy"]
