"""What measurements at a run's start may choose, and what holds where they have not."""

from __future__ import annotations

from headstart.config.schema.root import Config

CHANNELS_LAST = "channels_last"


def channels_last_of(config: Config) -> bool:
    """Whether a run's images and kernels have the channels last in memory: as it is said, measured, or not."""
    said = config.trainer.channels_last
    return bool(config.measured.get(CHANNELS_LAST)) if said is None else said
