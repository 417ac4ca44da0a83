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
from headstart.records.store import slug
from headstart.sweep.composer import Composer
from headstart.sweep.definition import text_of
from headstart.sweep.expand import Job, Jobs, expand
from headstart.sweep.space import applied, first
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
            known = group_choices("sweep", config_dirs)
            name = slug([path.stem])
            name = f"{name}-then" if name in known else name
            shutil.copyfile(path, Path(folder) / "sweep" / f"{name}.yaml")
            yield name, (*config_dirs, folder)
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

    Jobs that the file starts from pretrained weights start from the candidate's own; those from scratch, from a
    file or from another job stay as they are. Raises ConfigError as `expand` does.
    """
    rest = [text for text in shared if not is_of("weights", text)]
    merged: list[Job] = []
    parts: list[Jobs] = []
    duplicates = 0
    seen: dict[str, int] = {}
    for candidate in candidates:
        part = expand([*rest, f"sweep={sweep}", *candidate.rest], config_dirs=config_dirs)
        parts.append(part)
        places: dict[int, int] = {}
        earlier = set(seen)
        with configs(config_dirs):
            composer = Composer()
            for place, job in enumerate(part.jobs):
                weights = tuple(text for text in candidate.after(shared) if is_of("weights", text))
                one = _of_candidate(job, candidate, weights, composer)
                needs = None if job.needs is None else places.get(job.needs)
                identity = json.dumps([to_plain(one.config), needs, repr(one.space)], sort_keys=True)
                if identity in earlier or (identity in seen and not job.name):
                    duplicates += 1
                    places[place] = seen[identity]
                    continue
                seen[identity] = places[place] = len(merged)
                merged.append(replace(one, needs=needs))
    example = parts[0]
    axes = {key for part in parts for key in part.axes} | {"backbone.name"}
    return replace(
        example,
        jobs=tuple(merged),
        duplicates=duplicates + sum(part.duplicates for part in parts),
        axes=tuple(sorted(axes | {key.partition("=")[0] for one in candidates for key in one.overrides})),
        definition={**example.definition, "candidates": [list(one.overrides) for one in candidates]},
    )


def _of_candidate(job: Job, candidate: Candidate, weights: Sequence[str], composer: Composer) -> Job:
    """A job with the candidate's weights, and with its name among the words that tell it from others."""
    named = replace(
        job, varied=(candidate.name, *job.varied), name=f"{candidate.name} {job.name}" if job.name else ""
    )
    if not weights or job.needs is not None or job.config.weights.source != "pretrained":
        return named
    kept = [text for text in job.overrides if not is_of("weights", text) or is_of("weights.first_k", text)]
    texts = (*kept, *weights)
    stand_in = {key: text_of(value) for key, value in applied(job.space, first(job.space)).items()}
    config = composer.config(dict(_pair(text) for text in texts) | stand_in)
    config.sweep = job.config.sweep
    return replace(named, overrides=texts, config=config)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.lstrip("+"), value
