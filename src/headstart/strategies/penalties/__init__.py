"""Regularisers: penalties on top of the loss, by the names that configs use."""

from headstart.strategies.penalties.base import Batches, Parts, Penalty, Step
from headstart.strategies.penalties.build import build_penalties

__all__ = ["Batches", "Parts", "Penalty", "Step", "build_penalties"]
