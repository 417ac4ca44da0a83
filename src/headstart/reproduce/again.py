"""A saved run once more: check what it is made of, run it, compare, and write down what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.config.paths import output_dir_of
from headstart.config.plain import to_plain
from headstart.config.schema.root import Config
from headstart.environment import process_alive
from headstart.errors import RecordError
from headstart.experiment import explained, resume, run
from headstart.preparation import Prepared, prepare
from headstart.recording import describe_run, file_digests
from headstart.records.atomic import plain_json, write_json
from headstart.records.examples import EXAMPLES, read_examples
from headstart.records.schema import RunRecord
from headstart.records.store import RECORD, REPRODUCTIONS, read_record
from headstart.reproduce.changes import Change, changes
from headstart.reproduce.places import with_a_cpu, with_places
from headstart.reproduce.saved import Saved, require_places
from headstart.reproduce.tolerance import find_siblings
from headstart.reproduce.verdict import Verdict, judge
from headstart.resolve import gpu_count
from headstart.training.checkpoints import weights_sha256

REPRODUCTION = "reproduction.json"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """A saved run with all that it needs at hand, and what of that is not as it was."""

    saved: Saved
    prepared: Prepared
    now: RunRecord
    """What a run would say of itself that began at this moment."""
    changes: tuple[Change, ...]

    @property
    def causes(self) -> tuple[Change, ...]:
        """The changes that can change a result."""
        return tuple(change for change in self.changes if change.matters)


@dataclass(frozen=True)
class Reproduction:
    """A run that repeats another; `verdict` is None where there was nothing to compare it with."""

    folder: Path
    record: RunRecord
    changes: tuple[Change, ...]
    verdict: Verdict | None


def check(saved: Saved, overrides: Sequence[str], *, output_dir: str) -> Checked:
    """Find the data and the weights, build the model, and compare all ingredients with the recorded ones.

    Raises a HeadstartError where something that is needed is not there.
    """
    config = with_places(saved.config, overrides, output_dir=output_dir)
    require_places(config, said=saved.said)
    config_now = to_plain(config)
    if config.trainer.accelerator == "gpu" and not gpu_count():
        config = with_a_cpu(config)
    try:
        prepared = prepare(config, fresh=True)
    except (MemoryError, RuntimeError) as error:
        raise explained(error, config) or error from error
    now = describe_run(prepared, name="", command=())
    if saved.record is None:
        return Checked(saved, prepared, now, ())
    altered = []
    if saved.folder is not None:
        there = file_digests(saved.folder)
        altered = [name for name, digest in saved.record.files.items() if there.get(name, digest) != digest]
    found = changes(
        saved.record,
        now,
        folder=saved.folder,
        config=config_now,
        examples=prepared.data.examples(),
        altered=altered,
    )
    return Checked(saved, prepared, now, tuple(found))


def reproduce(checked: Checked, *, command: Sequence[str], tell: Tell) -> Reproduction:
    """Run it again, into a folder of its own, and compare; `tell` is told where, and what it goes on with.

    A reproduction that was interrupted goes on from its last epoch, unless anything has changed since. Raises
    RunFailed where training came to nothing.
    """
    saved, prepared = checked.saved, checked.prepared
    name = saved.record.id if saved.record else saved.said
    begun = _unfinished(prepared.config, checked.now, name)
    if begun is not None:
        tell(f"going on with {begun}")
        folder, record = begun, resume(begun)
    else:
        folder, record = run(
            prepared.config,
            command=command,
            reproduces=name,
            announce=lambda found: tell(f"run: {found}"),
            prepared=prepared,
        )
    if saved.record is None:
        return Reproduction(folder, record, (), None)
    verdict = compare(saved, folder, record)
    done = Reproduction(folder, record, checked.changes, verdict)
    write_json(folder / REPRODUCTION, as_plain(saved, done))
    return done


def changes_between(saved: Saved, folder: Path, record: RunRecord) -> list[Change]:
    """What differs between a saved run and another, from what both wrote down."""
    assert saved.record is not None
    try:
        examples = read_examples(folder / EXAMPLES)
    except RecordError:
        examples = None
    return changes(saved.record, record, folder=saved.folder, config=record.config, examples=examples)


def compare(saved: Saved, folder: Path, record: RunRecord) -> Verdict:
    """The verdict on a run that repeats a saved one; raises RecordError where weights are damaged."""
    assert saved.record is not None
    weights = saved.record.final_weights
    if not weights and saved.folder is not None:  # a record of before they were written down
        with suppress(RecordError):
            weights = weights_sha256(saved.folder)
    return judge(
        saved.record,
        record,
        folder_before=saved.folder,
        folder_now=folder,
        siblings=find_siblings(saved.record, saved.folder),
        weights_before=weights,
    )


def as_plain(saved: Saved, done: Reproduction) -> dict[str, Any]:
    """What `reproduction.json` holds."""
    assert saved.record is not None
    assert done.verdict is not None
    parting = done.verdict.parting
    return {
        "schema_version": 1,
        "reproduces": saved.record.id,
        "named": saved.said,
        "verdict": done.verdict.kind,
        "metrics": [
            {**asdict(check), "difference": check.difference, "within": check.is_within}
            for check in done.verdict.metrics
        ],
        "parted": asdict(parting) if parting else None,
        "changes": [asdict(change) for change in done.changes],
        "compared": list(done.verdict.compared),
        "not_compared": list(done.verdict.unknown),
    }


def _unfinished(config: Config, now: RunRecord, name: str) -> Path | None:
    """A reproduction of the same run that was interrupted, made of the same in the same places."""
    for path in sorted((output_dir_of(config) / REPRODUCTIONS).glob(f"*/{RECORD}"), reverse=True):
        try:
            record = read_record(path.parent)
        except RecordError:
            continue
        if record.reproduces != name or not _is_made_of_the_same(record, now):
            continue
        pid, host = record.environment.get("pid"), record.environment.get("host")
        if record.status == "interrupted" or (record.status == "running" and not process_alive(pid, host)):
            return path.parent
        return None
    return None


def _is_made_of_the_same(record: RunRecord, now: RunRecord) -> bool:
    # its config says where it reads from, which is no change to `changes`
    return record.config == plain_json(now.config) and not changes(
        record, now, folder=None, config=now.config, examples=None
    )
