"""What a run came to on further test sets: the `evaluations` of its record, and their metrics by name.

An evaluation is called by its data (`stl10`) or, of spoilt copies of the run's own test split, by corruption and
severity (`fog-3`). Its metrics are known as `test@stl10/accuracy_micro` wherever those of the run are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.errors import ConfigError, RecordError

FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur"),
    "weather": ("fog", "brightness"),
    "digital": ("contrast", "pixelate", "jpeg_compression"),
}
"""Corruptions of test images that Headstart has, by what they are like."""
CORRUPTIONS = tuple(name for names in FAMILIES.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTED = "corrupted"
"""What the mean over all corruptions at all severities is called."""
LONGEST = 60
"""Characters of a name."""
_NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{LONGEST - 2}}}[A-Za-z0-9])?")
_SPOILT = re.compile(rf"({'|'.join(CORRUPTIONS)})-([1-5])")
PREFIX = "test@"


def spoilt_name(corruption: str, severity: int) -> str:
    """`fog-3`."""
    return f"{corruption}-{severity}"


def spoilt_as(name: str) -> tuple[str, int] | None:
    """Corruption and severity that a name stands for; None for other data."""
    match = _SPOILT.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def check_name(name: str) -> None:
    """Raise ConfigError for a name that is no slug, or that spoilt copies and their means have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name[: LONGEST + 10]}: must be letters, digits, dots, dashes and underscores, begin and end "
            f"with a letter or digit, and have {LONGEST} of them at most."
        )
    if spoilt_as(name) or name in (CORRUPTED, *CORRUPTIONS):
        raise ConfigError(f"--name {name}: is what --corrupt calls its own; choose another.")


def predictions_name(name: str) -> str:
    """The file with an evaluation's predictions."""
    return f"predictions-{name}.parquet"


def metric_name(name: str, metric: str) -> str:
    """`test@stl10/accuracy_micro`."""
    return f"{PREFIX}{name}/{metric}"


def evaluated_in(metric: str) -> str | None:
    """The name of the evaluation that `test@NAME/...` is of; None for a metric of the run itself."""
    split = metric.partition("/")[0]
    return split.removeprefix(PREFIX) if split.startswith(PREFIX) else None


def further_metrics(evaluations: Mapping[str, Any]) -> dict[str, float | None]:
    """All metrics of a record's evaluations, and the means over severities and corruptions, by their names."""
    values = {name: one["metrics"] for name, one in evaluations.items()}
    return {
        metric_name(name, metric): value
        for name, metrics in (values | spoilt_means(values)).items()
        for metric, value in metrics.items()
    }


def spoilt_means(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """The mean of each metric over the severities of a corruption, and over all corruptions as `corrupted`.

    `values` are the metrics of evaluations by name. A mean is over all that it stands for: of a corruption that
    lacks a severity there is none, nor of all corruptions where one is lacking.
    """
    found: dict[str, dict[str, float | None]] = {}
    for corruption in CORRUPTIONS:
        several = [values.get(spoilt_name(corruption, severity)) for severity in SEVERITIES]
        known = [one for one in several if one is not None]
        if len(known) == len(SEVERITIES):
            found[corruption] = _means(known)
    if len(found) == len(CORRUPTIONS):
        found[CORRUPTED] = _means(list(found.values()))
    return found


def _means(several: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    names = [name for name in several[0] if all(name in one for one in several)]
    found: dict[str, float | None] = {}
    for name in names:
        values = [value for one in several if (value := one[name]) is not None]
        found[name] = math.fsum(values) / len(values) if len(values) == len(several) else None
    return found


def data_at(data: Mapping[str, Any], evaluations: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """A record's `data`, with the size and the class counts of what `test@NAME/...` is of under that split's name.

    Spoilt copies have those of the test split. Where the evaluation's data lacks classes there are no counts.
    """
    name = evaluated_in(metric)
    if name is None:
        return data
    entry = evaluations.get(name, {}).get("data", {})
    own_counts, own_sizes = data.get("class_counts") or {}, data.get("sizes") or {}
    counts, size = entry.get("class_counts"), entry.get("examples")
    if entry.get("corruption") or name not in evaluations:
        counts, size = own_counts.get("test"), own_sizes.get("test")
    split = f"{PREFIX}{name}"
    return {
        **data,
        "class_counts": own_counts | ({split: counts} if counts and all(counts) else {}),
        "sizes": own_sizes | ({split: size} if size else {}),
    }


def check_evaluations(value: Any) -> None:
    """Raise RecordError where evaluations are not of the kind that everything that reads them takes for granted."""
    if not isinstance(value, dict):
        raise RecordError("has evaluations that are no mapping")
    for name, entry in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RecordError(f"has an evaluation with a name that none has ({str(name)[:80]!r})")
        metrics, data = (entry.get(key) if isinstance(entry, dict) else None for key in ("metrics", "data"))
        if not isinstance(metrics, dict) or not isinstance(data, dict):
            raise RecordError(f"has an evaluation {name} without metrics or data")
        for key, number in metrics.items():
            if number is not None and (not isinstance(number, int | float) or isinstance(number, bool)):
                raise RecordError(f"has an evaluation {name} whose {key} is no number")
        counts, size = data.get("class_counts"), data.get("examples")
        if counts is not None and not (isinstance(counts, list) and all(type(n) is int for n in counts)):
            raise RecordError(f"has an evaluation {name} whose class_counts are no counts")
        if size is not None and type(size) is not int:
            raise RecordError(f"has an evaluation {name} whose examples is no count")
        predictions = entry.get("predictions")
        if predictions is not None and not (
            isinstance(predictions, dict) and isinstance(predictions.get("sha256"), str)
        ):
            raise RecordError(f"has an evaluation {name} whose predictions cannot be read")
