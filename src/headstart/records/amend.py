"""Adding to the record of a run that is done, while others may be adding to it as well."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from headstart.errors import RecordError
from headstart.records.atomic import write_json
from headstart.records.evaluations import predictions_name
from headstart.records.schema import RunRecord
from headstart.records.store import RECORD, read_record, write_record
from headstart.records.tables import write_predictions

LOCK = ".record.lock"


@dataclass(frozen=True)
class Predicted:
    """What a model said of further images, as `write_predictions` takes it."""

    ids: list[str]
    targets: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32] | None


@contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Nobody else adds to the record of this run meanwhile; whoever does so waits."""
    with FileLock(folder / LOCK):
        yield


def rewrite(folder: Path, record: RunRecord) -> None:
    """Write the record of a run that was completed before, with what it was evaluated on meanwhile."""
    with alone_with(folder):
        record.evaluations = read_record(folder).evaluations
        write_record(folder, record)


def add_evaluations(
    folder: Path,
    entries: Mapping[str, Mapping[str, Any]],
    *,
    predicted: Mapping[str, Predicted],
    again: bool = False,
) -> None:
    """Put `entries` into the `evaluations` of a run's record, all or none, and their predictions beside it.

    Everything else in the record stays as it is. Raises RecordError where one of the names is taken, unless
    `again`: then it is replaced.
    """
    with alone_with(folder):
        read_record(folder)  # says what is wrong with it
        value = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        there = dict(value.get("evaluations") or {})
        if not again and (taken := [name for name in entries if name in there]):
            raise RecordError(f"{folder}: has an evaluation {taken[0]} already; --again replaces it.")
        replaced = [name for name in predicted if there.get(name, {}).get("predictions")]
        if replaced:  # until the new ones are all there, none are said to be
            for name in replaced:
                there[name] = {**there[name], "predictions": None}
            write_json(folder / RECORD, {**value, "evaluations": there})
        for name, entry in entries.items():
            there[name] = {**entry, "predictions": None}
            if name in predicted:
                of = predicted[name]
                digest = write_predictions(
                    folder / predictions_name(name),
                    ids=of.ids,
                    targets=of.targets,
                    predicted=of.predicted,
                    probabilities=of.probabilities,
                )
                there[name]["predictions"] = {"file": predictions_name(name), "sha256": digest}
        write_json(folder / RECORD, {**value, "evaluations": there})
        for name in entries:
            if name not in predicted:  # of a name that was replaced without them
                (folder / predictions_name(name)).unlink(missing_ok=True)
