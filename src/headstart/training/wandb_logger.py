"""Weights & Biases: one run there per run here, a copy and never the truth."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.config.checks import lower_is_better
from headstart.config.schema.logger import WandbConfig
from headstart.config.wandb_access import base_url, wandb_key_configured, wandb_mode
from headstart.network import reachable
from headstart.records.examples import EXAMPLES
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, RECORD
from headstart.records.tables import METRICS, read_rows
from headstart.records.wandb_copy import ARM_KEY, CONFIG_KEY, record_as_summary
from headstart.training.metrics import THRESHOLD
from headstart.training.wandb_tables import confusion_of, mistakes_of

Row = dict[str, Any]

INIT_TIMEOUT = 30
FINISH_TIMEOUT = 60
"""Seconds for what has yet to be sent when a run ends; what is not sent then is for `headstart sync`."""
FINISH_TIMEOUT_WITH_WEIGHTS = 600
DATA_DIR = "WANDB_DATA_DIR"
_ours: list[str] = []
"""Values of $WANDB_DATA_DIR that were set here, so that one of the user's is left alone."""


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
        offline: bool = False,
        again: bool = False,
    ) -> None:
        import wandb

        self.folder = folder
        self.checkpoints = config.checkpoints
        self.resumed = bool(about.get("wandb_id"))
        _keep_uploads_in(folder)
        os.environ.setdefault("WANDB_SILENT", "true")  # its login speaks before it has our settings
        # telemetry that nobody answers holds up the end of the process, offline too
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

        def start(mode: str) -> Any:
            return wandb.init(
                project=config.project,
                entity=config.entity,
                id=about.get("wandb_id"),
                resume="allow" if self.resumed and mode == "online" else None,
                name=name,
                group=group,
                job_type=arm,
                tags=config.tags or None,
                config={**plain, ARM_KEY: arm, CONFIG_KEY: {"run": name, "folder": str(folder.absolute())}},
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=INIT_TIMEOUT,
                    finish_timeout=FINISH_TIMEOUT_WITH_WEIGHTS if config.checkpoints else FINISH_TIMEOUT,
                    finish_timeout_raises=True,
                ),
            )

        mode = "offline" if offline else wandb_mode(config.mode)
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
            wandb.teardown()  # or the id of a resumed run counts as in use
            self.run = start(mode)
        self.mode = mode
        self.unsent = ""
        self._known: int = self.run.starting_step if again and self.resumed else 0
        """Rows to come that W&B has already: a run that begins again has the same ones again."""
        for metric in ("train/*", "val/*", "lr/*"):
            self.run.define_metric(metric, step_metric="trainer/step")

    def step(self, row: Row) -> None:
        """One training step."""
        self._log(row)

    def epoch(self, row: Row) -> None:
        """One epoch, with its metrics."""
        self._log(row)

    def _log(self, row: Row) -> None:
        if self._known:
            self._known -= 1
            return
        self.run.log({("trainer/step" if key == "step" else key): value for key, value in row.items()})

    def replay(self, rows: Sequence[Row]) -> None:
        """A resumed run that W&B has nothing of, or that is logged offline, begins with the epochs behind it.

        So its newest file alone is whole, and is all that has to be sent.
        """
        if self.resumed and not self.run.starting_step:  # `step` is 0 until W&B has caught up
            for row in rows:
                self._log(row)

    def whole(self, rows: Sequence[Row]) -> None:
        """Send all rows of a training that is over."""
        for row in rows:
            self._log(row)

    @staticmethod
    def summary_of(record: RunRecord) -> Row:
        """What a run came to, flat."""
        summary: Row = {**record.metrics, **{f"parameters/{k}": v for k, v in record.parameters.items()}}
        summary |= {f"seconds/{k}": v for k, v in record.seconds.items()}
        summary |= {f"best/{k}": v for k, v in record.best.items()}
        return summary | {"arm": record.arm, "run_id": record.id, "status": record.status}

    def finish(self, record: RunRecord, *, failed: bool) -> None:
        """Summary with the best of each validation metric, tables, files, then the end."""
        self.run.summary.update({**self.summary_of(record), **_best(self.folder), **record_as_summary(record)})
        try:  # online, each of these waits for an answer, and raises where there is none
            if record.status == "completed":
                shown = {
                    "mistakes": mistakes_of(self.folder, record),
                    "confusion": confusion_of(self.folder, record),
                }
                if any(value is not None for value in shown.values()):
                    self.run.log({key: value for key, value in shown.items() if value is not None})
            self._log_files(record)
        except Exception as error:
            self._not_all_sent(error)
        try:
            self.run.finish(exit_code=1 if failed else 0)
        except TimeoutError as error:
            self._not_all_sent(error)

    def abandon(self) -> None:
        """Give up: end the run, so that the process does not wait for it later."""
        with suppress(Exception):
            self.run.finish(exit_code=1)

    def _not_all_sent(self, error: BaseException) -> None:
        if not self.unsent:
            self.unsent = " ".join(str(error).split())[:200] or type(error).__name__
            print(f"W&B did not get all of this run; `headstart sync` sends it ({self.unsent}).", file=sys.stderr)

    def _log_files(self, record: RunRecord) -> None:
        import wandb

        files = wandb.Artifact(f"run-{record.id}"[:128], type="run")
        for name in (RECORD, CONFIG, METRICS, EXAMPLES):
            if (self.folder / name).is_file():
                files.add_file(str(self.folder / name))
        self.run.log_artifact(files)
        weights = sorted((self.folder / "checkpoints").glob("*.safetensors")) if self.checkpoints else []
        if weights:
            model = wandb.Artifact(f"weights-{record.id}"[:128], type="model")
            for path in weights:
                model.add_file(str(path))
            self.run.log_artifact(model)

    def about(self) -> Row:
        """Id, address and mode."""
        url = self.run.url if self.mode == "online" else None
        unsent = {"unsent": self.unsent} if self.unsent else {}
        return {"wandb_id": self.run.id, "wandb_url": url, "wandb_mode": self.mode, **unsent}


def _best(folder: Path) -> Row:
    """`best/val/accuracy_micro` and its like: the best of each validation metric over all epochs."""
    path = folder / METRICS
    rows = read_rows(path) if path.is_file() else []
    names = dict.fromkeys(key for row in rows for key in row if key.startswith("val/") and key != THRESHOLD)
    found = {}
    for name in names:
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        if values:
            found[f"best/{name}"] = min(values) if lower_is_better(name) else max(values)
    return found


def _keep_uploads_in(folder: Path) -> None:
    """Let W&B keep what it has yet to send beside the run, rather than in the home folder, where it may be lost."""
    if os.environ.get(DATA_DIR) and os.environ[DATA_DIR] not in _ours:
        return
    own = str((folder / "wandb").absolute())
    _ours.append(own)
    os.environ[DATA_DIR] = own
