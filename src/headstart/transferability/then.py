"""From the best of a ranking to the sweep that trains them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from headstart.config.choices import group_choices
from headstart.config.compose import configs
from headstart.config.plain import to_plain
from headstart.errors import ConfigError, did_you_mean
from headstart.sweep.composer import Composer
from headstart.sweep.expand import Job, Jobs, expand
from headstart.transferability.candidates import Candidate, is_of


@contextmanager
def sweep_file(given: str, config_dirs: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name of the sweep, folders of configs that hold it) of a name in conf/sweep or a file anywhere.

    Raises ConfigError where there is neither.
    """
    path = Path(given)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"--then {given}: there is no such file.")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sweep").mkdir()
            shutil.copyfile(path, Path(folder) / "sweep" / f"{path.stem}.yaml")
            yield path.stem, (*config_dirs, folder)
        return
    known = group_choices("sweep", config_dirs)
    if given not in known:
        raise ConfigError(
            f"--then {given}: there is no such sweep.{did_you_mean(given, known) or ' Name a .yaml file.'}"
        )
    yield given, config_dirs


def jobs_of(
    candidates: Sequence[Candidate], *, sweep: str, shared: Sequence[str], config_dirs: tuple[str, ...]
) -> Jobs:
    """The jobs of a sweep file for each candidate in turn, as one sweep.

    Where the file trains from scratch that stays so; all other jobs start from the candidate's own weights. Raises
    ConfigError as `expand` does.
    """
    weights = tuple(text for text in shared if is_of("weights", text))
    rest = [text for text in shared if text not in weights]
    merged: list[Job] = []
    parts: list[Jobs] = []
    duplicates = 0
    seen: dict[str, int] = {}
    for candidate in candidates:
        part = expand([*rest, f"sweep={sweep}", *candidate.rest], config_dirs=config_dirs)
        parts.append(part)
        places: dict[int, int] = {}
        with configs(config_dirs):
            composer = Composer()
            for place, job in enumerate(part.jobs):
                one = _of_candidate(job, candidate, (*weights, *candidate.weights), composer)
                needs = None if job.needs is None else places.get(job.needs)
                identity = json.dumps([to_plain(one.config), needs, repr(one.space)], sort_keys=True)
                if identity in seen:
                    duplicates += 1
                    places[place] = seen[identity]
                    continue
                seen[identity] = places[place] = len(merged)
                merged.append(replace(one, needs=needs))
    first = parts[0]
    axes = {key for part in parts for key in part.axes} | {"backbone.name"}
    return replace(
        first,
        jobs=tuple(merged),
        duplicates=duplicates + sum(part.duplicates for part in parts),
        axes=tuple(sorted(axes | {key.partition("=")[0] for one in candidates for key in one.overrides})),
        definition={**first.definition, "candidates": [list(one.overrides) for one in candidates]},
    )


def _of_candidate(job: Job, candidate: Candidate, weights: Sequence[str], composer: Composer) -> Job:
    """A job with the candidate's weights, and with its name among the words that tell it from others."""
    named = replace(
        job, varied=(candidate.name, *job.varied), name=f"{candidate.name} {job.name}" if job.name else ""
    )
    if not weights or job.config.weights.source == "scratch":
        return named
    texts = (*(text for text in job.overrides if not is_of("weights", text)), *weights)
    config = composer.config(dict(_pair(text) for text in texts))
    config.sweep = job.config.sweep
    return replace(named, overrides=texts, config=config)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.lstrip("+"), value
