"""Runs whose heads alone train: fitted on features that are computed once, any number of them in one process.

Each has its own folder, record and logger, and whatever becomes of one is its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from headstart.config.head_checks import GRADIENT, solver_of
from headstart.config.paths import cache_dir
from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.logger import SteppedConfig
from headstart.features.bank import FeatureBank, open_bank
from headstart.features.course import Course, HeadFit, Solver
from headstart.features.engine import fit_together
from headstart.lifecycle import Opened, Result, end_badly, end_well, ended_by_sigterm, start_logger, write_result
from headstart.preparation import Prepared
from headstart.records.store import write_record
from headstart.records.tables import METRICS
from headstart.strategies.plan import HEAD
from headstart.training.checkpoints import save_frozen
from headstart.training.engine import Fitted
from headstart.training.losses import build_terms, class_weights


def fit_heads(runs: Sequence[Opened]) -> list[Result]:
    """Fit the heads of runs and write down what comes of each; returns that in their order.

    Those that share their features are fitted at the same time. Where this process is asked to stop, all that have
    not ended are `interrupted`, and KeyboardInterrupt is their result.
    """
    results: dict[int, Result] = {}
    try:
        with ended_by_sigterm():
            groups: dict[str, list[int]] = {}
            for place, run in enumerate(runs):
                groups.setdefault(run.prepared.together, []).append(place)
            for places in groups.values():
                try:
                    _Group([runs[place] for place in places], places, results, live=len(runs) == 1).fit()
                except Exception as error:  # no head's own: other groups go on
                    _end_left(runs, places, results, error)
    except BaseException as error:
        _end_left(runs, range(len(runs)), results, error)
    return [results[place] for place in range(len(runs))]


def _end_left(
    runs: Sequence[Opened], places: Sequence[int], results: dict[int, Result], error: BaseException
) -> None:
    """Let those of some runs that are not over come to nothing."""
    for place in places:
        if place not in results:
            try:
                results[place] = end_badly(runs[place], error)
            except Exception as trouble:
                results[place] = trouble


class _Group:
    """Runs that share their features; `results` are by place."""

    def __init__(
        self, runs: Sequence[Opened], places: Sequence[int], results: dict[int, Result], *, live: bool
    ) -> None:
        self.runs, self.places, self.results, self.live = runs, places, results, live
        self.bank = bank_of(runs[0].prepared)
        self.frozen: Path | None = None
        """Where the backbone of these runs has been written already."""

    def fit(self) -> None:
        """Fit them all."""
        config = self.runs[0].prepared.config
        ready, fits = [], []
        seen: set[tuple[str, int | None]] = set()
        for place, run in enumerate(self.runs):
            try:
                if run.resumed:  # it begins again
                    (run.folder / METRICS).unlink(missing_ok=True)
                if self.live and start_logger(run) is not None:
                    write_record(run.folder, run.record)
                run.record.seconds["decode"] = self._decode(run.prepared, seen)
                fits.append(_fit_of(run, live=self.live))
                ready.append(place)
            except Exception as error:
                self._end(place, error, None)

        def done(place: int, outcome: Fitted | Exception, course: Course) -> None:
            self._end(ready[place], outcome, course)

        fit_together(
            fits, self.bank, device=self.bank.device, progress=config.trainer.progress, live=self.live, done=done
        )

    def _decode(self, prepared: Prepared, seen: set[tuple[str, int | None]]) -> float:
        """Seconds that it took to decode what no run had decoded yet, where features of it are missing."""
        began, trainer, views = time.monotonic(), prepared.config.trainer, prepared.config.features.views
        images = (prepared.facts.split_fingerprint, prepared.config.seed if views else None)
        if images not in seen:
            seen.add(images)
            names = ["train", "val", *(["test"] if trainer.test else [])]
            if self.bank.missing(prepared.data, names, views=views):
                prepared.data.warm(threads=trainer.threads or 1, test=trainer.test)
        return round(time.monotonic() - began, 3)

    def _end(self, place: int, outcome: Fitted | Exception, course: Course | None) -> None:
        """Write down what came of a run."""
        run = self.runs[place]
        try:
            if not self.live and course is not None and (logger := start_logger(run)) is not None:
                logger.whole(course.all_rows())
            if isinstance(outcome, Exception):
                if course is not None:
                    course.keep_rows()
                raise outcome
            state = run.prepared.built.model.backbone.state_dict()
            self.frozen = save_frozen(
                run.folder, {f"backbone.{name}": value for name, value in state.items()}, like=self.frozen
            )
            solver = {"solver": course.about} if course and course.about else {}
            run.record.features = {**self.bank.about(), "heads": len(self.runs), **solver}
            run.record.seconds["features"] = round(course.reading, 3) if course else 0.0
            write_result(run, outcome)
        except Exception as error:
            self.results[self.places[place]] = end_badly(run, error)
            return
        self.results[self.places[place]] = run.record  # completed, whatever comes now
        try:
            end_well(run)
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            print(f"{run.folder}: completed, but could not be tidied up ({why}).", file=sys.stderr, flush=True)


def bank_of(prepared: Prepared) -> FeatureBank:
    """The features of a prepared run's backbone, as it is now."""
    config = prepared.config
    return open_bank(
        prepared.built.model.backbone,
        name=config.backbone.name,
        library=config.backbone.library,
        pool=config.head.pool,
        precision=config.trainer.precision,
        device=torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu"),
        batch_size=config.features.batch_size,
        dtype=config.features.dtype,
        cache=cache_dir() if config.features.cache else None,
        cache_gb=config.features.cache_gb,
    )


def _fit_of(run: Opened, *, live: bool) -> HeadFit:
    prepared, config = run.prepared, run.prepared.config
    plan = prepared.plan
    return HeadFit(
        head=cast(torch.nn.Sequential, prepared.built.model.head),
        data=prepared.data,
        terms=build_terms(config.loss, prepared.facts),
        loss=repr(config.loss),
        optimizer=config.optimizer,
        factor=prepared.factor,
        multiple=lambda step: plan.at(step).rates[HEAD],
        budget=prepared.budget,
        clip=config.trainer.gradient_clip_val,
        seed=config.seed,
        refit=config.data.refit_on_val,
        threshold=config.trainer.threshold,
        monitor=config.trainer.monitor,
        tested=config.trainer.checkpoint,
        test=config.trainer.test,
        folder=run.folder,
        views=config.features.views,
        loggers=[run.logger] if live and run.logger else [],
        every_n_steps=config.logger.every_n_steps if isinstance(config.logger, SteppedConfig) else None,
        prune=run.prune,
        drift=config.weights.source != "scratch",
        solver=_solver_of(prepared),
    )


def _solver_of(prepared: Prepared) -> Solver | None:
    config = prepared.config
    if solver_of(config) == GRADIENT:
        return None
    assert isinstance(config.head, LinearHeadConfig)
    weights = class_weights(config.loss.class_weights, prepared.facts)
    return Solver(config.head, weights, config.loss.label_smoothing)
