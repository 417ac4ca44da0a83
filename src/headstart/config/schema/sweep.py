"""The jobs of a sweep: what an experiment file or a sweep file says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.config.schema.option import option


@dataclass
class SweepConfig:
    """The jobs of a sweep; `headstart train -m` runs them."""

    name: str | None = option(
        None,
        "Name of the sweep: launched again under it, only what is missing runs.",
        auto="the experiment's or sweep file's name, and a hash of what all jobs share",
    )
    list: Any = option([], "Sets of overrides, such as {weights: scratch, strategy: full}; one arm each.")
    zip: Any = option(
        {}, "Keys with lists of values of one length, which go together: the first of each, and so on."
    )
    grid: Any = option({}, "Keys with lists of values; every entry of `list` is run with each combination.")
    conditional: Any = option(
        [], "Grids for some jobs only, such as [{when: {strategy: last_k}, grid: {strategy.k: [1, 2]}}]."
    )
    exclude: Any = option(
        [], "Jobs to leave out: those that match all keys of an entry; a list means any of its values."
    )
    tune: Any = option(
        {},
        "Keys that `search=` finds values for, the same for each arm, with lists of values or ranges, such as "
        "{optimizer.lr: {low: 1e-4, high: 1e-1, log: true}}; an entry of `list` may have its own.",
    )
    curve: Any = option(
        [], "Keys of an axis along which the jobs count: curve.png has a line per name over the first that is set."
    )

    @property
    def has_jobs(self) -> bool:
        """Whether it says of any job more than that there is one."""
        return any((self.list, self.zip, self.grid, self.conditional, self.tune))
