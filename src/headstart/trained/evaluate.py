"""A completed run on further test sets: score it, and put it into the run's record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from headstart.config.plain import to_plain
from headstart.config.schema.root import Config
from headstart.environment import describe_environment
from headstart.records.amend import Predicted, add_evaluations
from headstart.records.store import now
from headstart.trained.further import Asked, Prepared
from headstart.trained.judging import metrics_of, predicted
from headstart.trained.scoring import Scorer, Spoiling
from headstart.training.metrics import DEFAULT_THRESHOLD

_ENVIRONMENT = ("python", "cpu", "gpu", "threads")
_PACKAGES = ("headstart", "torch", "timm")


def evaluate(
    prepared: Prepared, asked: Asked, *, tell: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Score a run and write down each result as soon as it is there; yields its name and metrics.

    `tell` hears how many images are done. The five strengths of a corruption are written together. Raises
    RecordError where a name was taken meanwhile.
    """
    if not prepared.todo:
        return
    scorer = Scorer(prepared.folder, prepared.config)
    loader = prepared.data.test_dataloader()
    task, split = prepared.data.facts.task, prepared.data.splits["test"]
    ids, threshold = split.ids, prepared.record.threshold or DEFAULT_THRESHOLD
    environment = _environment(scorer, prepared.config)
    done = 0
    for names in _together(prepared.todo):
        entries: dict[str, Any] = {}
        said: dict[str, Predicted] = {}
        for name in names:
            spoiling = prepared.todo[name]
            scores, targets = scorer.score(
                prepared.data, loader, spoiling=spoiling, tell=partial(_further, tell, done)
            )
            done += len(ids)
            entries[name] = {
                "metrics": metrics_of(scores, targets, task=task, threshold=threshold),
                "data": _data(prepared, spoiling),
                "finished": now(),
                "environment": environment,
                "weights_sha256": scorer.weights_sha256,
            }
            if asked.predictions:
                said[name] = predicted(scores, split.targets, ids=ids, task=task, threshold=threshold)
        add_evaluations(prepared.folder, entries, predicted=said, again=asked.again)
        for name, entry in entries.items():
            yield name, entry["metrics"]


def _further(tell: Callable[[int], None], done: int, count: int) -> None:
    tell(done + count)


def _together(todo: Mapping[str, Spoiling | None]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for name, spoiling in todo.items():
        found.setdefault(spoiling.corruption if spoiling else name, []).append(name)
    return list(found.values())


def _data(prepared: Prepared, spoiling: Spoiling | None) -> dict[str, Any]:
    """What an evaluation says of its data."""
    facts, elsewhere = prepared.data.facts, prepared.elsewhere
    found: dict[str, Any] = {
        "source": prepared.config.data.source,
        "split": elsewhere.split if elsewhere else "test",
        "fingerprint": facts.fingerprint,
        "split_fingerprint": facts.split_fingerprint,
        "examples": facts.sizes["test"],
    }
    if spoiling is not None:
        return found | {"corruption": spoiling.corruption, "severity": spoiling.severity}
    assert elsewhere is not None
    plain = to_plain(prepared.config)["data"]
    place = {key: plain[key] for key in ("name", "path", "subset") if plain.get(key)}
    return (
        found
        | place
        | {
            "class_counts": list(facts.class_counts["test"]),
            "ignored": dict(elsewhere.ignored),
            "skipped": list(facts.skipped),
            "seen_in_training": prepared.seen,
        }
    )


def _environment(scorer: Scorer, config: Config) -> dict[str, Any]:
    """On what it was scored, in short."""
    whole = describe_environment(accelerator=scorer.accelerator, threads=scorer.threads, devices=1)
    packages = {name: whole["packages"][name] for name in _PACKAGES if name in whole["packages"]}
    return {
        **{key: whole[key] for key in _ENVIRONMENT},
        **packages,
        "precision": scorer.precision,
        "batch_size": config.data.batch_size,
    }
