"""What a sweep's search has tried and found: a table, a picture of every trial, and what is worth a second look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from headstart.errors import RecordError
from headstart.records.pictures import check_picture, write_picture
from headstart.records.store import metric_of
from headstart.records.studies import Study, overrides_of
from headstart.records.sweeps import Sweep, read_sweep, states_of

_COLOURS = ("#2a6f97", "#c2410c", "#2f855a", "#7b5ea7", "#8a6d3b", "#9b2c5e", "#4a5568")


@dataclass(frozen=True)
class Tried:
    """One trial of a study that has completed."""

    tuned: Mapping[str, Any]
    value: float
    """The metric's mean over its seeds."""


def tried(folder: Path) -> dict[str, list[Tried]]:
    """Completed trials by study."""
    sweep = read_sweep(folder)
    metric = {id: chosen.metric for id, chosen in sweep.chosen.items()}
    trials = [job for job in sweep.jobs if job.trial is not None and job.study in metric]
    states = states_of(folder, trials)
    values: dict[tuple[str, int], list[float | None]] = {}
    tuned: dict[tuple[str, int], Mapping[str, Any]] = {}
    for job in trials:
        place = (str(job.study), int(job.trial or 0))
        run = states[job.id].run if states[job.id].status == "completed" else None
        value = metric_of(folder.parent.parent / "runs" / run, metric[place[0]]) if run else None
        values.setdefault(place, []).append(value)
        tuned[place] = job.tuned
    found: dict[str, list[Tried]] = {}
    for place, several in values.items():
        known = [value for value in several if value is not None]
        if len(known) == len(several):  # a trial of which a seed failed has no value
            found.setdefault(place[0], []).append(Tried(tuned[place], sum(known) / len(known)))
    return found


def table(sweep: Sweep) -> Table:
    """A row per study: how many trials, and the best of them."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("tuned")
    for name in ("trials", "failed", "pruned"):
        grid.add_column(name, justify="right", no_wrap=True)
    metrics = dict.fromkeys(chosen.metric for chosen in sweep.chosen.values())
    grid.add_column(f"best {' or '.join(metrics)}", justify="right", no_wrap=True)
    grid.add_column("with")
    for study in sweep.studies:
        chosen = sweep.chosen.get(study.id)
        if chosen is None or chosen.value is None:
            grid.add_row(
                Text(study.varied or "one arm"),
                str(study.trials),
                "",
                "",
                "-",
                Text("not over yet, or no trial completed"),
            )
            continue
        grid.add_row(
            Text(study.varied or "one arm"),
            str(chosen.trials),
            str(chosen.failed),
            str(chosen.pruned),
            f"{chosen.value:.4f}",
            Text(" ".join(overrides_of(chosen.tuned))),
        )
    return grid


def edges(sweep: Sweep) -> list[str]:
    """A line for each best value at the end of what was searched: a better one may lie beyond."""
    return [
        f"{study.varied or 'the best trial'}: {key}={sweep.chosen[study.id].tuned[key]} lies at the end of its "
        "range; a wider one may be better."
        for study in sweep.studies
        if study.id in sweep.chosen
        for key in sweep.chosen[study.id].at_edge
    ]


def draw(folder: Path, path: Path) -> None:
    """Write a picture of every completed trial, a panel per tuned key; raises RecordError where there are none."""
    check_picture(path)
    from matplotlib.figure import Figure

    sweep = read_sweep(folder)
    found = tried(folder)
    if not found:
        raise RecordError(f"{folder}: no trial has completed in a study that is over.")
    keys = [key for key in sweep.tuned if any(key in study.space for study in sweep.studies)]
    figure = Figure(figsize=(1.4 + 3.6 * len(keys), 3.9), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        numeric = all(
            _is_number(one.tuned.get(key)) for trials in found.values() for one in trials if key in one.tuned
        )
        for i, study in enumerate(sweep.studies):
            points = [one for one in found.get(study.id, ()) if key in one.tuned]
            _panel(axes, study, points, key, numeric=numeric, colour=_COLOURS[i % len(_COLOURS)], sweep=sweep)
        if numeric and _spread(
            [float(one.tuned[key]) for trials in found.values() for one in trials if key in one.tuned]
        ):
            axes.set_xscale("log")
        axes.set_xlabel(key)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    panels[0].set_ylabel(next(iter(sweep.chosen.values())).metric)
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle("every completed trial; ringed: the best of its arm, which is run again and tested", fontsize=9)
    write_picture(figure, path)


def _panel(
    axes: Any, study: Study, points: list[Tried], key: str, *, numeric: bool, colour: str, sweep: Sweep
) -> None:
    places = [one.tuned[key] if numeric else json.dumps(one.tuned[key]).strip('"') for one in points]
    label = study.varied or "trials"
    axes.plot(places, [one.value for one in points], "o", color=colour, markersize=4.5, alpha=0.75, label=label)
    chosen = sweep.chosen.get(study.id)
    if chosen and chosen.value is not None and key in chosen.tuned:
        place = chosen.tuned[key] if numeric else json.dumps(chosen.tuned[key]).strip('"')
        axes.plot([place], [chosen.value], "o", markersize=11, markerfacecolor="none", markeredgecolor=colour)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spread(values: list[float]) -> bool:
    """Whether values span so much that equal ratios say more than equal distances."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 20
