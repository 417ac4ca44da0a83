"""The Lightning engine: from a model, a plan and data to trained weights and their predictions."""

from headstart.training.engine import Fitted, fit

__all__ = ["Fitted", "fit"]
