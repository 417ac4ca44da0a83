"""Rank backbones before training: one forward pass each, and how far such scores can be trusted.

headstart rank data=image_folder data.path=photos 'backbones=[efficientnet_lite0,resnet18,convnext_*]'
headstart rank data=digits 'backbones=[test_*, "test_resnet weights=scratch"]' weights=scratch --by linear_probe
headstart rank data=digits 'backbones=[resnet18,resnet50]' --top 1 --then transfer_vs_scratch
headstart rank --ranking outputs/rankings/X --against outputs/sweeps/Y      how good was it?
headstart rank --against table.csv                                          a table of scores and accuracies
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ConfigError
from headstart.printable import one_line

if TYPE_CHECKING:
    from headstart.sweep.expand import Jobs
    from headstart.transferability.candidates import Candidate
    from headstart.transferability.ranking import Ranking

_MATTERS = (
    "data", "weights", "seed", "output_dir", "head.pool",
    *(f"features.{name}" for name in ("batch_size", "dtype", "cache", "cache_gb")),
    *(f"trainer.{name}" for name in ("threads", "accelerator", "precision", "deterministic")),
)  # fmt: skip
_OF_TRAINING = tuple(
    f"data.{name}"
    for name in (
        "augment",
        "augment_magnitude",
        "keep_side",
        "mixup_alpha",
        "cutmix_alpha",
        "sampling",
        "refit_on_val",
    )
)
"""Options of data that only training looks at; `augment=bit` says how images are seen, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which candidates, on what, by which scores, and what comes after."""
    parser.add_argument("overrides", nargs="*", help="key=value as for `headstart train`, and backbones=[...]")
    parser.add_argument("--config-dir", action="append", default=[], help="folder of further configs")
    parser.add_argument("--scores", help="such as logme,knn (default: all that the task has; docs/scores.md)")
    parser.add_argument("--by", metavar="SCORE", help="the score that orders the candidates (default: the first)")
    parser.add_argument(
        "--bootstrap", type=int, default=100, metavar="N", help="resamples for the intervals; 0: none"
    )
    parser.add_argument(
        "--controls", action="store_true", help="rank each backbone with random weights too, which warnings rest on"
    )
    parser.add_argument(
        "--source",
        metavar="OVERRIDES",
        help="images of the source of all candidates, such as 'data=... data.path=...'",
    )
    parser.add_argument(
        "--elsewhere", type=Path, action="append", default=[], metavar="PATH",
        help="results on other data sets (sweeps, outputs, CSV): the static baseline is their mean",
    )  # fmt: skip
    parser.add_argument("--top", type=int, metavar="K", help="with --then: how many of the best it trains")
    parser.add_argument("--then", metavar="SWEEP", help="train the best: a sweep of conf/sweep, or a .yaml file")
    parser.add_argument(
        "--against", type=Path, action="append", default=[], metavar="PATH",
        help="say how well the ranking agrees with what training gave: a sweep, outputs or a CSV file",
    )  # fmt: skip
    parser.add_argument("--ranking", type=Path, metavar="PATH", help="with --against: a ranking that was saved")
    parser.add_argument("--metric", help="with --against: what was measured, such as test/accuracy")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="where the picture goes (default: beside the ranking)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Rank, or say how good a ranking was; exit status 3 where a candidate was left out."""
    _check(arguments)
    if not arguments.overrides:
        from headstart.cli.rank_against import show
        from headstart.transferability.ranking import read_ranking

        return show(
            read_ranking(arguments.ranking) if arguments.ranking else None,
            arguments.against,
            metric=arguments.metric,
            how=arguments.format,
            plot=arguments.plot,
            elsewhere=arguments.elsewhere,
        )
    return _rank(arguments)


def _check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that do not go together."""
    from headstart.transferability.ranking import PROBE

    if not arguments.overrides and not arguments.against:
        raise ConfigError("rank: name data and candidates, such as data=digits 'backbones=[resnet18,resnet50]'.")
    if not arguments.overrides and arguments.then:
        raise ConfigError("--then: trains what a ranking found; name data and candidates too.")
    if arguments.ranking and (arguments.overrides or not arguments.against):
        raise ConfigError("--ranking: is a ranking to judge; it goes with --against and no overrides.")
    if (arguments.top is None) != (arguments.then is None):
        raise ConfigError("--top K and --then SWEEP go together: the K best are trained.")
    if arguments.top is not None and arguments.top < 1:
        raise ConfigError(f"--top {arguments.top}: must be at least 1.")
    if arguments.bootstrap < 0:
        raise ConfigError(f"--bootstrap {arguments.bootstrap}: must be at least 0.")
    if arguments.controls and (
        not arguments.bootstrap or (arguments.scores and PROBE not in _names(arguments.scores))
    ):
        raise ConfigError(f"--controls: are for warnings, which rest on intervals of {PROBE}; ask for that too.")
    if arguments.format != "table" and arguments.overrides and (arguments.then or arguments.against):
        raise ConfigError(
            f"--format {arguments.format}: is one document; rank first, then `headstart rank --ranking X --against "
            "Y`."
        )
    if arguments.metric and not (arguments.against or arguments.then):
        raise ConfigError("--metric: is what --against compares with.")
    for path in (*arguments.against, *arguments.elsewhere):
        if not path.exists() and not str(path).startswith("wandb:"):
            raise ConfigError(f"{path}: there is no such file or folder.")


def _rank(arguments: argparse.Namespace) -> int:
    from headstart.config.paths import output_dir_of
    from headstart.records.pictures import check_picture
    from headstart.records.store import check_writable
    from headstart.transferability.candidates import find_candidates, split_asked, with_controls
    from headstart.transferability.examine import config_of
    from headstart.transferability.ranking import INTERRUPTED

    if arguments.plot:
        check_picture(arguments.plot)
    config_dirs = tuple(arguments.config_dir)
    entries, shared = split_asked(arguments.overrides)
    own = [text for text in shared if _matters(text)]
    if (idle := [text for text in shared if text not in own]) and not arguments.then:
        raise ConfigError(f"{idle[0]}: has no effect on a ranking; it is for the sweep of --then.")
    candidates = find_candidates(entries, shared=own, config_dirs=config_dirs)
    if arguments.controls:
        candidates = with_controls(candidates, shared=own)
    output_dir = output_dir_of(config_of(candidates[0], own, config_dirs))
    check_writable(output_dir)
    with ExitStack() as stack:
        train = None
        if arguments.then:
            from headstart.transferability.then import jobs_of, sweep_file

            sweep, folders = stack.enter_context(sweep_file(arguments.then, config_dirs))
            train = functools.partial(jobs_of, sweep=sweep, shared=shared, config_dirs=folders)
            train(candidates[:1])  # what cannot be trained is said before the long work
        ranking = _ranking(arguments, candidates, own, config_dirs)
        folder = _keep(ranking, output_dir, plot=arguments.plot)
        _show(ranking, folder, how=arguments.format, plot=arguments.plot)
        if INTERRUPTED in ranking.left_out.values():
            raise KeyboardInterrupt
        wanted = arguments.by or (_names(arguments.scores) or [ranking.by])[0]
        status = 3 if ranking.left_out or wanted != ranking.by else 0
        for name, why in ranking.left_out.items():
            print(one_line(f"left out: {name}: {why}"), file=sys.stderr)
        trained: list[Path] = []
        if train:
            named = {one.name: one for one in candidates}
            best = [named[one.name] for one in ranking.candidates[: arguments.top]]
            launched = _train(train(best))
            trained, status = [launched.folder], max(status, 0 if launched.is_done else 3)
        if arguments.against or trained:
            from headstart.cli.rank_against import show

            asked = [*arguments.against, *trained]
            show(ranking, asked, metric=arguments.metric, how=arguments.format, plot=None, elsewhere=[])
        return status


def _ranking(
    arguments: argparse.Namespace, candidates: list[Candidate], shared: list[str], config_dirs: tuple[str, ...]
) -> Ranking:
    from headstart.transferability.rank import Asked, rank
    from headstart.transferability.source_images import data_from_overrides

    asked = Asked(
        candidates=candidates,
        shared=shared,
        scores=_names(arguments.scores),
        by=arguments.by,
        draws=arguments.bootstrap,
        elsewhere=arguments.elsewhere,
        source=data_from_overrides(shlex.split(arguments.source), config_dirs) if arguments.source else None,
        config_dirs=config_dirs,
        command=("headstart", *sys.argv[1:]),
    )
    return rank(asked, say=lambda line: print(one_line(line), file=sys.stderr, flush=True))


def _keep(ranking: Ranking, output_dir: Path, *, plot: Path | None) -> Path:
    """Write the ranking, its rows and its picture; returns their folder."""
    from headstart.records.atomic import write_text
    from headstart.records.store import new_run_folder
    from headstart.transferability.listing import csv_of
    from headstart.transferability.picture import draw_ranking
    from headstart.transferability.ranking import RANKINGS, write_ranking

    folder = new_run_folder(output_dir, words=[ranking.dataset, ranking.by], digest=ranking.id, kind=RANKINGS)
    write_ranking(folder, ranking)
    write_text(folder / "ranking.csv", csv_of(ranking))
    draw_ranking(ranking, plot or folder / "ranking.png")
    return folder


def _show(ranking: Ranking, folder: Path, *, how: str, plot: Path | None) -> None:
    from headstart.transferability.listing import csv_of, lines, table

    if how == "json":
        print((folder / "ranking.json").read_text(encoding="utf-8"), end="")
    elif how == "csv":
        print(csv_of(ranking), end="")
    else:
        from rich.console import Console

        named = one_line(ranking.dataset)
        print(f"{named}: {ranking.images:,} training images, {ranking.outputs} outputs ({ranking.task})")
        console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
        console.print(table(ranking, width=console.width))
        for line in lines(ranking):
            print(line)
        print(f"Picture: {plot or folder / 'ranking.png'}")
        print(f"Ranking: {folder}")


@dataclass(frozen=True)
class _Trained:
    folder: Path
    is_done: bool


def _train(jobs: Jobs) -> _Trained:
    """Launch the sweep and show its comparison."""
    from headstart.cli.train import report
    from headstart.sweep.launch import launch

    runs = f"{len(jobs.jobs)} run{'s' * (len(jobs.jobs) != 1)}"
    print(f"{runs} of the best; checking the jobs ...", file=sys.stderr, flush=True)
    launched = launch(jobs, command=["headstart", *sys.argv[1:]])
    return _Trained(launched.folder, report(launched) == 0)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _matters(text: str) -> bool:
    """Whether an override can change a ranking."""
    from headstart.transferability.candidates import is_of

    if any(is_of(key, text) for key in _OF_TRAINING):
        return text.endswith("=bit")
    return any(is_of(key, text) for key in _MATTERS)
