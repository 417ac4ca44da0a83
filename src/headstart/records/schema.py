"""`run.json`: everything a run says of itself, and the versions of that file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from headstart.config.schema.root import DISCRIMINATORS
from headstart.errors import RecordError
from headstart.records.evaluations import check_evaluations
from headstart.records.migrate import SCHEMA_VERSION, migrated

_GROUPS = ("backbone", "weights", "strategy", "head", "data", "trainer")
_MAPPINGS = (
    "config", "seconds", "peak_memory", "metrics", "best", "confusion", "drift", "parameters", "weights", "data",
    "environment", "determinism", "logger", "final_weights", "files", "features",
)  # fmt: skip
_KINDS: dict[tuple[type, ...], tuple[str, ...]] = {
    (str,): (
        "id",
        "arm",
        "config_hash",
        "job_key",
        "started",
        "finished",
        "launched_by",
        "error",
        "stopped_by",
        "reproduces",
    ),
    (int,): ("seed", "split_seed", "fold", "epochs", "steps"),
}

STATUSES = ("running", "completed", "failed", "interrupted", "pruned")


@dataclass
class RunRecord:
    """One run; the meaning of each field is in docs/records.md."""

    id: str
    status: str
    config_hash: str
    job_key: str
    arm: str
    seed: int
    split_seed: int
    command: list[str]
    started: str
    config: dict[str, Any]
    launched_by: str | None = None
    reproduces: str | None = None
    fold: int | None = None
    error: str | None = None
    finished: str | None = None
    stopped_by: str | None = None
    epochs: int = 0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int | None] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    confusion: dict[str, Any] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    plan: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    determinism: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    predictions_sha256: str | None = None
    final_weights: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `run.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> RunRecord:
        """Read plain data; raises RecordError with what is wrong with it."""
        value = migrated(value)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        missing = [
            name
            for name, f in fields.items()
            if name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise RecordError(f"lacks {', '.join(missing)}")
        if value["status"] not in STATUSES:
            raise RecordError(f"has an unknown status {value['status']!r}")
        _check_shapes(value)
        kept = {name: item for name, item in value.items() if name in fields}
        kept["metrics"] = {key: _finite(item) for key, item in kept.get("metrics", {}).items()}
        kept["evaluations"] = {
            name: {**one, "metrics": {key: _finite(item) for key, item in one["metrics"].items()}}
            for name, one in kept.get("evaluations", {}).items()
        }
        return cls(**kept)


def _check_shapes(value: dict[str, Any]) -> None:
    """Raise RecordError where a field is of another kind than everything that reads it takes for granted."""
    for name in _MAPPINGS:
        if not isinstance(value.get(name, {}), dict):
            raise RecordError(f"has a {name} that is no mapping")
    config = value["config"]
    lacking = [group for group in _GROUPS if not isinstance(config.get(group), dict)]
    if lacking:
        raise RecordError(f"has a config without {', '.join(lacking)}")
    for group, node in config.items():
        kind = DISCRIMINATORS.get(group) or ("name" if group == "backbone" else None)
        if isinstance(node, dict) and kind and not isinstance(node.get(kind), str):
            raise RecordError(f"has a config whose {group} has no {kind}")
    for kinds, names in _KINDS.items():
        for name in names:
            found = value.get(name)
            if found is not None and (not isinstance(found, kinds) or isinstance(found, bool)):
                raise RecordError(f"has a {name} that is no {' or '.join(k.__name__ for k in kinds)}")
    for name in ("seed", "split_seed", "started", "arm", "id", "status"):
        if value.get(name) is None:
            raise RecordError(f"has no {name}")
    for name in ("seconds", "metrics", "parameters", "peak_memory"):
        for key, number in value.get(name, {}).items():
            if number is not None and (not isinstance(number, int | float) or isinstance(number, bool)):
                raise RecordError(f"has a {name}.{key} that is no number")
    threshold = value.get("threshold")
    if threshold is not None and (
        not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 < threshold < 1
    ):
        raise RecordError("has a threshold that is no number between 0 and 1")
    for name in ("final_weights", "files"):
        if not all(isinstance(digest, str) for digest in value.get(name, {}).values()):
            raise RecordError(f"has {name} that are no digests")
    environment = value.get("environment", {})
    earlier = environment.get("earlier", [])
    if not isinstance(earlier, list) or not all(isinstance(one, dict) for one in earlier):
        raise RecordError("has an environment.earlier that is no list")
    for one in (environment, *earlier):
        for name in ("settings", "packages", "code", "plugins"):
            _check_texts(one.get(name), f"environment.{name}")
    command = value.get("command", [])
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise RecordError("has a command of other things than words")
    data = value.get("data", {})
    transform = data.get("transform", {})
    if not isinstance(transform, dict):
        raise RecordError("has a data.transform that is no mapping")
    counts, sizes = data.get("class_counts", {}), data.get("sizes", {})
    if not isinstance(sizes, dict) or not isinstance(counts, dict):
        raise RecordError("has data without sizes or class_counts that can be read")
    if not all(isinstance(row, list) and all(isinstance(n, int) for n in row) for row in counts.values()):
        raise RecordError("has data.class_counts that are no lists of counts")
    if not all(isinstance(size, int) for size in sizes.values()):
        raise RecordError("has data.sizes that are no counts")
    for name in ("target_mean", "target_std"):
        numbers = data.get(name, [])
        if not isinstance(numbers, list) or not all(isinstance(one, float | int) for one in numbers):
            raise RecordError(f"has data.{name} that are no numbers")
    if not isinstance(data.get("class_names", []), list):
        raise RecordError("has data.class_names that are no list")
    check_evaluations(value.get("evaluations", {}))


def _check_texts(value: Any, name: str) -> None:
    if value is not None and (
        not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values())
    ):
        raise RecordError(f"has an {name} that is no mapping of texts")


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def result_of(record: RunRecord) -> str:
    """The first of a run's test metrics in words; where it was not tested, of those that it has."""
    known = [(key, value) for key, value in record.metrics.items() if value is not None]
    tested = [pair for pair in known if pair[0].startswith("test/")]
    return next((f"{key} {value:.4f}" for key, value in (tested or known)), record.status)
