"""One run, read from top to bottom: check, build, train, test, write down."""

from __future__ import annotations

import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from headstart.config.identity import arm_hash, config_hash, job_key
from headstart.config.plain import read_config, to_plain
from headstart.config.schema.logger import SteppedConfig
from headstart.config.schema.root import Config
from headstart.data import ImageDataModule, load_data
from headstart.data.transforms import describe
from headstart.environment import describe_determinism, describe_environment, peak_memory, process_alive
from headstart.errors import ConfigError, DataError, HeadstartError, RecordError, RunFailed
from headstart.facts import DataFacts
from headstart.models.classifier import Built, build_classifier
from headstart.models.weights import WeightsFile, locate_weights
from headstart.records.atomic import write_text
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, check_writable, new_run_folder, now, read_record, write_record
from headstart.records.tables import PREDICTIONS, write_predictions
from headstart.resolve import resolve, resolve_for_data, spec_of
from headstart.strategies import TrainingPlan, build_plan
from headstart.training import fit
from headstart.training.engine import Budget, Fitted, finish_checkpoints
from headstart.training.loggers import RunLogger, build_logger, check_logger
from headstart.training.losses import build_loss
from headstart.training.metrics import confusion
from headstart.training.module import TransferModule
from headstart.training.schedules import Factor, build_factor


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing is on disk yet."""

    config: Config
    data: ImageDataModule
    built: Built
    plan: TrainingPlan
    factor: Factor
    budget: Budget
    weights: WeightsFile | None

    @property
    def facts(self) -> DataFacts:
        """What the data says of itself."""
        return self.data.facts


def prepare(config: Config) -> Prepared:
    """Find the weights, read the data, build the model and the plan.

    Raises a HeadstartError for any mistake that a person could have made; leaves nothing behind.
    """
    check_writable(Path(config.output_dir).expanduser())
    check_logger(config.logger)
    config = resolve(config)
    threads = config.trainer.threads or 1
    torch.set_num_threads(threads)
    name, library = config.backbone.name, config.backbone.library
    weights = locate_weights(config.weights, name=name, library=library)
    spec = spec_of(config)
    data = load_data(config.data, spec, seed=config.seed, threads=threads, num_workers=config.data.num_workers or 0)
    config = resolve_for_data(config, data.facts)
    built = build_classifier(
        name=name,
        library=library,
        head=config.head,
        classes=data.facts.num_classes,
        channels=config.data.channels,
        size=spec.size,
        weights=weights,
        seed=config.seed,
    )
    plan = build_plan(config.strategy, built.layers)
    per_epoch = data.steps_per_epoch
    total = config.trainer.max_steps or (config.trainer.max_epochs or 1) * per_epoch
    factor = build_factor(config.schedule, total_steps=total, steps_per_epoch=per_epoch)
    build_loss(config.loss, data.facts)  # a list of class weights of the wrong length is said now
    budget = Budget(total, per_epoch, config.trainer.max_time, config.trainer.early_stopping_patience)
    return Prepared(config, data, built, plan, factor, budget, weights)


def run(
    config: Config,
    *,
    command: Sequence[str] = (),
    launched_by: str | None = None,
    announce: Callable[[Path], None] | None = None,
) -> tuple[Path, RunRecord]:
    """Run one experiment; return its folder and record. `announce` is told the folder as soon as there is one.

    Raises a HeadstartError before anything is written for a mistake, RunFailed where training came to
    nothing: its record says so.
    """
    if config.sweep.list or config.sweep.grid:
        raise ConfigError("this experiment is a sweep of several runs: add -m to run it.")
    began = time.monotonic()
    prepared = prepare(config)
    config = prepared.config
    folder = new_run_folder(
        Path(config.output_dir).expanduser(), words=words_of(config), digest=config_hash(config)
    )
    write_text(folder / CONFIG, yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))
    record = describe_run(prepared, folder=folder, command=command, launched_by=launched_by)
    write_record(folder, record)
    if announce:
        announce(folder)
    return folder, _train(prepared, folder, record, began=began, resume=False)


def resume(folder: Path) -> RunRecord:
    """Go on with an interrupted or failed run, from its last checkpoint or, without one, from the start.

    Raises RecordError where the run has completed, is still running, or its data or weights have changed.
    """
    began = time.monotonic()
    before = read_record(folder)
    if before.status == "completed":
        raise RecordError(f"{folder}: this run has completed; there is nothing to resume.")
    if process_alive(before.environment.get("pid"), before.environment.get("host")):
        raise RecordError(f"{folder}: this run is still running (process {before.environment['pid']}).")
    prepared = prepare(read_config(folder / CONFIG))
    facts = prepared.facts
    if facts.fingerprint != before.data.get("fingerprint"):
        raise DataError(f"{folder}: the data has changed since this run began; start a new run.")
    if (prepared.weights.sha256 if prepared.weights else None) != before.weights.get("file_sha256"):
        raise RecordError(f"{folder}: the weights have changed since this run began; start a new run.")
    record = describe_run(prepared, folder=folder, command=before.command, launched_by=before.launched_by)
    record.started, record.logger = before.started, before.logger
    return _train(prepared, folder, record, began=began, resume=True)


def words_of(config: Config) -> list[str]:
    """The words of a run's name."""
    architecture = config.backbone.name.partition(".")[0]
    return [architecture, config.weights.source, config.strategy.name, config.data.source, f"s{config.seed}"]


def describe_run(prepared: Prepared, *, folder: Path, command: Sequence[str], launched_by: str | None) -> RunRecord:
    """The record of a run that is about to start."""
    config, facts, weights = prepared.config, prepared.facts, prepared.weights
    report, layers = prepared.built.report, prepared.built.layers
    total = sum(group.size for group in layers.groups)
    trainable = prepared.plan.count_trainable(layers)
    sha256 = weights.sha256 if weights else None
    accelerator, threads = config.trainer.accelerator, config.trainer.threads or 1
    return RunRecord(
        id=folder.name,
        status="running",
        launched_by=launched_by,
        config_hash=config_hash(config),
        job_key=job_key(config, data_fingerprint=facts.fingerprint, weights_sha256=sha256 or ""),
        arm=arm_hash(
            config,
            data_fingerprint=facts.fingerprint,
            weights_identity=(weights.arm or weights.sha256) if weights else "",
        ),
        seed=config.seed,
        split_seed=config.data.split_seed,
        command=list(command),
        started=now(),
        config=to_plain(config),
        parameters={"total": total, "trainable": trainable, "frozen": total - trainable},
        weights={
            "source": config.weights.source,
            "origin": weights.origin if weights else None,
            "name": weights.name if weights else None,
            "file_sha256": sha256,
            "matched": report.matched if report else 0,
            "missing": list(report.missing) if report else [],
            "unexpected": list(report.unexpected) if report else [],
        },
        data={
            "source": config.data.source,
            "task": facts.task,
            "fingerprint": facts.fingerprint,
            "split_fingerprint": facts.split_fingerprint,
            "sizes": dict(facts.sizes),
            "class_names": list(facts.class_names),
            "class_counts": {split: list(counts) for split, counts in facts.class_counts.items()},
            "skipped": list(facts.skipped),
            "transform": {
                "train": describe(prepared.data.train_geometry, prepared.data.normalize),
                "eval": describe(prepared.data.eval_geometry, prepared.data.normalize),
            },
        },
        environment=describe_environment(accelerator=accelerator, threads=threads),
        determinism=describe_determinism(deterministic=config.trainer.deterministic, accelerator=accelerator),
    )


def _train(prepared: Prepared, folder: Path, record: RunRecord, *, began: float, resume: bool) -> RunRecord:
    config = prepared.config
    record.seconds = {"setup": round(time.monotonic() - began, 3)}
    write_record(folder, record)
    logger: RunLogger | None = None
    try:
        with _termination():
            logger = build_logger(
                config.logger,
                folder=folder,
                name=record.id,
                group=record.launched_by,
                arm=f"{config.weights.source}-{config.strategy.name}",
                config_plain=record.config,
                about=record.logger,
            )
            record.logger = logger.about() if logger else {}
            write_record(folder, record)
            fitted = _fit(prepared, folder, logger, resume=resume)
            _complete(record, fitted, folder, prepared)
    except BaseException as error:
        _failed(record, error, folder)
        if logger:
            logger.finish(dict(record.metrics), failed=True)
        if record.status == "interrupted":
            raise KeyboardInterrupt from error
        raise
    finally:
        gc.collect()
    record.seconds["total"] = round(time.monotonic() - began, 3)
    record.peak_memory = peak_memory(config.trainer.accelerator)
    if logger:
        summary = {**record.metrics, **{f"parameters/{k}": v for k, v in record.parameters.items()}}
        summary |= {f"seconds/{k}": v for k, v in record.seconds.items()}
        summary |= {f"best/{k}": v for k, v in record.best.items()} | {"arm": record.arm, "run_id": record.id}
        logger.finish(summary, failed=False)
        record.logger = logger.about()
    record.status, record.finished = "completed", now()
    write_record(folder, record)
    finish_checkpoints(folder)
    return record


def _fit(prepared: Prepared, folder: Path, logger: RunLogger | None, *, resume: bool) -> Fitted:
    config = prepared.config
    module = TransferModule(
        prepared.built.model,
        layers=prepared.built.layers,
        plan=prepared.plan,
        loss=build_loss(config.loss, prepared.facts),
        optimizer=config.optimizer,
        factor=prepared.factor,
        task=prepared.facts.task,
        seed=config.seed,
    )
    return fit(
        module,
        prepared.data,
        folder=folder,
        budget=prepared.budget,
        accelerator=config.trainer.accelerator,
        precision=config.trainer.precision,
        deterministic=config.trainer.deterministic,
        gradient_clip_val=config.trainer.gradient_clip_val,
        monitor=config.trainer.monitor,
        tested=config.trainer.checkpoint,
        progress=config.trainer.progress,
        loggers=[logger] if logger else [],
        every_n_steps=config.logger.every_n_steps if isinstance(config.logger, SteppedConfig) else None,
        resume=resume,
    )


def _complete(record: RunRecord, fitted: Fitted, folder: Path, prepared: Prepared) -> None:
    """Put what came out into the record, and the predictions beside it."""
    facts = prepared.facts
    scores = fitted.scores.double()
    probabilities = scores.softmax(dim=1) if facts.task == "multiclass" else scores.sigmoid()
    record.predictions_sha256 = write_predictions(
        folder / PREDICTIONS,
        ids=prepared.data.splits["test"].ids,
        targets=fitted.targets.long().numpy(),
        probabilities=probabilities.float().numpy(),
    )
    record.metrics = {key: float(value) for key, value in fitted.metrics.items()}
    record.best = fitted.best
    record.confusion = {
        "split": "test",
        "layout": "row = class, column = predicted" if facts.task == "multiclass" else "tn, fp, fn, tp per class",
        "counts": confusion(fitted.scores, fitted.targets, task=facts.task),
    }
    record.epochs, record.steps, record.stopped_by = fitted.epochs, fitted.steps, fitted.stopped_by
    record.seconds |= {"fit": round(fitted.fit_seconds, 3), "test": round(fitted.test_seconds, 3)}


def _failed(record: RunRecord, error: BaseException, folder: Path) -> None:
    """Write down that and why a run ended early, before anybody is told."""
    interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
    record.status = "interrupted" if interrupted else "failed"
    record.finished = now()
    if isinstance(error, HeadstartError):
        record.error = str(error)
    elif not interrupted:
        record.error = "".join(traceback.format_exception(error))
    try:
        write_record(folder, record)
    except OSError as trouble:
        print(f"{folder}: its record cannot be written ({trouble.strerror}).", file=sys.stderr, flush=True)


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


__all__ = ["Prepared", "RunFailed", "prepare", "resume", "run"]
