"""Where else a run is written: W&B, steps.csv or TensorBoard. A failure there never touches the run."""

from __future__ import annotations

import netrc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from headstart.config.schema.logger import (
    CsvConfig,
    LoggerConfig,
    TensorboardConfig,
    WandbConfig,
)
from headstart.errors import ConfigError
from headstart.network import reachable
from headstart.records.tables import read_rows, write_rows

Row = dict[str, Any]


class RunLogger(Protocol):
    """Something that a run is also written to; rows have `step`, epochs' rows `epoch` as well."""

    def step(self, row: Row) -> None:
        """One training step."""

    def epoch(self, row: Row) -> None:
        """One epoch, with its metrics."""

    def finish(self, summary: Row, *, failed: bool) -> None:
        """The end, with the final metrics."""

    def about(self) -> Row:
        """What the record says of it."""


def build_logger(
    config: LoggerConfig,
    *,
    folder: Path,
    name: str,
    group: str | None,
    arm: str,
    config_plain: Row,
    about: Row,
) -> RunLogger | None:
    """The logger that `config` asks for, guarded; None where there is none or it could not start.

    `about` is what an interrupted run's record said of its logger, so that it goes on in the same place.
    """
    match config:
        case WandbConfig():
            return _guarded(
                lambda: WandbLogger(
                    config, folder=folder, name=name, group=group, arm=arm, plain=config_plain, about=about
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
            self._inner = None
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

    def finish(self, summary: Row, *, failed: bool) -> None:
        """The end, with the final metrics."""
        self._try(lambda inner: inner.finish(summary, failed=failed))

    def about(self) -> Row:
        """What the record says of it, a failure included."""
        return self._about


def wandb_mode(choice: str) -> str:
    """`online`, `offline` or `disabled`: $WANDB_MODE first, then `choice`, then whether there is a key."""
    named = os.environ.get("WANDB_MODE", "")
    if named in ("online", "offline", "disabled"):
        return named
    if choice != "auto":
        return choice
    return "online" if wandb_key_configured() else "offline"


def base_url() -> str:
    """Address of the W&B server; $WANDB_BASE_URL where it is another."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def wandb_key_configured() -> bool:
    """Whether a W&B key is in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(base_url()).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class WandbLogger:
    """One W&B run per run; never asks a question."""

    def __init__(
        self,
        config: WandbConfig,
        *,
        folder: Path,
        name: str,
        group: str | None,
        arm: str,
        plain: Row,
        about: Row,
    ) -> None:
        import wandb

        def start(mode: str) -> Any:
            return wandb.init(
                project=config.project,
                entity=config.entity,
                id=about.get("wandb_id"),
                resume="allow" if about.get("wandb_id") else None,
                name=name,
                group=group,
                job_type=arm,
                tags=config.tags or None,
                config=plain,
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=30,
                    finish_timeout=120,
                    finish_timeout_raises=False,
                ),
            )

        mode = wandb_mode(config.mode)
        if mode == "online" and not wandb_key_configured():  # W&B itself would ask for one
            print("W&B has no key (wandb login); this run is logged offline.", file=sys.stderr, flush=True)
            mode = "offline"
        elif mode == "online" and not reachable(base_url()):  # W&B itself would try for minutes
            print(f"W&B ({base_url()}) is out of reach; this run is logged offline.", file=sys.stderr, flush=True)
            mode = "offline"
        try:
            self.run = start(mode)
        except Exception as error:
            if mode != "online":
                raise
            print(f"W&B cannot be reached ({error}); this run is logged offline.", file=sys.stderr, flush=True)
            mode = "offline"
            self.run = start(mode)
        self.mode = mode
        for metric in ("train/*", "val/*", "lr/*"):
            self.run.define_metric(metric, step_metric="trainer/step")

    def step(self, row: Row) -> None:
        """One training step."""
        self._log(row)

    def epoch(self, row: Row) -> None:
        """One epoch, with its metrics."""
        self._log(row)

    def _log(self, row: Row) -> None:
        self.run.log({("trainer/step" if key == "step" else key): value for key, value in row.items()})

    def finish(self, summary: Row, *, failed: bool) -> None:
        """Summary metrics, then the end."""
        self.run.summary.update(summary)
        self.run.finish(exit_code=1 if failed else 0)

    def about(self) -> Row:
        """Id, address and mode."""
        url = self.run.url if self.mode == "online" else None
        return {"wandb_id": self.run.id, "wandb_url": url, "wandb_mode": self.mode}


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

    def finish(self, summary: Row, *, failed: bool) -> None:
        """Write the rest."""
        write_rows(self.path, self.rows)

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

    def finish(self, summary: Row, *, failed: bool) -> None:
        """Final metrics, then the end."""
        for key, value in summary.items():
            self.writer.add_scalar(f"final/{key}", value)
        self.writer.close()

    def about(self) -> Row:
        """Its folder."""
        return {"tensorboard": "tensorboard"}
