"""Sending runs to W&B that were logged offline, or that W&B did not get to the end of; twice does no harm."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.config.plain import read_config
from headstart.config.schema.logger import WandbConfig
from headstart.config.wandb_access import base_url, wandb_key_configured
from headstart.environment import process_alive
from headstart.errors import ConfigError, RecordError
from headstart.network import reachable
from headstart.records.atomic import plain_json
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, read_record
from headstart.records.tables import METRICS, read_rows
from headstart.records.wandb_copy import RECORD_KEY, record_as_summary

TIMEOUT = 180
"""Seconds for one run: W&B's own `sync` tries for ever where nobody answers."""
_ADDRESS = re.compile(r"https?://\S+?/([^/\s]+)/([^/\s]+)/runs/([^/\s?]+)")


@dataclass(frozen=True)
class Sent:
    """What became of a run: `sent`, `there` (whole before), `none` (never logged to W&B), `running`, `failed`."""

    folder: Path
    what: str
    why: str = ""


def check_server() -> None:
    """Raise ConfigError where there is no key, it is refused, or the server is out of reach."""
    if not wandb_key_configured():
        raise ConfigError("sync: there is no W&B key; `wandb login` or WANDB_API_KEY.")
    if not reachable(base_url()):
        raise ConfigError(f"sync: W&B ({base_url()}) is out of reach.")
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        wandb.Api(timeout=20)
    except Exception as error:
        raise ConfigError(f"sync: W&B refuses the key, or does not answer ({_short(str(error))}).") from error


def sync(folders: Sequence[Path], *, tell: Callable[[int], None] = lambda count: None) -> list[Sent]:
    """Send each run that W&B has not whole, and ask W&B whether it has it then; `tell` hears how many are done.

    Its own mark and its exit status prove nothing: both are the same after a refused upload. So what counts is
    what W&B answers. The server must have been checked.
    """
    found: list[Sent] = []
    away = False
    for folder in folders:
        if away:
            found.append(Sent(folder, "failed", "W&B went out of reach"))
        else:
            found.append(_sync_one(folder))
            away = found[-1].what == "failed" and not reachable(base_url())
        tell(len(found))
    return found


def _sync_one(folder: Path) -> Sent:
    try:
        record = read_record(folder)
    except RecordError as error:
        return Sent(folder, "failed", str(error))
    if not record.logger.get("wandb_id") or record.logger.get("wandb_mode") == "disabled":
        return Sent(folder, "none")
    if record.status == "running" and process_alive(record.environment.get("pid"), record.environment.get("host")):
        return Sent(folder, "running")
    if _is_whole(record, address := _address_of(record, "")):
        return _with_evaluations(folder, record, address)
    why = "W&B has not all of it"
    for log in _logs(folder, record):
        said = _send(log, folder)
        if _is_whole(record, _address_of(record, said)):
            return Sent(folder, "sent")
        why = _reason(said) or why
    return Sent(folder, "failed", why)


def _with_evaluations(folder: Path, record: RunRecord, address: str) -> Sent:
    """Send the record anew where the run has been evaluated since W&B got it; its log stays as it is."""
    import wandb

    try:
        run = wandb.Api(timeout=20).run(address)
        there = json.loads(run.summary.get(RECORD_KEY) or "{}").get("evaluations") or {}
        if there == plain_json(record.evaluations):
            return Sent(folder, "there")
        run.summary.update(record_as_summary(record))
    except Exception as error:  # as it was before
        return Sent(folder, "failed", f"its evaluations were not sent ({_short(str(error))})")
    return Sent(folder, "sent")


def _logs(folder: Path, record: RunRecord) -> Any:
    """What can be sent: the log that the run has left, if it is whole, and then one made anew from its files."""
    newest = newest_log(folder)
    broken = (
        record.logger.get("unsent") or record.logger.get("failed") or record.status in ("running", "interrupted")
    )
    if newest is not None and newest.name.startswith("offline-") and not broken:
        yield newest
    try:
        log = log_again(folder, record)
    except Exception:  # whatever W&B makes of it: the other runs are sent all the same
        return
    if log is not None:
        yield log


def newest_log(folder: Path) -> Path | None:
    """The newest W&B folder of a run: a resumed run's begins with the epochs behind it, so it alone is whole."""
    found = [path for kind in ("run-*", "offline-run-*") for path in (folder / "wandb").glob(kind) if path.is_dir()]
    logs = [path for path in found if any(path.glob("*.wandb")) and not path.is_symlink()]
    return max(logs, key=lambda path: path.name.removeprefix("offline-"), default=None)


def log_again(folder: Path, record: RunRecord) -> Path | None:
    """A whole offline log of a run, made from its own files: config, epochs, summary, tables and files.

    What it holds of single steps and of the machine's load is not there again.
    """
    from headstart.recording import arm_of
    from headstart.training.wandb_logger import WandbLogger

    config = read_config(folder / CONFIG)
    options = config.logger if isinstance(config.logger, WandbConfig) else WandbConfig()
    before = newest_log(folder)
    logger = WandbLogger(
        WandbConfig(**{**vars(options), "mode": "offline"}),
        folder=folder,
        name=record.id,
        group=record.launched_by,
        arm=arm_of(config),
        plain=record.config,
        about={"wandb_id": record.logger["wandb_id"]},
        offline=True,
    )
    rows = read_rows(folder / METRICS) if (folder / METRICS).is_file() else []
    logger.replay(rows)
    logger.finish(record, failed=record.status not in ("completed", "pruned"))
    made = newest_log(folder)
    return made if made != before else None


def _send(log: Path, folder: Path) -> str:
    """W&B's own `sync` of one log; what it said."""
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", "--include-synced", str(log)]
    environment = {**os.environ, "WANDB_DATA_DIR": str(folder / "wandb"), "WANDB_SILENT": "false"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        return f"error: no end after {TIMEOUT // 60} minutes"
    return done.stdout + done.stderr


def _address_of(record: RunRecord, said: str) -> str:
    """`entity/project/id` by what `sync` said, by the record's address, or by its config."""
    match = _ADDRESS.search(said) or _ADDRESS.search(str(record.logger.get("wandb_url") or ""))
    id = str(record.logger["wandb_id"])
    if match:
        return f"{match[1]}/{match[2]}/{id}"
    options = record.config.get("logger") or {}
    project = options.get("project") or "headstart"
    return f"{options['entity']}/{project}/{id}" if options.get("entity") else f"{project}/{id}"


def _is_whole(record: RunRecord, address: str) -> bool:
    """Whether W&B has the run with its record and its files."""
    import wandb

    try:
        run = wandb.Api(timeout=20).run(address)
        if run.summary.get("run_id") != record.id or run.summary.get("status") != record.status:
            return False
        return any(artifact.type == "run" for artifact in run.logged_artifacts())
    except Exception:  # no such run, or no answer: then it is not there
        return False


def _reason(output: str) -> str:
    """The line of W&B's output that says why."""
    lines = [line.rpartition("wandb:")[2].strip() or line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if any(word in line.lower() for word in ("error", "fail", "denied"))]
    return _short(said[-1]) if said else ""


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
