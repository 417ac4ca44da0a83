"""Make or update a W&B project's workspace view and report: gain by arm, curves, result against cost."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which project."""
    parser.add_argument("project", help="a W&B project: `project` of your default team, or `entity/project`")
    parser.add_argument("--group", metavar="SWEEP", help="one sweep of it alone")
    parser.add_argument("--metric", help="such as test/accuracy_macro (default: the task's main one)")


def run(arguments: argparse.Namespace) -> int:
    """Save both, and print where they are."""
    from headstart.compare.dashboard import save_dashboard
    from headstart.config.wandb_access import base_url
    from headstart.errors import ConfigError
    from headstart.network import reachable

    entity, slash, project = arguments.project.rpartition("/")
    if not project or (slash and not entity) or "/" in entity:
        raise ConfigError(f"dashboard {arguments.project}: must be `project` or `entity/project`.")
    if not reachable(base_url()):
        raise ConfigError(f"dashboard: W&B ({base_url()}) is out of reach.")
    saved = save_dashboard(project, entity=entity or None, group=arguments.group, metric=arguments.metric)
    print(f"{saved.runs} runs, {saved.updated} of them told their arm and gain anew")
    print(f"workspace: {saved.workspace}")
    print(f"report: {saved.report}")
    return 0
