"""What a notebook needs; each function imports what it uses, so that comparing runs never waits for torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from headstart.compare.comparison import Comparison
    from headstart.records.schema import RunRecord
    from headstart.transferability.ranking import Ranking

AnyPath = str | PathLike[str]


def train(overrides: Sequence[str] = (), *, config_dir: AnyPath | None = None) -> RunRecord:
    """Run one experiment, as `headstart train` does with the same overrides, and return its record.

    Raises a HeadstartError for a mistake in them, RunFailed where training came to nothing.
    """
    from headstart.config.compose import compose
    from headstart.experiment import run

    config = compose(list(overrides), config_dirs=(str(config_dir),) if config_dir else ())
    return run(config, command=["headstart.train", *overrides])[1]


def runs(path: AnyPath | None = None) -> pd.DataFrame:
    """A row per run below `path`: what it was, what came out; nested values under dotted names.

    By default `path` is where `train` writes.
    """
    from headstart.compare.listing import frame_of
    from headstart.config.paths import default_output_dir
    from headstart.records.store import find_runs

    return frame_of(find_runs([Path(path) if path else default_output_dir()])[0])


def compare(*paths: AnyPath, metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Compare what is below `paths`, paired by seed and split; `.arms` is the table as a data frame.

    A path is as for `headstart compare`; by default it is where `train` writes. `baseline` names another arm to
    measure against. Raises a HeadstartError where there is nothing to compare.
    """
    from headstart.compare.comparison import compare_results
    from headstart.compare.sources import find_results
    from headstart.config.paths import default_output_dir

    results, notes = find_results([Path(path) for path in paths or (default_output_dir(),)], metric=metric)
    return compare_results(results, metric=metric, baseline=baseline, notes=notes)


def rank(
    backbones: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    scores: Sequence[str] = (),
    by: str | None = None,
    draws: int = 100,
    controls: bool = False,
    elsewhere: Sequence[AnyPath] = (),
    config_dir: AnyPath | None = None,
) -> Ranking:
    """Candidates, best first, ranked by one forward pass each, as `headstart rank` does; nothing is written.

    `backbones` are names, globs of timm's names or folders of runs, each with overrides of its own after it;
    `overrides` say what data they are ranked on. `draws` is how many resamples of the images the intervals come
    from; with `controls` each backbone is ranked with random weights too. Raises a HeadstartError for a
    mistake, and where no candidate can be had.
    """
    from headstart.transferability.candidates import find_candidates, with_controls
    from headstart.transferability.rank import Asked
    from headstart.transferability.rank import rank as rank_asked

    config_dirs = (str(config_dir),) if config_dir else ()
    candidates = find_candidates(backbones, shared=overrides, config_dirs=config_dirs)
    return rank_asked(
        Asked(
            candidates=with_controls(candidates) if controls else candidates,
            shared=overrides,
            scores=scores,
            by=by,
            draws=draws,
            elsewhere=[Path(path) for path in elsewhere],
            config_dirs=config_dirs,
            command=("headstart.rank", *backbones),
        )
    )


def load(run_folder: AnyPath) -> tuple[torch.nn.Module, Callable[[Any], torch.Tensor]]:
    """The trained model of a completed run, in evaluation mode, and its transform.

    `model(transform(image)[None])` gives class scores before softmax or sigmoid, (1, classes), of two classes with
    data.positive (1, 1), or numbers in the data's own units; `image` is PIL's, or an array (height, width,
    channels). Raises RecordError where the run kept no weights.
    """
    from headstart.trained import load_run

    return load_run(Path(run_folder))
