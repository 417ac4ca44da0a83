"""A trained model back from its run folder, and what one does with it."""

from headstart.trained.load import Transform, load_run

__all__ = ["Transform", "load_run"]
