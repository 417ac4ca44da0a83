"""Heads that are solved on features instead of trained step by step."""

from headstart.features.solvers.choice import Solved
from headstart.features.solvers.solve import solve

__all__ = ["Solved", "solve"]
