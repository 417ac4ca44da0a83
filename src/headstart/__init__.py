"""Headstart: what a pretrained backbone buys you on your images, against training from scratch.

import headstart
record = headstart.train(["strategy=linear_probe", "data=digits"])
frame = headstart.runs("outputs")
tables = headstart.compare("outputs")
ranking = headstart.rank(["resnet18", "convnext_*"], ["data=digits"])
module, transform = headstart.load("outputs/runs/...")
"""

# the package first, the function of the same name after it: or the first import of one of its modules would
# put the package in the function's place
import headstart.compare  # noqa: F401
from headstart.api import compare, load, rank, runs, train

__version__ = "0.1.0"

__all__ = ["__version__", "compare", "load", "rank", "runs", "train"]
