"""Headstart: what a pretrained backbone buys you on your images, against training from scratch.

import headstart
record = headstart.train(["strategy=linear_probe", "data=digits"])
frame = headstart.runs("outputs")
tables = headstart.compare("outputs")
module, transform = headstart.load("outputs/runs/...")
"""

from headstart.api import compare, load, runs, train

__version__ = "0.1.0"

__all__ = ["__version__", "compare", "load", "runs", "train"]
