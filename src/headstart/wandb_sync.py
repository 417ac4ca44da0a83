"""Sending runs to W&B that were logged offline, or that W&B did not get to the end of; twice does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.config.wandb_access import base_url, wandb_key_configured
from headstart.environment import process_alive
from headstart.errors import ConfigError, RecordError
from headstart.network import reachable
from headstart.records.store import read_record

TIMEOUT = 600


@dataclass(frozen=True)
class Sent:
    """What became of a run: `sent`, `there` (it was sent before), `none` (nothing to send), `running`, `failed`."""

    folder: Path
    what: str
    why: str = ""


def check_server() -> None:
    """Raise ConfigError where there is no key, or the server is out of reach."""
    if not wandb_key_configured():
        raise ConfigError("sync: there is no W&B key; `wandb login` or WANDB_API_KEY.")
    if not reachable(base_url()):
        raise ConfigError(f"sync: W&B ({base_url()}) is out of reach.")


def newest_log(folder: Path) -> Path | None:
    """The newest W&B folder of a run: a resumed run's begins with the epochs behind it, so it alone is whole."""
    found = [path for kind in ("run-*", "offline-run-*") for path in (folder / "wandb").glob(kind) if path.is_dir()]
    whole = [path for path in found if any(path.glob("*.wandb")) and not path.is_symlink()]
    return max(whole, key=lambda path: path.name.removeprefix("offline-"), default=None)


def is_sent(log: Path) -> bool:
    """Whether W&B's own mark says that all of it has been sent."""
    return any(log.glob("*.wandb.synced"))


def sync(folders: Sequence[Path], *, tell: Callable[[int], None] = lambda count: None) -> list[Sent]:
    """Send each run that has not been sent whole, to a server that was checked; `tell` hears how many are done."""
    found = []
    for folder in folders:
        found.append(_sync_one(folder))
        tell(len(found))
    return found


def _sync_one(folder: Path) -> Sent:
    log = newest_log(folder)
    if log is None:
        return Sent(folder, "none")
    if is_sent(log):
        return Sent(folder, "there")
    try:
        record = read_record(folder)
    except RecordError as error:
        return Sent(folder, "failed", str(error))
    if record.status == "running" and process_alive(record.environment.get("pid"), record.environment.get("host")):
        return Sent(folder, "running")
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", str(log)]
    environment = {**os.environ, "WANDB_DATA_DIR": os.environ.get("WANDB_DATA_DIR", str(folder / "wandb"))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        return Sent(folder, "failed", f"it took more than {TIMEOUT // 60} minutes")
    if done.returncode == 0 and is_sent(log):
        return Sent(folder, "sent")
    return Sent(folder, "failed", _reason(done.stdout + done.stderr))


def _reason(output: str) -> str:
    """The line of W&B's output that says why."""
    lines = [line.partition("wandb:")[2].strip() or line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if any(word in line.lower() for word in ("error", "fail", "denied", "not "))]
    return (said or lines or ["no word from W&B"])[-1][:200]
