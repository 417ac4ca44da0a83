"""Where else a run is written down; its own folder is always the truth."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required


@dataclass
class LoggerConfig:
    """Options that every logger has."""

    name: str = required("Kind of logger; choose it with `logger=`.")


@dataclass
class SteppedConfig(LoggerConfig):
    """A logger that also writes down single steps."""

    every_n_steps: int = option(50, "How often the loss and rate of a single step are written.", least=1)


@dataclass
class WandbConfig(SteppedConfig):
    """Weights & Biases."""

    name: str = "wandb"
    project: str = option("headstart", "W&B project.")
    entity: str | None = option(None, "W&B user or team.", auto="your default")
    mode: str = option(
        "auto",
        "`auto`: online where a key is configured, else offline.",
        choices=("auto", "online", "offline"),
    )
    tags: list[str] = option([], "Tags of the W&B run.")
    checkpoints: bool = option(False, "Send the weights as well, as an artifact.")


@dataclass
class CsvConfig(SteppedConfig):
    """steps.csv beside the metrics.csv that every run has."""

    name: str = "csv"


@dataclass
class TensorboardConfig(SteppedConfig):
    """TensorBoard event files in the run's folder; needs headstart[tensorboard]."""

    name: str = "tensorboard"


@dataclass
class NoLoggerConfig(LoggerConfig):
    """Nothing beside the metrics.csv that every run has."""

    name: str = "none"


OPTIONS = {
    "wandb": WandbConfig,
    "csv": CsvConfig,
    "tensorboard": TensorboardConfig,
    "none": NoLoggerConfig,
}
