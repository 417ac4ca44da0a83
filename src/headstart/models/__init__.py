"""Backbones, where their weights come from, their layer groups, and heads."""

from headstart.models.classifier import Classifier, build_classifier, input_spec
from headstart.models.loading import LoadReport
from headstart.models.weights import WeightsFile, locate_weights

__all__ = [
    "Classifier",
    "LoadReport",
    "WeightsFile",
    "build_classifier",
    "input_spec",
    "locate_weights",
]
