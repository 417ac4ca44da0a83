"""What an experiment is: its schema, how it is composed from files and overrides, and its identity."""

from headstart.config.schema.root import Config

__all__ = ["Config"]
