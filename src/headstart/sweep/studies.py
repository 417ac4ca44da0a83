"""The arms of a sweep that searches: one study each, its trials, and the runs of what it finds."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.config.checks import check, lower_is_better, metrics_of
from headstart.config.identity import config_hash, job_key
from headstart.config.plain import from_plain, to_plain
from headstart.config.schema.root import Config
from headstart.config.schema.search import DrawnConfig, GridConfig, NoSearchConfig, SearchConfig, TrialsConfig
from headstart.errors import ConfigError, did_you_mean
from headstart.records.store import slug
from headstart.records.studies import Study, overrides_of
from headstart.records.sweeps import SweepJob
from headstart.sweep.expand import Job, Jobs, listed
from headstart.sweep.preflight import Checked, shared_with
from headstart.sweep.space import applied, combinations, corners
from headstart.sweep.space import to_plain as space_to_plain


def check_search(jobs: Jobs) -> None:
    """Raise ConfigError where something is to be tuned and nothing searches, or the other way round."""
    search = jobs.search
    if not isinstance(search, TrialsConfig):
        if jobs.tuned:
            raise ConfigError(
                f"{jobs.tuned[0]}: is to be tuned, but nothing searches; say search=grid, random or tpe."
            )
        return
    if not search.seeds or len(set(search.seeds)) < len(search.seeds):
        raise ConfigError(f"search.seeds={search.seeds}: must be seeds, each once.")
    for job in jobs.jobs:
        if not job.config.trainer.test:
            raise ConfigError("trainer.test=false: is for trials, which are not tested; what they find is.")
        if not job.space:
            arm = f" for {' '.join(job.varied)}" if job.varied else ""
            raise ConfigError(
                f"search={search.name}: there is nothing to tune{arm}; say what in sweep.tune of a sweep file, or "
                "as optimizer.lr=interval(0.001,0.1)."
            )
        if job.needs is not None:
            raise ConfigError(f"search={search.name}: cannot be where a job starts from another's weights.")
    if isinstance(search, DrawnConfig):
        from headstart.sweep.optuna_trials import check_installed

        check_installed(search)


def check_metric(search: SearchConfig, *, task: str, classes: int, monitor: str) -> None:
    """Raise ConfigError for a metric that the task has not, that trials do not have, or for its wrong direction."""
    if not isinstance(search, TrialsConfig):
        return
    known = [f"val/{name}" for name in metrics_of(task, classes=classes)]
    metric = searched_metric(search, monitor)
    if metric not in known:
        hint = did_you_mean(metric, known) or f" There are {', '.join(known)}."
        why = (
            "trials are not tested." if metric.startswith("test/") else f"there is no such metric of a {task} task."
        )
        raise ConfigError(f"search.metric={metric}: {why}{hint}")
    right = "minimize" if lower_is_better(metric) else "maximize"
    if search.direction not in ("auto", right):
        better = "less" if right == "minimize" else "more"
        raise ConfigError(
            f"search.direction={search.direction}: of {metric}, {better} is better; say {right}, or auto."
        )


def searched_metric(search: TrialsConfig, monitor: str) -> str:
    """The validation metric by which trials are told apart."""
    return monitor if search.metric == "auto" else search.metric


@dataclasses.dataclass(frozen=True)
class Probe:
    """A trial that must be possible before any is made."""

    job: Job
    of: int
    """The job whose search would make it, by its place in the sweep."""
    tuned: Mapping[str, Any]


def probes(jobs: Jobs) -> list[Probe]:
    """All trials of a grid, else trials with each value and end of a range once.

    Raises ConfigError that lists those that are no configs.
    """
    if isinstance(jobs.search, NoSearchConfig):
        return []
    found: list[Probe] = []
    errors: list[str] = []
    seen: set[str] = set()
    for place, job in enumerate(jobs.jobs):
        plain = _without(to_plain(job.config), "seed", "output_dir")
        identity = json.dumps([plain, repr(job.space), job.name], sort_keys=True)
        if identity in seen:
            continue
        seen.add(identity)
        every = combinations(job.space) if isinstance(jobs.search, GridConfig) else corners(job.space)
        for drawn in every:
            tuned = applied(job.space, drawn)
            words = (*_arm_words(job), *overrides_of(tuned))
            try:
                config = checked_config(plain, tuned, seed=0, trial=True)
                found.append(Probe(Job(job.overrides, words, config, job.name), place, tuned))
            except ConfigError as error:
                errors.append(f"{' '.join(words)}: {error}")
    if errors:
        raise ConfigError(listed(errors, of=len(found) + len(errors)))
    return found


def check_resolved(found: Sequence[Probe], checked: Sequence[Checked]) -> None:
    """Raise ConfigError where a tuned key decides what another one is, which is decided once for all trials.

    `checked` is of the probes.
    """
    first: dict[int, Checked] = {}
    for probe, itself in zip(found, checked, strict=True):
        example = first.setdefault(probe.of, itself)
        wanted = to_plain(checked_config(example.config, probe.tuned, seed=0, trial=True))
        decided = [
            f"{group}.{key}"
            for group, value in itself.config.items()
            for key in (value if isinstance(value, dict) else ())
            if value[key] != wanted[group][key]
        ]
        if itself.fingerprint != example.fingerprint:
            decided.append("the images")
        if itself.weights != example.weights:
            decided.append("the weights")
        if decided:
            raise ConfigError(
                f"sweep.tune.{next(iter(probe.tuned))}: decides {', '.join(decided)}, which is no part of the "
                "search; give values of their own to these."
            )


def studies_of(
    jobs: Jobs, checked: Sequence[Checked], found: Sequence[Probe], of_probes: Sequence[Checked]
) -> tuple[Study, ...]:
    """One study for all jobs that differ in nothing but the seed; its seeds are theirs.

    `checked` is of the jobs, `of_probes` of the probes that were `found` for them.
    """
    if isinstance(jobs.search, NoSearchConfig):
        return ()
    trials: dict[int, Checked] = {}
    shared: dict[int, set[str]] = {}
    for probe, itself in zip(found, of_probes, strict=True):
        trials.setdefault(probe.of, itself)
        shared.setdefault(probe.of, set()).add(itself.together)
    grouped: dict[str, list[int]] = {}
    for place, (job, itself) in enumerate(zip(jobs.jobs, checked, strict=True)):
        alike = config_hash(from_plain({**itself.config, "seed": 0}))
        key = json.dumps([alike, repr(job.space), job.name], sort_keys=True)
        grouped.setdefault(key, []).append(place)
    studies = []
    for key, places in grouped.items():
        job, itself = jobs.jobs[places[0]], checked[places[0]]
        words = _arm_words(job)
        count = jobs.search.trials if isinstance(jobs.search, DrawnConfig) else len(list(combinations(job.space)))
        digest = hashlib.sha256(f"{key} {itself.fingerprint} {itself.weights}".encode()).hexdigest()[:8]
        studies.append(
            Study(
                id=f"{slug([word.partition('=')[2] or word for word in words], longest=40)}-{digest}",
                varied=" ".join(words),
                name=job.name,
                space=space_to_plain(job.space),
                config=_without(itself.config, "output_dir"),
                trial_config=_without(trials[places[0]].config, "output_dir"),
                trials=count,
                seeds=tuple(dict.fromkeys(jobs.jobs[place].config.seed for place in places)),
                fingerprint=itself.fingerprint,
                weights=itself.weights,
                trainable=itself.trainable,
                steps=itself.steps,
                # values that are tuned may decide whether there is anything to share, and what
                together=itself.together if len(shared[places[0]]) == 1 else "",
                trials_together=next(iter(shared[places[0]])) if len(shared[places[0]]) == 1 else "",
                drawn=itself.drawn,
            )
        )
    return tuple(studies)


def trial_rows(
    study: Study, number: int, tuned: Mapping[str, Any], *, seeds: Sequence[int], output_dir: str
) -> list[tuple[SweepJob, dict[str, Any]]]:
    """The jobs of a trial, one per seed, with their configs; raises ConfigError where they cannot be."""
    several = len(seeds) > 1
    rows = []
    for seed in seeds:
        config = checked_config(study.trial_config, tuned, seed=seed, trial=True)
        words = [*overrides_of(tuned), *([f"seed={seed}"] if several else [])]
        rows.append(
            _row(study, config, words, tuned, stem=(f"trial{number}", f"s{seed}"), trial=number, where=output_dir)
        )
    return rows


def answer_rows(
    study: Study, tuned: Mapping[str, Any], *, output_dir: str
) -> list[tuple[SweepJob, dict[str, Any]]]:
    """The jobs that test what a study has found, one per seed, with their configs."""
    rows = []
    for seed in study.seeds:
        config = checked_config(study.config, tuned, seed=seed, trial=False)
        words = [f"seed={seed}", *overrides_of(tuned)]
        rows.append(_row(study, config, words, tuned, stem=("best", f"s{seed}"), trial=None, where=output_dir))
    return rows


def _row(
    study: Study,
    config: Config,
    words: Sequence[str],
    tuned: Mapping[str, Any],
    *,
    stem: tuple[str, ...],
    trial: int | None,
    where: str,
) -> tuple[SweepJob, dict[str, Any]]:
    key = job_key(config, data_fingerprint=study.fingerprint, weights_sha256=study.weights)
    said = f"trial {trial}:" if trial is not None else "best:"
    row = SweepJob(
        id=f"{slug([study.id.rpartition('-')[0], *stem], longest=52)}-{key[:8]}",
        key=key,
        varied=" ".join(word for word in (study.varied, said, *words) if word),
        name=study.name,
        trainable=study.trainable,
        steps=study.steps,
        study=study.id,
        trial=trial,
        tuned=dict(tuned),
        together=shared_with(study.together if trial is None else study.trials_together, study.drawn, config.seed),
    )
    return row, {**to_plain(config), "output_dir": where}


def checked_config(plain: Mapping[str, Any], tuned: Mapping[str, Any], *, seed: int, trial: bool) -> Config:
    """A run's config: tuned values and seed in place; of a trial without a test, its validation images kept apart.

    Where what is found is to be trained on all (data.refit_on_val), its last weights are tested: so are a trial's.
    """
    own = copy.deepcopy(dict(plain))
    own["seed"] = seed
    if trial:
        own["trainer"]["test"] = False
        if own["data"]["refit_on_val"]:
            own["data"]["refit_on_val"], own["trainer"]["checkpoint"] = False, "last"
    for key, value in tuned.items():
        *parents, last = key.split(".")
        node: Any = own
        for parent in parents:
            node = node[parent]
        node[last] = value
    config = from_plain(own)
    check(config)
    return config


def _without(plain: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in keys}


def _arm_words(job: Job) -> list[str]:
    """What tells a job from those of other arms."""
    return [word for word in job.varied if not word.startswith("seed=")]


def merged(before: Sequence[Study], now: Sequence[Study]) -> tuple[Study, ...]:
    """The studies of a sweep that is launched again: those there were, with what is new of seeds and trials."""
    fresh = {study.id: study for study in now}
    kept = []
    for study in before:
        seeds = (*study.seeds, *fresh[study.id].seeds) if study.id in fresh else study.seeds
        kept.append(dataclasses.replace(fresh.get(study.id, study), seeds=tuple(dict.fromkeys(seeds))))
    there = {study.id for study in before}
    return (*kept, *(study for study in now if study.id not in there))
