"""Before the first job: is the data of every job there, do its weights and its strategy fit its backbone?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING, Any

from headstart.config.identity import job_key
from headstart.config.plain import from_plain, to_plain
from headstart.config.schema.root import Config
from headstart.errors import ConfigError, HeadstartError
from headstart.sweep.expand import Job, listed

if TYPE_CHECKING:
    from headstart.preparation import Prepared

_APART = ("seed", "optimizer", "logger", "output_dir")
"""What has no part in whether a job can start; jobs that share all else are checked once."""


@dataclass(frozen=True)
class Checked:
    """What the check of a job has found: its config with every `auto` resolved, and what it will cost."""

    key: str
    config: dict[str, Any] = field(default_factory=dict)
    trainable: int = 0
    parameters: int = 0
    steps: int = 0
    epochs: float = 0.0
    batch_size: int = 1
    val_images: int = 0
    test_images: int = 0
    fingerprint: str = ""
    """Of the data."""
    weights: str = ""
    """Their digest; empty where all is drawn at random."""
    task: str = "multiclass"
    classes: int = 0
    """How many, or how many labels or numbers."""
    train_images: int = 0
    views: int = 1
    """Versions of each training image."""
    step_seconds: float | None = None
    """What one training step took here, where it was measured."""
    together: str = ""
    """What it shares with the jobs that can be fitted together with it; empty where it cannot be with any."""
    drawn: bool = False
    """Whether the features of its backbone depend on the seed: `together` does then."""


@dataclass(frozen=True)
class Machine:
    """What this machine has, as PyTorch sees it."""

    gpus: int


def check_jobs(
    jobs: Sequence[Job],
    context: ForkServerContext,
    *,
    measure: float = 0.0,
    gpu_elsewhere: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[Checked], Machine]:
    """Prepare each distinct set-up in a process of its own, and throw it away; what was found, per job.

    Where a job needs the weights of another, that one's job key stands for their digest. Up to `measure` seconds
    are spent on taking one training step of each set-up. `progress` is told how many jobs have been checked.
    Raises ConfigError that lists every job that could not start.
    """
    ours, theirs = context.Pipe(duplex=False)
    asked = [(to_plain(job.config), job.needs) for job in jobs]
    process = context.Process(
        target=_check, args=(asked, theirs, measure, gpu_elsewhere), name="headstart preflight"
    )
    process.start()
    theirs.close()
    errors: list[str] = []
    found: list[Checked] = []
    try:
        machine = Machine(gpus=ours.recv())
        for job in jobs:
            answer = ours.recv()
            if isinstance(answer, str):
                errors.append(f"{' '.join(job.varied) or 'the job'}: {answer}")
            else:
                found.append(answer)
            progress(len(errors) + len(found))
    except EOFError:
        raise RuntimeError("the check of the jobs ended without an answer") from None
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()
    if errors:
        raise ConfigError(listed(errors, of=len(jobs)))
    return found, machine


def _check(
    asked: list[tuple[dict[str, Any], int | None]], pipe: Connection, measure: float, gpu_elsewhere: bool
) -> None:
    """In its own process: prepare each, and send back what was found, or what is wrong with it."""
    from headstart.assembly import time_step
    from headstart.preparation import Rehearsal, prepare
    from headstart.resolve import gpu_count

    pipe.send(gpu_count())
    rehearsal = Rehearsal(gpu_elsewhere)
    known: dict[str, _Light | HeadstartError] = {}
    keys: list[str] = []
    spent = 0.0
    for plain, needs in asked:
        config = from_plain(plain)
        setup = _setup(plain)
        try:
            if setup not in known:
                try:
                    prepared = prepare(config, rehearsal=rehearsal)
                    seconds = time_step(prepared) if spent < measure and not gpu_elsewhere else None
                    spent += 2 * (seconds or 0.0)
                    known[setup] = _light(prepared, seconds)
                except HeadstartError as error:
                    known[setup] = error
        except KeyboardInterrupt:
            return
        found = known[setup]
        try:
            if isinstance(found, HeadstartError):
                raise found
            resolved = _resolved(config, found.config)
        except HeadstartError as error:
            keys.append("")
            pipe.send(str(error))
            continue
        digest = f"job:{keys[needs]}" if needs is not None else found.weights
        keys.append(job_key(resolved, data_fingerprint=found.fingerprint, weights_sha256=digest))
        stage = None if needs is None else keys[needs]
        together = shared_with(found.checked.together, found.checked.drawn, config.seed, stage)
        pipe.send(replace(found.checked, key=keys[-1], config=to_plain(resolved), together=together))
    pipe.close()


def shared_with(together: str, drawn: bool, seed: int, needs: str | None = None) -> str:
    """What a job shares with those that can be fitted together with it; empty where there is nothing.

    `together` is what its set-up shares, whose features are `drawn` from the seed or not, and `needs` the key of
    the job whose weights it starts from.
    """
    further = [*([f"seed {seed}"] if drawn else []), *([f"after {needs}"] if needs else [])]
    if not together or not further:
        return together
    return hashlib.sha256(json.dumps([together, *further]).encode()).hexdigest()


def _setup(plain: dict[str, Any]) -> str:
    kept = {key: value for key, value in plain.items() if key not in _APART}
    kept["data"] = {key: value for key, value in plain["data"].items() if key != "split_seed"}
    return json.dumps(kept, sort_keys=True)


@dataclass(frozen=True)
class _Light:
    """What is kept of a prepared set-up: not the model, whose memory is not needed any more."""

    config: Config
    fingerprint: str
    weights: str
    checked: Checked


def _light(prepared: Prepared, step_seconds: float | None) -> _Light:
    from headstart.rehearsal import is_drawn

    layers, budget, sizes = prepared.built.layers, prepared.budget, prepared.facts.sizes
    weights = prepared.weights.sha256 if prepared.weights else ""
    checked = Checked(
        key="",
        trainable=prepared.plan.count_trainable(layers) + prepared.of_penalties,
        parameters=sum(group.size for group in layers.groups) + prepared.of_penalties,
        steps=budget.total_steps,
        epochs=budget.total_steps / budget.steps_per_epoch,
        batch_size=prepared.config.data.batch_size,
        val_images=sizes["val"],
        test_images=sizes["test"],
        fingerprint=prepared.facts.fingerprint,
        weights=weights,
        task=prepared.facts.task,
        classes=prepared.facts.num_classes,
        train_images=sizes["train"],
        views=prepared.config.features.views or 1,
        step_seconds=step_seconds,
        together=prepared.together,
        drawn=is_drawn(prepared.config, prepared.built),
    )
    return _Light(prepared.config, prepared.facts.fingerprint, weights, checked)


def _resolved(config: Config, setup: Config) -> Config:
    """The job's own config, resolved as its set-up's was; raises ConfigError where its optimiser cannot be."""
    from headstart.resolve import resolve_fused

    own = replace(
        setup,
        seed=config.seed,
        optimizer=config.optimizer,
        logger=config.logger,
        output_dir=config.output_dir,
        data=replace(setup.data, split_seed=config.data.split_seed),
    )
    fused = resolve_fused(own, precision=own.trainer.precision)
    return replace(own, optimizer=replace(own.optimizer, fused=fused))
