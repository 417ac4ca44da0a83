"""Before the first job: is the data of every job there, do its weights and its strategy fit its backbone?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
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


def check_jobs(jobs: Sequence[Job], context: ForkServerContext) -> list[str]:
    """Prepare each distinct set-up in a process of its own, and throw it away; returns a job key per job.

    Where a job needs the weights of another, that one's job key stands for their digest. Raises ConfigError
    that lists every job that could not start.
    """
    ours, theirs = context.Pipe(duplex=False)
    asked = [(to_plain(job.config), job.needs) for job in jobs]
    process = context.Process(target=_check, args=(asked, theirs), name="headstart preflight")
    process.start()
    theirs.close()
    errors: list[str] = []
    keys: list[str] = []
    try:
        for job in jobs:
            problem, key = ours.recv()
            keys.append(key)
            if problem:
                errors.append(f"{' '.join(job.varied) or 'the job'}: {problem}")
    except EOFError:
        raise RuntimeError("the check of the jobs ended without an answer") from None
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()
    if errors:
        raise ConfigError(listed(errors, of=len(jobs)))
    return keys


def _check(asked: list[tuple[dict[str, Any], int | None]], pipe: Connection) -> None:
    """In its own process: prepare each, and send back what is wrong with it, or its key."""
    from headstart.preparation import Rehearsal, prepare

    rehearsal = Rehearsal()
    known: dict[str, Prepared | HeadstartError] = {}
    keys: list[str] = []
    for plain, needs in asked:
        config = from_plain(plain)
        setup = _setup(plain)
        try:
            if setup not in known:
                try:
                    known[setup] = _light(prepare(config, rehearsal=rehearsal))
                except HeadstartError as error:
                    known[setup] = error
        except KeyboardInterrupt:
            return
        found = known[setup]
        if isinstance(found, HeadstartError):
            keys.append("")
            pipe.send((str(found), ""))
            continue
        digest = f"job:{keys[needs]}" if needs is not None else found.weights.sha256 if found.weights else ""
        keys.append(_key(config, found, digest))
        pipe.send(("", keys[-1]))
    pipe.close()


def _setup(plain: dict[str, Any]) -> str:
    kept = {key: value for key, value in plain.items() if key not in _APART}
    kept["data"] = {key: value for key, value in plain["data"].items() if key != "split_seed"}
    return json.dumps(kept, sort_keys=True)


def _light(prepared: Prepared) -> Prepared:
    """Without the model, whose memory is not needed any more."""
    return replace(prepared, built=None, penalties=None)  # type: ignore[arg-type]


def _key(config: Config, prepared: Prepared, digest: str) -> str:
    """The job's key: its own config, resolved as that of its set-up was."""
    resolved = replace(
        prepared.config,
        seed=config.seed,
        optimizer=config.optimizer,
        data=replace(prepared.config.data, split_seed=config.data.split_seed),
    )
    return job_key(resolved, data_fingerprint=prepared.facts.fingerprint, weights_sha256=digest)
