"""The comparison: each arm's metric with its interval, and its paired gain over the baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headstart.compare.abroad import Abroad, abroad_of, flat_abroad, summed_up
from headstart.compare.arms import Arm, group_arms
from headstart.compare.baselines import baselines, is_baseline
from headstart.compare.fairness import Unequal, unequal
from headstart.compare.notes import notes_of
from headstart.compare.references import references
from headstart.compare.results import Result
from headstart.compare.rows import Row, flat_row, row_of
from headstart.compare.statistics.paired import Paired, compare_pairs, decide
from headstart.config.checks import MAIN_METRIC, METRICS, lower_is_better
from headstart.errors import RecordError, did_you_mean
from headstart.records.evaluations import evaluated_in

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METRIC = {task: f"test/{name}" for task, name in MAIN_METRIC.items()}


@dataclass(frozen=True)
class Comparison:
    """What `headstart compare` shows."""

    metric: str
    task: str | None
    rows: tuple[Row, ...]
    references: dict[str, dict[str, float]]
    """Per data set and number of labels: what needs no transfer."""
    varies: str
    """What the intervals vary, over all arms."""
    baseline: str
    """What arms are measured against, in words."""
    unequal: tuple[Unequal, ...] = ()
    """What should be held equal and is not."""
    notes: list[str] = field(default_factory=list)
    abroad: tuple[Abroad, ...] = ()
    """Further test sets that the runs were evaluated on."""
    arms_by_key: Mapping[str, Arm] = field(default_factory=dict, repr=False)

    @property
    def lower_is_better(self) -> bool:
        """Whether a negative gain is good."""
        return lower_is_better(self.metric)

    @property
    def settings(self) -> list[str]:
        """Keys of the data sets and numbers of labels, in order of appearance."""
        return list(dict.fromkeys(arm.setting.key for arm in self.arms_by_key.values()))

    @cached_property
    def comparisons(self) -> int:
        """How many paired comparisons Holm's correction is over."""
        return sum(row.paired is not None and row.paired.p_holm is not None for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "arms_by_key"}
        fields["rows"] = [
            dataclasses.asdict(row) | {"gain": dataclasses.asdict(row.gain) if row.gain else None}
            for row in self.rows
        ]
        fields["abroad"] = [dataclasses.asdict(one) for one in self.abroad]
        fields["unequal"] = [dataclasses.asdict(one) for one in self.unequal]
        names = {arm.setting.key: _setting_name(arm) for arm in self.arms_by_key.values()}
        fields["references"] = {names[key]: value for key, value in self.references.items()}
        return {**fields, "lower_is_better": self.lower_is_better, "comparisons": self.comparisons}

    @property
    def arms(self) -> pd.DataFrame:
        """A row per arm, with plain columns."""
        import pandas as pd

        return pd.DataFrame(self.flat_rows())

    def flat_rows(self, *, every: bool = False) -> list[dict[str, Any]]:
        """A flat row per arm, for tables and files; with `every` corruption and strength by itself."""
        columns = self.abroad if every else summed_up(self.abroad)
        return [flat_row(row, self.metric) | flat_abroad(columns, row.key) for row in self.rows]

    def pairs_of(self, row: Row) -> list[tuple[Result, Result]]:
        """(run, run of the baseline) of each pair that has the metric."""
        if row.baseline_key is None:
            return []
        return _pairs(self.arms_by_key[row.key], self.arms_by_key[row.baseline_key], self.metric)

    def paired_with(self, arm: str, other: str, metric: str) -> Paired | None:
        """Two arms by any metric, paired; None where no pair has it."""
        return _paired(self.arms_by_key[arm], self.arms_by_key[other], metric)


def _setting_name(arm: Arm) -> str:
    size = arm.setting.train_examples
    words = [arm.setting.dataset, *([f"{size} labels"] if size is not None else [])]
    return ", ".join([*words, *(f"{key} {value}" for key, value in arm.setting.budget)])


def compare_results(
    results: Sequence[Result],
    *,
    metric: str | None = None,
    baseline: str | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Group results into arms and compare each with its baseline, paired by seed, split seed and fold.

    `baseline` names another baseline than training from scratch. Raises RecordError where no run has completed,
    the metric does not exist, the tasks differ, no arm matches `baseline`, or an arm has several candidates.
    """
    tested = [result for result in results if not _is_trial(result)]
    if tested and len(tested) < len(results):
        notes = [*notes, f"{len(results) - len(tested)} runs without a test left out (trainer.test=false: trials)."]
        results = tested
    arms = group_arms(results)
    completed = [run for arm in arms for run in arm.runs]
    if not completed:
        states = ", ".join(sorted({result.status for result in results})) or "none found"
        raise RecordError(f"no run has completed yet ({len(results)} runs: {states}).")
    task = _task(completed)
    chosen = _metric(metric, task, completed)
    against = baselines(arms, baseline)
    found = decide(
        [_paired(arm, against.get(arm.key), chosen) for arm in arms],
        controls=[arm.example.is_random_features for arm in arms],
        lower_is_better=lower_is_better(chosen),
    )
    rows = tuple(
        row_of(arm, against.get(arm.key), paired, chosen, is_baseline=is_baseline(arm, baseline))
        for arm, paired in zip(arms, found, strict=True)
    )
    beside = references(arms, chosen)
    return Comparison(
        metric=chosen,
        task=task,
        rows=rows,
        references=beside,
        varies=_varies(arms),
        baseline=baseline or "training from scratch",
        unequal=tuple(one for arm in arms if arm.key in against for one in unequal(arm, against[arm.key])),
        notes=[*notes, *notes_of(arms, rows, named=baseline, references=beside, metric=chosen)],
        arms_by_key={arm.key: arm for arm in arms},
        abroad=abroad_of(arms, against, chosen, _paired),
    )


def _is_trial(result: Result) -> bool:
    return result.record is not None and result.record.config["trainer"].get("test") is False


def _task(runs: Sequence[Result]) -> str | None:
    tasks = sorted({run.task for run in runs if run.task is not None})
    if len(tasks) > 1:
        raise RecordError(f"these runs have different tasks ({', '.join(tasks)}): compare them apart.")
    return tasks[0] if tasks else None


def _metric(metric: str | None, task: str | None, runs: Sequence[Result]) -> str:
    """The metric to compare; raises RecordError where there is none of that name, or only some runs have it."""
    have = list(dict.fromkeys(name for run in runs for name, value in run.metrics.items() if value is not None))
    if metric is None:
        metric = (
            _of_the_data(runs)
            or DEFAULT_METRIC.get(task or "")
            or next((name for name in DEFAULT_METRIC.values() if name in have), have[0] if len(have) == 1 else None)
        )
    if metric is None:
        raise RecordError(f"--metric: say which of {', '.join(have) or 'none'} to compare.")
    known = [f"{split}/{name}" for split in ("test", "val") for name in METRICS[task]] if task in METRICS else have
    if metric not in known and metric not in have:
        hint = did_you_mean(metric, [*known, *have]) or f" There are {', '.join(known)}."
        raise RecordError(f"--metric {metric}: there is no such metric.{hint}")
    if metric not in have:
        own = [name for name in have if not evaluated_in(name)]
        raise RecordError(f"--metric {metric}: none of these runs has it. They have {', '.join(own) or 'none'}.")
    return metric


def _of_the_data(runs: Sequence[Result]) -> str | None:
    """The metric that counts for their data set, where all say the same one and have it."""
    named = {run.record.config["data"].get("metric") if run.record else None for run in runs}
    metric = f"test/{next(iter(named))}" if len(named) == 1 else ""
    return metric if any(run.metrics.get(metric) is not None for run in runs) else None


def _pairs(arm: Arm, baseline: Arm, metric: str) -> list[tuple[Result, Result]]:
    against = {run.pair: run for run in baseline.runs if run.metrics.get(metric) is not None}
    return [
        (run, against[run.pair]) for run in arm.runs if run.metrics.get(metric) is not None and run.pair in against
    ]


def _paired(arm: Arm, baseline: Arm | None, metric: str) -> Paired | None:
    pairs = _pairs(arm, baseline, metric) if baseline else []
    if not pairs:
        return None
    return compare_pairs(
        [float(mine.metrics[metric] or 0.0) for mine, _ in pairs],
        [float(other.metrics[metric] or 0.0) for _, other in pairs],
        clusters=[(mine.split_seed, mine.fold) for mine, _ in pairs],
        lower_is_better=lower_is_better(metric),
    )


def _varies(arms: Sequence[Arm]) -> str:
    said = dict.fromkeys(arm.varies for arm in arms if arm.runs and arm.varies != "nothing")
    return " or ".join(said) or "nothing"
