"""How the tuned keys of a sweep (`sweep.tune`) are searched: which trials are made, and which is best."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required


@dataclass
class SearchConfig:
    """Whether anything is searched."""

    name: str = required("Kind of search; choose it with `search=`.")


@dataclass
class NoSearchConfig(SearchConfig):
    """Every job is run and tested as it stands."""

    name: str = "none"


@dataclass
class TrialsConfig(SearchConfig):
    """Options that every search has; trials are validated and never tested."""

    metric: str = option(
        "auto",
        "Validation metric by which trials are told apart; `auto` is trainer.monitor.",
    )
    direction: str = option(
        "auto",
        "Whether more or less of the metric is better; only what is right for it is taken.",
        choices=("auto", "maximize", "minimize"),
    )
    seeds: list[int] = option([0], "Seeds with which each trial is run: it is as good as their mean.", least=0)
    keep_weights: bool = option(
        False, "Keep the weights of trials; what is tested is trained anew, with all seeds."
    )


@dataclass
class GridConfig(TrialsConfig):
    """Every combination of the values of `sweep.tune`; ranges need a `count`."""

    name: str = "grid"


@dataclass
class DrawnConfig(TrialsConfig):
    """Options of searches that draw their trials; they need headstart[search]."""

    trials: int = option(20, "Trials of each arm.", least=1)
    seed: int = option(0, "What the trials are drawn from.", least=0)
    pruner: str = option(
        "none",
        "`median` stops a trial whose metric is worse than the median of the others was at that epoch; of several "
        "seeds, the first one's curve counts.",
        choices=("none", "median"),
    )
    prune_after_trials: int = option(5, "Completed trials before any is stopped.", least=1)
    prune_after_epochs: int = option(1, "Epochs that every trial has.", least=1)


@dataclass
class RandomConfig(DrawnConfig):
    """Values drawn at random."""

    name: str = "random"


@dataclass
class TpeConfig(DrawnConfig):
    """Values drawn where earlier ones were good: tree-structured Parzen estimators (Bergstra et al. 2011)."""

    name: str = "tpe"
    startup_trials: int = option(10, "Trials drawn at random before that.", least=1)


OPTIONS = {"none": NoSearchConfig, "grid": GridConfig, "random": RandomConfig, "tpe": TpeConfig}
