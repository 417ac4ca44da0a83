"""What a run says of itself: before it starts, when it is done, and when it came to nothing."""

from __future__ import annotations

import hashlib
import itertools
import sys
import traceback
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.config.checks import THRESHOLDED
from headstart.config.identity import arm_hash, config_hash, job_key
from headstart.config.plain import to_plain
from headstart.config.schema.root import Config
from headstart.data.pictures import BAD_IMAGE
from headstart.environment import describe_determinism, describe_environment
from headstart.errors import DataError, HeadstartError, RunPruned
from headstart.preparation import Prepared
from headstart.records.atomic import write_text, write_with
from headstart.records.confusion import stored
from headstart.records.examples import EXAMPLES, ExampleTable, write_examples
from headstart.records.mistakes import errors_of
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, now, write_record
from headstart.records.tables import METRICS, PREDICTIONS, write_predictions
from headstart.records.thumbnails import THUMBNAILS, write_thumbnails
from headstart.redaction import redact
from headstart.source_code import patch
from headstart.training.checkpoints import digest_of, state_sha256, weights_sha256
from headstart.training.engine import Fitted
from headstart.training.metrics import DEFAULT_THRESHOLD, confusion, predicted_of, probabilities_of
from headstart.training.mistakes import choose_mistakes

PICTURE_SIDE = 96
"""Pixels of a kept picture's longer side."""

PATCH = "code.patch"
"""What was changed in Headstart's own code since the commit that the record names."""
FILES = (CONFIG, EXAMPLES, PATCH, METRICS, PREDICTIONS, THUMBNAILS)
"""Files of a run whose digests are in its record; the weights have digests of their own."""


def words_of(config: Config) -> list[str]:
    """The words of a run's name."""
    architecture = config.backbone.name.partition(".")[0]
    return [architecture, config.weights.source, config.strategy.name, config.data.source, f"s{config.seed}"]


def arm_of(config: Config) -> str:
    """What a run is, in a few words: backbone, weights and strategy."""
    return " ".join(words_of(config)[:3])


def key_of(prepared: Prepared) -> str:
    """The job key of a run."""
    sha256 = prepared.weights.sha256 if prepared.weights else ""
    return job_key(prepared.config, data_fingerprint=prepared.facts.fingerprint, weights_sha256=sha256)


def describe_run(
    prepared: Prepared,
    *,
    name: str,
    command: Sequence[str],
    launched_by: str | None = None,
    reproduces: str | None = None,
) -> RunRecord:
    """The record of a run that is about to start; raises DataError where its first images cannot be read."""
    config, facts, weights = prepared.config, prepared.facts, prepared.weights
    report, layers = prepared.built.report, prepared.built.layers
    of_penalties = prepared.of_penalties
    total = sum(group.size for group in layers.groups) + of_penalties
    trainable = prepared.plan.count_trainable(layers) + of_penalties
    sha256 = weights.sha256 if weights else None
    accelerator, threads = config.trainer.accelerator, config.trainer.threads or 1
    return RunRecord(
        id=name,
        status="running",
        launched_by=launched_by,
        reproduces=reproduces,
        config_hash=config_hash(config),
        job_key=key_of(prepared),
        arm=arm_hash(
            config,
            data_fingerprint=facts.fingerprint,
            weights_identity=(weights.arm or weights.sha256) if weights else "",
        ),
        seed=config.seed,
        split_seed=config.data.split_seed,
        fold=config.data.fold,
        command=[redact(word) for word in command],
        started=now(),
        config=to_plain(config),
        parameters={"total": total, "trainable": trainable, "frozen": total - trainable},
        plan=prepared.plan.to_plain(),
        weights={
            "source": config.weights.source,
            "origin": weights.origin if weights else None,
            "name": weights.name if weights else None,
            "file_sha256": sha256,
            "revision": weights.revision if weights else None,
            "initial_sha256": _initial_sha256(prepared),
            "matched": report.matched if report else 0,
            "missing": list(report.missing) if report else [],
            "unexpected": list(report.unexpected) if report else [],
        },
        data={
            "source": config.data.source,
            "task": facts.task,
            "fingerprint": facts.fingerprint,
            "split_fingerprint": facts.split_fingerprint,
            "order_fingerprint": prepared.data.order_fingerprint(),
            "first_images_sha256": prepared.data.first_images_sha256(),
            "sizes": dict(facts.sizes),
            "class_names": list(facts.class_names),
            "class_counts": {split: list(counts) for split, counts in facts.class_counts.items()},
            **(
                {"target_mean": list(facts.target_mean), "target_std": list(facts.target_std)}
                if facts.units
                else {}
            ),
            "skipped": list(facts.skipped),
            "transform": {
                "train": f"{prepared.data.augmentation or prepared.data.evaluation!r} {prepared.data.normalize!r}",
                "eval": " ".join(f"{prepared.data.evaluation.geometry} {prepared.data.normalize!r}".split()),
            },
        },
        environment=describe_environment(accelerator=accelerator, threads=threads, devices=config.trainer.devices),
        determinism=describe_determinism(deterministic=config.trainer.deterministic, accelerator=accelerator),
    )


def write_inputs(folder: Path, prepared: Prepared) -> None:
    """Write what a record cannot hold of what went in: every example, and what was changed in the code."""
    table = prepared.data.examples()
    if table is not None:
        _write_table(folder / EXAMPLES, table)
    if text := patch():
        kept = folder / PATCH
        if kept.is_file() and kept.read_text(encoding="utf-8", errors="replace") != text:
            # of before it was resumed
            kept.rename(next(p for i in itertools.count(1) if not (p := folder / f"code-{i}.patch").exists()))
        write_text(kept, text)


_files: dict[int, bytes] = {}
"""The file of each table that is still in use: of many runs on the same splits it is the same."""


def _write_table(path: Path, table: ExampleTable) -> None:
    known = _files.get(id(table))
    if known is not None:

        def write(temporary: Path) -> None:
            temporary.write_bytes(known)

        write_with(path, write)
        return
    write_examples(path, table)
    _files[id(table)] = path.read_bytes()
    weakref.finalize(table, _files.pop, id(table), None)


_digests: weakref.WeakKeyDictionary[torch.nn.Module, Any] = weakref.WeakKeyDictionary()
"""What `state_sha256` has come to behind a backbone that never trains."""


def _initial_sha256(prepared: Prepared) -> str:
    """`state_sha256` of the whole model; of runs that share a frozen backbone this is read once."""
    model = prepared.built.model
    if not prepared.together:
        return state_sha256(model.state_dict())
    if model.backbone not in _digests:
        state = model.backbone.state_dict()
        _digests[model.backbone] = digest_of({f"backbone.{name}": value for name, value in state.items()})
    head = {f"head.{name}": value for name, value in model.head.state_dict().items()}
    return str(digest_of(head, after=_digests[model.backbone]).hexdigest())


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 hex digests of the files of a run that are there."""
    return {name: _sha256(folder / name) for name in FILES if (folder / name).is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def complete(record: RunRecord, fitted: Fitted, folder: Path, prepared: Prepared) -> None:
    """Put what came out into the record, and the predictions beside it."""
    facts = prepared.facts
    record.metrics = {key: float(value) for key, value in fitted.metrics.items()}
    record.best = fitted.best
    record.drift = {key: value for key, value in fitted.drift.items() if key != "seconds"}
    if facts.task in THRESHOLDED:
        record.threshold = fitted.threshold
    if fitted.scores is not None and fitted.targets is not None:
        write = _numbers if facts.task == "regression" else _classes
        write(record, fitted.scores, fitted.targets, folder, prepared)
    record.final_weights = weights_sha256(folder)
    record.epochs, record.steps, record.stopped_by = fitted.epochs, fitted.steps, fitted.stopped_by
    record.seconds |= {"fit": round(fitted.fit_seconds, 3), "test": round(fitted.test_seconds, 3)}
    if fitted.features:
        record.features = {"prefix": fitted.features}
    if fitted.drift:
        record.seconds["drift"] = fitted.drift["seconds"]


def _classes(
    record: RunRecord, scores: torch.Tensor, targets: torch.Tensor, folder: Path, prepared: Prepared
) -> None:
    """Predictions, confusion and pictures where the test images have classes."""
    task = prepared.facts.task
    threshold = record.threshold or DEFAULT_THRESHOLD
    probabilities = probabilities_of(scores, task=task)
    predicted = predicted_of(scores, task=task, threshold=threshold).numpy()
    labels = targets.long().numpy()
    record.predictions_sha256 = write_predictions(
        folder / PREDICTIONS,
        ids=prepared.data.splits["test"].ids,
        targets=labels,
        predicted=predicted,
        probabilities=probabilities.float().numpy(),
    )
    record.confusion = {
        "split": "test",
        "layout": "tn, fp, fn, tp per class" if task == "multilabel" else "row = class, column = predicted",
        **stored(confusion(scores, targets, task=task, threshold=threshold)),
    }
    count = prepared.config.trainer.pictures
    _keep_pictures(folder, prepared, choose_mistakes(labels, predicted, probabilities.numpy(), count=count))


def _numbers(
    record: RunRecord, scores: torch.Tensor, targets: torch.Tensor, folder: Path, prepared: Prepared
) -> None:
    """Predictions and pictures where the targets are numbers; these as the data has them, not as float32."""
    split = prepared.data.splits["test"]
    exact = np.asarray(split.targets, dtype=np.float64).reshape(targets.shape)
    predicted = scores.float().numpy()
    record.predictions_sha256 = write_predictions(
        folder / PREDICTIONS, ids=split.ids, targets=exact, predicted=predicted
    )
    found = errors_of(exact, predicted.astype(np.float64), std=prepared.facts.target_std)
    _keep_pictures(folder, prepared, found.places[: prepared.config.trainer.pictures].tolist())


def _keep_pictures(folder: Path, prepared: Prepared, places: Sequence[int]) -> None:
    """Small pictures of mistakes; where one cannot be made, the run does without."""
    pictures = {}
    for place in places:
        with suppress(*BAD_IMAGE, DataError):
            name, image = prepared.data.thumbnail("test", place, side=PICTURE_SIDE)
            pictures[name] = image
    if pictures:
        write_thumbnails(folder / THUMBNAILS, pictures)


def fail(record: RunRecord, error: BaseException, folder: Path) -> None:
    """Write down that and why a run ended early, before anybody is told."""
    interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
    record.status = "interrupted" if interrupted else "pruned" if isinstance(error, RunPruned) else "failed"
    record.finished = now()
    if isinstance(error, HeadstartError):
        record.error = redact(str(error))
    elif not interrupted:
        record.error = redact("".join(traceback.format_exception(error)))
    try:
        write_record(folder, record)
    except OSError as trouble:
        print(f"{folder}: its record cannot be written ({trouble.strerror}).", file=sys.stderr, flush=True)
