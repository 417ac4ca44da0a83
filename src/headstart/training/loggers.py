"""Where else a run is written: W&B, steps.csv or TensorBoard. A failure there never touches the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from headstart.config.schema.logger import (
    CsvConfig,
    LoggerConfig,
    TensorboardConfig,
    WandbConfig,
)
from headstart.errors import ConfigError
from headstart.records.schema import RunRecord
from headstart.records.tables import read_rows, write_rows

Row = dict[str, Any]


class RunLogger(Protocol):
    """Something that a run is also written to; rows have `step`, epochs' rows `epoch` as well."""

    def step(self, row: Row) -> None:
        """One training step."""

    def epoch(self, row: Row) -> None:
        """One epoch, with its metrics."""

    def replay(self, rows: Sequence[Row]) -> None:
        """The epochs that a resumed run has behind it."""

    def whole(self, rows: Sequence[Row]) -> None:
        """All rows, of steps and epochs, of a training that is over, in their order."""

    def finish(self, record: RunRecord, *, failed: bool) -> None:
        """The end, with the final metrics; what the run has left lies in its folder."""

    def about(self) -> Row:
        """What the record says of it."""

    def abandon(self) -> None:
        """Give up after a failure; must not raise."""


def build_logger(
    config: LoggerConfig,
    *,
    folder: Path,
    name: str,
    group: str | None,
    arm: str,
    config_plain: Row,
    about: Row,
    again: bool = False,
) -> RunLogger | None:
    """The logger that `config` asks for, guarded; None where there is none or it could not start.

    `about` is what an interrupted run's record said of its logger, so that it goes on in the same place. With
    `again` the run begins again from its start, and will say what it has said before.
    """
    match config:
        case WandbConfig():
            from headstart.training.wandb_logger import WandbLogger

            return _guarded(
                lambda: WandbLogger(
                    config,
                    folder=folder,
                    name=name,
                    group=group,
                    arm=arm,
                    plain=config_plain,
                    about=about,
                    again=again,
                ),
                "W&B",
            )
        case CsvConfig():
            return _guarded(lambda: StepsLogger(folder), "steps.csv")
        case TensorboardConfig():
            return _guarded(lambda: TensorboardLogger(folder), "TensorBoard")
    return None


def check_logger(config: LoggerConfig) -> None:
    """Raise ConfigError where a logger's package is not installed."""
    if isinstance(config, TensorboardConfig):
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                'logger=tensorboard: needs TensorBoard: pip install "headstart[tensorboard]".'
            ) from error


def _guarded(build: Callable[[], RunLogger], name: str) -> RunLogger | None:
    try:
        return Guarded(build(), name)
    except Exception as error:
        _warn(name, error)
        return None


def _warn(name: str, error: BaseException) -> None:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    print(f"{name} is off for this run ({reason}); the run goes on.", file=sys.stderr, flush=True)


class Guarded:
    """Passes calls on until the first one fails, says so once, and is silent from then on."""

    def __init__(self, inner: RunLogger, name: str) -> None:
        self._inner: RunLogger | None = inner
        self._name = name
        self._about = inner.about()

    def _try(self, call: Callable[[RunLogger], None]) -> None:
        if self._inner is None:
            return
        try:
            call(self._inner)
        except Exception as error:
            failed, self._inner = self._inner, None
            failed.abandon()
            self._about = {
                **self._about,
                "failed": " ".join(str(error).split())[:200] or type(error).__name__,
            }
            _warn(self._name, error)

    def step(self, row: Row) -> None:
        """One training step."""
        self._try(lambda inner: inner.step(row))

    def epoch(self, row: Row) -> None:
        """One epoch, with its metrics."""
        self._try(lambda inner: inner.epoch(row))

    def replay(self, rows: Sequence[Row]) -> None:
        """The epochs that a resumed run has behind it."""
        self._try(lambda inner: inner.replay(rows))

    def whole(self, rows: Sequence[Row]) -> None:
        """All rows of a training that is over."""
        self._try(lambda inner: inner.whole(rows))

    def finish(self, record: RunRecord, *, failed: bool) -> None:
        """The end, with the final metrics."""
        self._try(lambda inner: inner.finish(record, failed=failed))
        if self._inner is not None:
            self._about = self._inner.about()

    def abandon(self) -> None:
        """It has given up already."""

    def about(self) -> Row:
        """What the record says of it, a failure included."""
        return self._about


class StepsLogger:
    """steps.csv: a row for every n-th step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "steps.csv"
        self.rows = read_rows(self.path) if self.path.is_file() else []

    def step(self, row: Row) -> None:
        """One training step; steps that a resumed run takes again replace those before."""
        self.rows = [known for known in self.rows if known["step"] < row["step"]] + [row]

    def epoch(self, row: Row) -> None:
        """Write what has come together."""
        write_rows(self.path, self.rows)

    def replay(self, rows: Sequence[Row]) -> None:
        """Its file has them."""

    def whole(self, rows: Sequence[Row]) -> None:
        """Keep the steps; they are written at the end."""
        self.rows = [row for row in rows if "epoch" not in row]

    def finish(self, record: RunRecord, *, failed: bool) -> None:
        """Write the rest."""
        write_rows(self.path, self.rows)

    def abandon(self) -> None:
        """What was written stays."""

    def about(self) -> Row:
        """Its name."""
        return {"steps": self.path.name}


class TensorboardLogger:
    """TensorBoard event files in the run's folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def step(self, row: Row) -> None:
        """One training step."""
        for key, value in row.items():
            if key not in ("step", "epoch"):
                self.writer.add_scalar(key, value, row["step"])

    def epoch(self, row: Row) -> None:
        """One epoch, with its metrics."""
        self.step(row)

    def replay(self, rows: Sequence[Row]) -> None:
        """Its files have them."""

    def whole(self, rows: Sequence[Row]) -> None:
        """Write them all."""
        for row in rows:
            self.step(row)

    def finish(self, record: RunRecord, *, failed: bool) -> None:
        """Final metrics, then the end."""
        for key, value in record.metrics.items():
            self.writer.add_scalar(f"final/{key}", value)
        self.writer.close()

    def abandon(self) -> None:
        """What was written stays."""

    def about(self) -> Row:
        """Its folder."""
        return {"tensorboard": "tensorboard"}
