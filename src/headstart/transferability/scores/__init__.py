"""Scores of frozen features that rank backbones before training, each under the name of its paper."""

from headstart.transferability.scores.examples import Examples, Score, Scored
from headstart.transferability.scores.registry import SCORES, check_scores, default_scores

__all__ = ["SCORES", "Examples", "Score", "Scored", "check_scores", "default_scores"]
