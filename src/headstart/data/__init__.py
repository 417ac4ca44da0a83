"""Images and labels: where they come from, how they are split, and what the model is given of them."""

from headstart.data.datamodule import ImageDataModule
from headstart.data.load import load_data

__all__ = ["ImageDataModule", "load_data"]
