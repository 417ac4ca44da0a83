"""One run, read from top to bottom: check, build, train, test, write down."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.assembly import machine_of, module_of
from headstart.config.plain import read_config
from headstart.config.schema.logger import SteppedConfig
from headstart.config.schema.root import Config
from headstart.errors import ConfigError
from headstart.lifecycle import (
    Opened,
    Result,
    end_badly,
    end_well,
    ended_by_sigterm,
    explained,
    open_run,
    prepared_for,
    reopen_run,
    start_logger,
    write_result,
)
from headstart.measuring import measure
from headstart.preparation import Prepared, Rehearsal, prepare
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, write_record
from headstart.redaction import redacted_output, show_traceback
from headstart.together import fit_heads
from headstart.training import fit
from headstart.training.distributed import READY, other_ranks
from headstart.training.engine import Fitted, fit_along
from headstart.training.loggers import RunLogger

__all__ = ["Asked", "explained", "resume", "run", "run_together", "train_rank"]


@dataclass(frozen=True)
class Asked:
    """A run that is asked for together with others; as in `run`."""

    config: Config
    command: Sequence[str] = ()
    launched_by: str | None = None
    announce: Callable[[Path], None] | None = None
    expected_key: str | None = None
    prune: Callable[[], bool] | None = None
    resumes: Path | None = None
    """The folder of an interrupted run that goes on; `config`, `command`, `launched_by` and the key are its own."""


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
    opened = open_run(
        measure(prepared or prepared_for(config)),
        began=began,
        command=command,
        launched_by=launched_by,
        announce=announce,
        expected_key=expected_key,
        prune=prune,
        reproduces=reproduces,
    )
    return opened.folder, _carry_out(opened)


def resume(folder: Path, *, alone: bool = False, prune: Callable[[], bool] | None = None) -> RunRecord:
    """Go on with an interrupted or failed run, from its last checkpoint or, without one, from the start.

    `alone` says that no other process can be at it, whatever its record says; `prune` is as for `run`. Raises
    RecordError where the run has completed, is still running, or its data or weights have changed.
    """
    return _carry_out(reopen_run(folder, alone=alone, prune=prune))


def run_together(asked: Sequence[Asked]) -> list[RunRecord | BaseException]:
    """Run experiments, the heads of those that share frozen features at the same time (`Prepared.together`).

    Returns a record or what was raised for each, in the order asked; each failure is that run's alone. Where this
    process is asked to stop, all that have not ended become `interrupted`, and KeyboardInterrupt stands for them.
    What is not fitted on features is run by itself.
    """
    results: dict[int, Result] = {}
    opened: dict[int, Opened] = {}
    alone: list[int] = []
    rehearsal = Rehearsal(runs=True)
    try:
        for place, one in enumerate(asked):
            try:
                found = _open(one, rehearsal)
            except Exception as error:
                results[place] = error
                continue
            if found is None:
                alone.append(place)
            else:
                opened[place] = found
        results |= dict(zip(opened, fit_heads(list(opened.values())), strict=True))
        for place in alone:
            if any(isinstance(result, KeyboardInterrupt) for result in results.values()):
                break
            results[place] = _by_itself(asked[place])
    except KeyboardInterrupt as error:
        for place, found in opened.items():
            if place not in results:
                results[place] = end_badly(found, error)
    return [results[place] if place in results else KeyboardInterrupt() for place in range(len(asked))]


def _open(one: Asked, rehearsal: Rehearsal) -> Opened | None:
    """Open a run beside others; None where it is not fitted on features."""
    if one.resumes is not None:
        found = reopen_run(one.resumes, alone=True, prune=one.prune, rehearsal=rehearsal)
        if not found.prepared.together:
            return None
        if one.announce:
            one.announce(one.resumes)
        return found
    began = time.monotonic()
    prepared = prepared_for(one.config, rehearsal=rehearsal)
    if not prepared.together:
        return None
    return open_run(
        prepared,
        began=began,
        command=one.command,
        launched_by=one.launched_by,
        announce=one.announce,
        expected_key=one.expected_key,
        prune=one.prune,
    )


def _by_itself(one: Asked) -> Result:
    try:
        if one.resumes is not None:
            if one.announce:
                one.announce(one.resumes)
            return resume(one.resumes, alone=True, prune=one.prune)
        return run(
            one.config,
            command=one.command,
            launched_by=one.launched_by,
            announce=one.announce,
            expected_key=one.expected_key,
            prune=one.prune,
        )[1]
    except (Exception, KeyboardInterrupt) as error:
        return error


def _carry_out(opened: Opened) -> RunRecord:
    """Fit a run that is open, and write down what comes of it."""
    if not opened.prepared.together:
        return _train(opened)
    (result,) = fit_heads([opened])
    if isinstance(result, BaseException):
        raise result
    return result


def _train(opened: Opened) -> RunRecord:
    prepared, folder, record = opened.prepared, opened.folder, opened.record
    try:
        with ended_by_sigterm():
            start_logger(opened)
            write_record(folder, record)
            record.seconds["decode"] = _decode(prepared)
            fitted = _fit(prepared, folder, opened.logger, resume=opened.resumed, prune=opened.prune)
            write_result(opened, fitted)
    except BaseException as error:
        said = end_badly(opened, error)
        if said is error:
            raise
        raise said from error
    finally:
        gc.collect()  # Lightning leaves cycles that hold the model; a notebook runs many
    return end_well(opened)


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
