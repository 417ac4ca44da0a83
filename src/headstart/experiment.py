"""One run, read from top to bottom: check, build, train, test, write down."""

from __future__ import annotations

import gc
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from headstart.assembly import machine_of, module_of
from headstart.config.identity import config_hash
from headstart.config.paths import output_dir_of
from headstart.config.plain import read_config, to_plain
from headstart.config.schema.logger import SteppedConfig
from headstart.config.schema.root import Config
from headstart.environment import earlier_environments, peak_memory, process_alive
from headstart.errors import ConfigError, DataError, RecordError, RunFailed
from headstart.measuring import measure
from headstart.preparation import Prepared, prepare
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
from headstart.redaction import redacted_output, show_traceback
from headstart.training import fit
from headstart.training.distributed import READY, other_ranks
from headstart.training.engine import Fitted, finish_checkpoints, fit_along
from headstart.training.loggers import RunLogger, build_logger
from headstart.trouble import clear_disk_errors, refused, stopped_by_disk


def run(
    config: Config,
    *,
    command: Sequence[str] = (),
    launched_by: str | None = None,
    announce: Callable[[Path], None] | None = None,
    expected_key: str | None = None,
    prune: Callable[[], bool] | None = None,
    reproduces: str | None = None,
    prepared: Prepared | None = None,
) -> tuple[Path, RunRecord]:
    """Run one experiment; return its folder and record. `announce` is told the folder as soon as there is one.

    `expected_key` is the job key that the run must have, where it was planned before. A run that `reproduces`
    another lies in a folder of its own, beside the results; `prepared` is what `config` was prepared to already.
    Raises a HeadstartError before anything is written for a mistake, RunFailed where training came to nothing,
    RunPruned where `prune`, asked after each validation, said so: its record says so too.
    """
    if config.sweep.has_jobs:
        raise ConfigError("this experiment is a sweep of several runs: add -m to run it.")
    began = time.monotonic()
    try:
        prepared = measure(prepared or prepare(config))
    except (MemoryError, RuntimeError) as error:
        raise explained(error, config) or error from error
    config = prepared.config
    if expected_key is not None and key_of(prepared) != expected_key:
        raise DataError("the data, the weights or Headstart itself changed after this job was planned; plan anew.")
    kind = RUNS if reproduces is None else REPRODUCTIONS
    record = describe_run(prepared, name="", command=command, launched_by=launched_by, reproduces=reproduces)
    folder = new_run_folder(output_dir_of(config), words=words_of(config), digest=config_hash(config), kind=kind)
    record.id = folder.name
    try:
        with clear_disk_errors(folder):
            write_text(folder / CONFIG, yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))
            write_inputs(folder, prepared)
            write_record(folder, record)
    except ConfigError:
        shutil.rmtree(folder, ignore_errors=True)  # it has no record yet
        raise
    if announce:
        announce(folder)
    return folder, _train(prepared, folder, record, began=began, resume=False, prune=prune)


def resume(folder: Path, *, alone: bool = False, prune: Callable[[], bool] | None = None) -> RunRecord:
    """Go on with an interrupted or failed run, from its last checkpoint or, without one, from the start.

    `alone` says that no other process can be at it, whatever its record says; `prune` is as for `run`. Raises
    RecordError where the run has completed, is still running, or its data or weights have changed.
    """
    began = time.monotonic()
    before = read_record(folder)
    if before.status == "completed":
        raise RecordError(f"{folder}: this run has completed; there is nothing to resume.")
    pid, host = before.environment.get("pid"), before.environment.get("host")
    alive = not alone and before.status == "running" and process_alive(pid, host)
    if alive:
        raise RecordError(f"{folder}: this run is still running (process {before.environment['pid']}).")
    prepared = prepare(read_config(folder / CONFIG))
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
    return _train(prepared, folder, record, began=began, resume=True, prune=prune)


def _train(
    prepared: Prepared,
    folder: Path,
    record: RunRecord,
    *,
    began: float,
    resume: bool,
    prune: Callable[[], bool] | None,
) -> RunRecord:
    config = prepared.config
    record.seconds = {"setup": round(time.monotonic() - began, 3)}
    with clear_disk_errors(folder):
        write_record(folder, record)
    logger: RunLogger | None = None
    try:
        with _termination():
            logger = build_logger(
                config.logger,
                folder=folder,
                name=record.id,
                group=record.launched_by,
                arm=arm_of(config),
                config_plain=record.config,
                about=record.logger,
            )
            record.logger = logger.about() if logger else {}
            write_record(folder, record)
            record.seconds["decode"] = _decode(prepared)
            fitted = _fit(prepared, folder, logger, resume=resume, prune=prune)
            complete(record, fitted, folder, prepared)
            record.seconds["total"] = round(sum(record.seconds.values()), 3)
            record.peak_memory = peak_memory(config.trainer.accelerator)
            record.files = file_digests(folder)
            record.status, record.finished = "completed", now()
            write_record(folder, record)
    except BaseException as error:
        known = stopped_by_disk(error, folder) or explained(error, config)
        fail(record, known or error, folder)
        if logger:
            logger.finish(record, failed=record.status != "pruned")
        if record.status == "interrupted":
            raise KeyboardInterrupt from error
        if known:
            raise known from error
        raise
    finally:
        gc.collect()  # Lightning leaves cycles that hold the model; a notebook runs many
    finish_checkpoints(folder)
    if logger:
        logger.finish(record, failed=False)
        record.logger = logger.about()
        rewrite(folder, record)
    return record


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


def _decode(prepared: Prepared) -> float:
    """Seconds that it took to decode what no run had decoded yet."""
    began, trainer = time.monotonic(), prepared.config.trainer
    prepared.data.warm(threads=trainer.threads or 1, test=trainer.test)
    return round(time.monotonic() - began, 3)


def _fit(
    prepared: Prepared,
    folder: Path,
    logger: RunLogger | None,
    *,
    resume: bool,
    prune: Callable[[], bool] | None,
) -> Fitted:
    config = prepared.config
    with other_ranks(folder, devices=config.trainer.devices, resume=resume):
        return fit(
            module_of(prepared),
            prepared.data,
            folder=folder,
            budget=prepared.budget,
            machine=machine_of(config),
            gradient_clip_val=config.trainer.gradient_clip_val,
            monitor=config.trainer.monitor,
            tested=config.trainer.checkpoint,
            test=config.trainer.test,
            progress=config.trainer.progress,
            loggers=[logger] if logger else [],
            every_n_steps=config.logger.every_n_steps if isinstance(config.logger, SteppedConfig) else None,
            resume=resume,
            prune=prune,
            drift=config.weights.source != "scratch",
        )


def train_rank(folder: str, *, resume: bool) -> None:
    """In a process of its own: train along with the run in `folder`, from the config that is frozen there."""
    try:
        with suppress(KeyboardInterrupt), redacted_output():
            prepared = prepare(read_config(Path(folder) / CONFIG))
            print(READY, flush=True)
            fit_along(
                module_of(prepared),
                prepared.data,
                folder=Path(folder),
                budget=prepared.budget,
                machine=machine_of(prepared.config),
                gradient_clip_val=prepared.config.trainer.gradient_clip_val,
                monitor=prepared.config.trainer.monitor,
                resume=resume,
            )
    except Exception as error:
        show_traceback(error)
        sys.exit(1)


@contextmanager
def _termination() -> Iterator[None]:
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
