"""The W&B workspace and report of a project, made by code: the same every time, and saved over the ones before."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.comparison import Comparison, compare_results
from headstart.compare.formats import footer, markdown
from headstart.compare.results import Result, result_of_run
from headstart.compare.sheets import arms_sheet
from headstart.compare.summary import summarise
from headstart.compare.wandb_results import runs_of
from headstart.config.wandb_access import base_url
from headstart.errors import ConfigError, RecordError
from headstart.records.wandb_api import open_api, reason_of
from headstart.records.wandb_copy import ARM_KEY, record_from_wandb


def gain_key(metric: str) -> str:
    """Summary key of a run's gain: its metric minus that of its partner in the baseline."""
    return f"gain/{metric}"


TITLE = "Headstart"


@dataclass(frozen=True)
class Saved:
    """Where the workspace and the report are, and how many runs were told their arm and gain anew."""

    workspace: str
    report: str
    runs: int
    updated: int


def check_dashboard() -> None:
    """Raise ConfigError where the package is missing."""
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise ConfigError('dashboard: needs wandb-workspaces: pip install "headstart[dashboard]".') from error


def save_dashboard(project: str, *, entity: str | None, group: str | None, metric: str | None) -> Saved:
    """Compare the runs of a project, tell each its arm and gain, and save a workspace view and a report of them.

    Raises RecordError where W&B cannot be asked, has no such project, or refuses; ConfigError without the package.
    """
    check_dashboard()
    said = f"dashboard {project}"
    entity = entity or _default_entity(said)
    logged = {run.id: run for run in runs_of(entity, project, group, said=said)}
    results = _results(logged)
    if not results:
        raise RecordError(f"{said}: none of its {len(logged)} runs was logged by Headstart to its end.")
    comparison = compare_results(list(results.values()), metric=metric)
    try:
        updated = _tell_runs(logged, results, comparison)
        panels = Panels(comparison.metric)
        workspace = _save_workspace(entity, project, group, list(results.values()), panels)
        report = _save_report(entity, project, group, comparison, panels)
    except Exception as error:
        raise RecordError(f"{said}: {reason_of(error)}") from error
    return Saved(workspace, report, len(results), updated)


def _default_entity(said: str) -> str:
    entity = open_api(said).default_entity
    if not entity:
        raise RecordError(f"{said}: the key has no default team; give entity/project.")
    return str(entity)


def _results(logged: dict[str, Any]) -> dict[str, Result]:
    """W&B id -> result, of the runs that Headstart logged."""
    found = {}
    for id, run in logged.items():
        try:
            found[id] = result_of_run(None, record_from_wandb(run.config, dict(run.summary)))
        except RecordError:
            continue
    return found


def _tell_runs(logged: dict[str, Any], results: dict[str, Result], comparison: Comparison) -> int:
    """Write arm and gain into the runs that do not say them yet; how many those were."""
    gains = {
        mine.id: float(mine.metrics[comparison.metric] or 0) - float(other.metrics[comparison.metric] or 0)
        for row in comparison.rows
        for mine, other in comparison.pairs_of(row)
    }
    key = gain_key(comparison.metric)
    labels = {run.id: arm.label for arm in comparison.arms_by_key.values() for run in (*arm.runs, *arm.others)}
    count = 0
    for id, result in results.items():
        run, gain, label = logged[id], gains.get(result.id), labels.get(result.id)
        if label is None or (run.config.get(ARM_KEY) == label and run.summary.get(key) == gain):
            continue
        run.config[ARM_KEY] = label
        run.summary[key] = gain  # or none any more
        run.update()
        count += 1
    return count


class Panels:
    """The panels of both; each call gives new ones with the same ids."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.gain = gain_key(metric)
        self.curve = f"val/{metric.partition('/')[2]}"

    def __call__(self) -> list[Any]:
        """Gain by arm, the metric by arm, curves by arm, result against cost, and what the configs differ in."""
        import wandb_workspaces.reports.v2 as wr

        arm = wr.Config(ARM_KEY)
        made = [
            wr.BarPlot(
                title="Gain over training from scratch, by arm",
                metrics=[wr.SummaryMetric(self.gain)],
                groupby=arm,
                groupby_aggfunc="mean",
                groupby_rangefunc="minmax",
                layout=wr.Layout(x=0, y=0, w=12, h=8),
            ),
            wr.BarPlot(
                title=f"{self.metric}, by arm",
                metrics=[wr.SummaryMetric(self.metric)],
                groupby=arm,
                groupby_aggfunc="mean",
                groupby_rangefunc="minmax",
                layout=wr.Layout(x=12, y=0, w=12, h=8),
            ),
            wr.LinePlot(
                title="Learning curves, by arm",
                x="trainer/step",
                y=[self.curve],
                groupby=arm,
                groupby_aggfunc="mean",
                groupby_rangefunc="minmax",
                log_x=True,
                layout=wr.Layout(x=0, y=8, w=12, h=8),
            ),
            wr.ScatterPlot(
                title="Result against cost",
                x=wr.SummaryMetric("seconds/total"),
                y=wr.SummaryMetric(self.metric),
                log_x=True,
                layout=wr.Layout(x=12, y=8, w=12, h=8),
            ),
            wr.RunComparer(diff_only="split", layout=wr.Layout(x=0, y=16, w=24, h=9)),
        ]
        for place, panel in enumerate(made):
            panel._id = stable_id("panel", place)  # else each save would give it another
        return made


def stable_id(*parts: object) -> str:
    """Eleven letters that follow from the parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:11]


def _filters(results: Sequence[Result], group: str | None) -> list[Any]:
    """Finished runs, and one filter each by backbone, strategy and data that all of them pass: to be narrowed."""
    import wandb_workspaces.workspaces as ws

    def seen(group_name: str, key: str) -> list[str]:
        return sorted({str(one.config[group_name][key]) for one in results})

    chosen: list[Any] = [ws.Metric("State") == "finished"]
    if group:
        chosen.append(ws.Metric("Group") == group)
    for group_name, key in (("backbone", "name"), ("strategy", "name"), ("weights", "source"), ("data", "source")):
        chosen.append(ws.Config(f"{group_name}.{key}").isin(seen(group_name, key)))
    return chosen


def _save_workspace(entity: str, project: str, group: str | None, results: Sequence[Result], panels: Panels) -> str:
    import wandb_workspaces.workspaces as ws

    name = TITLE if group is None else f"{TITLE}: {group}"
    slug = stable_id(entity, project, name)
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(name="Arms", panels=panels(), is_open=True)],
        runset_settings=ws.RunsetSettings(
            filters=_filters(results, group),
            groupby=[ws.Config(ARM_KEY)],
            order=[ws.Ordering(ws.Summary(panels.metric), ascending=False)],
        ),
    )
    # the name by which a view is found again follows from its title: saved twice, it is one view
    workspace._internal_name = f"nw-{slug}-v"
    workspace._internal_runset_id = stable_id("runset")
    try:
        found = ws.Workspace.from_url(f"{base_url()}/{entity}/{project}?nw={slug}")
    except ValueError:  # not there yet
        pass
    else:
        workspace._internal_id = found._internal_id
    return str(workspace.save().url)


def _save_report(entity: str, project: str, group: str | None, comparison: Comparison, panels: Panels) -> str:
    import wandb
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    title = f"{TITLE} report" if group is None else f"{TITLE} report: {group}"
    runs = wr.Runset(
        entity=entity,
        project=project,
        name="finished runs",
        filters=[ws.Metric("State") == "finished", *([ws.Metric("Group") == group] if group else [])],
        groupby=[f"config.{ARM_KEY}"],
    )
    runs._id = stable_id("runset")
    lines = [line for line in footer(comparison, summarise(comparison)) if line]
    report = wr.Report(
        entity=entity,
        project=project,
        title=title,
        description=f"{comparison.metric}, measured against {comparison.baseline}; saved by `headstart dashboard`.",
        blocks=[
            wr.H1("What is transfer worth here?"),
            wr.UnorderedList(items=lines),
            wr.MarkdownBlock(text=markdown(arms_sheet(comparison))),
            wr.PanelGrid(runsets=[runs], panels=panels()),
        ],
    )
    there = [one for one in wandb.Api().reports(f"{entity}/{project}") if one.display_name == title]
    if there:
        report.id = there[0].id
    return str(report.save().url)
