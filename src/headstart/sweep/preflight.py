"""Before the first job: is the data of every job there, do its weights and its strategy fit its backbone?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from headstart.config.plain import from_plain, to_plain
from headstart.errors import ConfigError, HeadstartError
from headstart.sweep.expand import Job, listed

_GROUPS = ("backbone", "weights", "strategy", "head", "data")
"""What decides whether a job can start; jobs that share it are checked once."""


def check_jobs(jobs: Sequence[Job], context: ForkServerContext) -> None:
    """Prepare each distinct set-up in a process of its own, and throw it away.

    Raises ConfigError that lists every job that could not start.
    """
    setups: dict[str, list[Job]] = {}
    for job in jobs:
        plain = to_plain(job.config)
        plain["data"].pop("split_seed")
        setups.setdefault(json.dumps([plain[group] for group in _GROUPS], sort_keys=True), []).append(job)
    ours, theirs = context.Pipe(duplex=False)
    firsts = [to_plain(members[0].config) for members in setups.values()]
    process = context.Process(target=_check, args=(firsts, theirs), name="headstart preflight")
    process.start()
    theirs.close()
    errors: list[str] = []
    try:
        for members in setups.values():
            problem = ours.recv()
            if problem:
                errors += [f"{' '.join(job.varied) or 'the job'}: {problem}" for job in members]
    except EOFError:
        raise RuntimeError("the check of the jobs ended without an answer") from None
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()
    if errors:
        raise ConfigError(listed(errors, of=len(jobs)))


def _check(configs: list[dict[str, Any]], pipe: Connection) -> None:
    """In its own process: prepare each, and send back what is wrong with it."""
    from headstart.preparation import prepare

    for plain in configs:
        try:
            prepare(from_plain(plain))
        except HeadstartError as error:
            pipe.send(str(error))
        except KeyboardInterrupt:
            return
        else:
            pipe.send("")
    pipe.close()
