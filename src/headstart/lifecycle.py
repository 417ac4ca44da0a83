"""What is common to every run, whoever fits it: its folder and record at the start, and how either ends."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from headstart.config.identity import config_hash
from headstart.config.paths import output_dir_of
from headstart.config.plain import read_config, to_plain
from headstart.config.schema.root import Config
from headstart.environment import earlier_environments, peak_memory, process_alive
from headstart.errors import ConfigError, DataError, RecordError, RunFailed
from headstart.preparation import Prepared, Rehearsal, prepare
from headstart.recording import (
    arm_of,
    complete,
    describe_run,
    fail,
    file_digests,
    key_of,
    words_of,
    write_inputs,
)
from headstart.records.amend import rewrite
from headstart.records.atomic import remove_leftovers, write_text
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, REPRODUCTIONS, RUNS, new_run_folder, now, read_record, write_record
from headstart.training.engine import Fitted, finish_checkpoints
from headstart.training.loggers import RunLogger, build_logger
from headstart.trouble import clear_disk_errors, refused, stopped_by_disk

Result = RunRecord | BaseException
"""What became of a run: its record, or what was raised."""


@dataclass
class Opened:
    """A run that has its folder, with a record that says `running`."""

    prepared: Prepared
    folder: Path
    record: RunRecord
    prune: Callable[[], bool] | None = None
    resumed: bool = False
    logger: RunLogger | None = None


def prepared_for(config: Config, *, rehearsal: Rehearsal | None = None) -> Prepared:
    """`prepare`, whose troubles with the machine are said in words."""
    try:
        return prepare(config, rehearsal=rehearsal)
    except (MemoryError, RuntimeError) as error:
        raise explained(error, config) or error from error


def open_run(
    prepared: Prepared,
    *,
    began: float,
    command: Sequence[str],
    launched_by: str | None = None,
    announce: Callable[[Path], None] | None = None,
    expected_key: str | None = None,
    prune: Callable[[], bool] | None = None,
    reproduces: str | None = None,
) -> Opened:
    """Make a run's folder and write down all that is known before it trains; the arguments are those of `run`.

    `began` is when its preparation did. Raises a HeadstartError, and then nothing is left behind.
    """
    config = prepared.config
    if expected_key is not None and key_of(prepared) != expected_key:
        raise DataError("the data, the weights or Headstart itself changed after this job was planned; plan anew.")
    kind = RUNS if reproduces is None else REPRODUCTIONS
    record = describe_run(prepared, name="", command=command, launched_by=launched_by, reproduces=reproduces)
    folder = new_run_folder(output_dir_of(config), words=words_of(config), digest=config_hash(config), kind=kind)
    record.id = folder.name
    record.seconds = {"setup": round(time.monotonic() - began, 3)}
    try:
        with clear_disk_errors(folder):
            text = yaml.dump(to_plain(config), Dumper=DUMPER, sort_keys=False, allow_unicode=True)
            write_text(folder / CONFIG, text)
            write_inputs(folder, prepared)
            write_record(folder, record)
    except ConfigError:
        shutil.rmtree(folder, ignore_errors=True)  # it has no record yet
        raise
    if announce:
        announce(folder)
    return Opened(prepared, folder, record, prune)


DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""LibYAML's where it is there: the same text in a tenth of the time."""


def reopen_run(
    folder: Path,
    *,
    alone: bool = False,
    prune: Callable[[], bool] | None = None,
    rehearsal: Rehearsal | None = None,
) -> Opened:
    """Take up an interrupted or failed run; the arguments are those of `resume`.

    Raises RecordError where the run has completed, is still running, or its data or weights have changed.
    """
    began = time.monotonic()
    before = read_record(folder)
    if before.status == "completed":
        raise RecordError(f"{folder}: this run has completed; there is nothing to resume.")
    pid, host = before.environment.get("pid"), before.environment.get("host")
    alive = not alone and before.status == "running" and process_alive(pid, host)
    if alive:
        raise RecordError(f"{folder}: this run is still running (process {before.environment['pid']}).")
    prepared = prepare(read_config(folder / CONFIG), rehearsal=rehearsal)
    facts = prepared.facts
    if facts.fingerprint != before.data.get("fingerprint"):
        raise DataError(f"{folder}: the data has changed since this run began; start a new run.")
    if (prepared.weights.sha256 if prepared.weights else None) != before.weights.get("file_sha256"):
        raise RecordError(f"{folder}: the weights have changed since this run began; start a new run.")
    remove_leftovers(folder)
    with clear_disk_errors(folder):
        write_inputs(folder, prepared)
    record = describe_run(
        prepared,
        name=folder.name,
        command=before.command,
        launched_by=before.launched_by,
        reproduces=before.reproduces,
    )
    record.started, record.logger = before.started, before.logger
    record.environment["earlier"] = earlier_environments(before.environment, record.environment)
    record.seconds = {"setup": round(time.monotonic() - began, 3)}
    with clear_disk_errors(folder):
        write_record(folder, record)
    return Opened(prepared, folder, record, prune, resumed=True)


def start_logger(opened: Opened) -> RunLogger | None:
    """Open the logger that the run asks for, and write down what it says of itself."""
    config, record = opened.prepared.config, opened.record
    opened.logger = build_logger(
        config.logger,
        folder=opened.folder,
        name=record.id,
        group=record.launched_by,
        arm=arm_of(config),
        config_plain=record.config,
        about=record.logger,
        again=opened.resumed and bool(opened.prepared.together),
    )
    record.logger = opened.logger.about() if opened.logger else {}
    return opened.logger


def write_result(opened: Opened, fitted: Fitted) -> None:
    """Write down what came out: predictions, pictures, and a record that says `completed`."""
    record, folder, prepared = opened.record, opened.folder, opened.prepared
    complete(record, fitted, folder, prepared)
    record.seconds["total"] = round(sum(record.seconds.values()), 3)
    record.peak_memory = peak_memory(prepared.config.trainer.accelerator)
    record.files = file_digests(folder)
    record.status, record.finished = "completed", now()
    write_record(folder, record)


def end_well(opened: Opened) -> RunRecord:
    """After the result is written: drop what only a resume needs, and let the logger finish."""
    record = opened.record
    finish_checkpoints(opened.folder)
    if opened.logger:
        opened.logger.finish(record, failed=False)
        if opened.logger.about() != record.logger:
            record.logger = opened.logger.about()
            rewrite(opened.folder, record)
    return record


def end_badly(opened: Opened, error: BaseException) -> BaseException:
    """Write down that and why a run came to nothing; returns what is to be raised."""
    known = stopped_by_disk(error, opened.folder) or explained(error, opened.prepared.config)
    fail(opened.record, known or error, opened.folder)
    if opened.logger:
        opened.logger.finish(opened.record, failed=opened.record.status != "pruned")
    if opened.record.status == "interrupted":
        return KeyboardInterrupt()
    return known or error


def explained(error: BaseException, config: Config) -> RunFailed | None:
    """The sentence for what the machine refused; None where it is something else."""
    size = config.data.image_size
    return refused(
        error,
        batch_size=config.data.batch_size,
        size=(size[0], size[1]) if isinstance(size, list) else (size or 0, size or 0),
        gpu=config.trainer.accelerator == "gpu",
        precision=config.trainer.precision,
    )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: record written, checkpoint kept."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before: Any = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
