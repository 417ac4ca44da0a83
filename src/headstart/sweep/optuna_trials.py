"""Trials drawn by Optuna, at random or by TPE, kept in `search.db` of the sweep's folder.

What a trial draws depends on the search's seed, the trial's number and, for TPE, the trials that had ended: a
search that is interrupted goes on as it would have. (A sampler that is made anew from one seed would draw its first
values again.)
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.config.schema.search import DrawnConfig, TpeConfig
from headstart.errors import ConfigError, RecordError
from headstart.sweep.space import Space, TunedKey
from headstart.sweep.trials import Told, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

STORAGE = "search.db"
_NUMBER, _DRAWN = "trial", "drawn"
"""User attributes: a trial's number, which one that is tried once more keeps, and then its values."""


def check_installed(search: DrawnConfig) -> None:
    """Raise ConfigError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f'search={search.name}: needs Optuna: pip install "headstart[search]".')


class OptunaTrials:
    """The trials of one study; see `Trials`."""

    def __init__(
        self, folder: Path, *, study: str, space: Space, search: DrawnConfig, trials: int, minimize: bool
    ) -> None:
        import optuna
        from sqlalchemy.engine import URL
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        address = URL.create("sqlite", database=str(folder.absolute() / STORAGE)).render_as_string()
        self._optuna = optuna
        self._search, self._space, self._trials = search, space, trials
        self._distributions = {tuned.key: _distribution(tuned) for tuned in space}
        try:
            self._study = optuna.create_study(
                storage=optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}}),
                study_name=study,
                direction="minimize" if minimize else "maximize",
                pruner=_pruner(search),
                load_if_exists=True,
            )
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            reason = " ".join(str(error).split())[:120]
            raise RecordError(
                f"{folder / STORAGE}: cannot be used ({reason}); move it away to search anew."
            ) from error

    def told(self) -> Mapping[int, Told]:
        """What is known already, by number."""
        states = self._optuna.trial.TrialState
        words = {states.COMPLETE: "completed", states.PRUNED: "pruned", states.FAIL: "failed"}
        return {
            number: Told(
                self._drawn(trial.params),
                words[trial.state],
                trial.value if words[trial.state] == "completed" else None,
            )
            for number, trial in self._latest().items()
            if trial.state in words and number < self._trials
        }

    def open(self) -> list[Trial]:
        """Trials that an earlier launch asked for and did not finish, or that failed and are tried once more."""
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            # a launch was killed while it asked; without a number it is asked for again
            if _NUMBER not in trial.user_attrs or set(trial.params) != set(self._distributions):
                self._study.tell(trial.number, state=states.FAIL)
        for number, trial in self._latest().items():
            if trial.state == states.FAIL and number < self._trials:
                drawn = trial.user_attrs.get(_DRAWN, trial.params)
                self._study.enqueue_trial(drawn, user_attrs={_NUMBER: number, _DRAWN: drawn})
        while self._study.get_trials(deepcopy=False, states=(states.WAITING,)):
            self._study.ask(self._distributions)
        return [
            Trial(number, self._drawn(trial.params))
            for number, trial in sorted(self._latest().items())
            if trial.state == states.RUNNING and number < self._trials
        ]

    def ask(self) -> Trial | None:
        """The next one; None when all have been asked for."""
        number = self._next()
        if number >= self._trials:
            return None
        self._study.sampler = _sampler(self._search, number)
        trial = self._study.ask(self._distributions)
        trial.set_user_attr(_NUMBER, number)
        return Trial(number, self._drawn(trial.params))

    def ahead(self) -> bool:
        """Whether the next one waits for none: it is drawn at random, and nothing could stop it yet.

        Trials that are made at the same time cannot be worse than the median of each other.
        """
        number, search = self._next(), self._search
        if search.pruner != "none" and number >= search.prune_after_trials:
            ended = sum(told.status == "completed" for told in self.told().values())
            if ended < search.prune_after_trials:
                return False
        return not isinstance(search, TpeConfig) or number < search.startup_trials

    def report(self, number: int, curve: Mapping[int, float]) -> bool:
        """Take down the metric by epoch, as far as it goes; whether the trial should stop."""
        frozen = self._latest()[number]
        trial = self._handle(frozen)
        known = frozen.intermediate_values
        stop = bool(known) and bool(trial.should_prune())  # perhaps nobody could act on that before
        for epoch in sorted(set(curve) - set(known)):
            trial.report(curve[epoch], epoch)
            stop = bool(trial.should_prune()) or stop
        return stop

    def tell(self, number: int, told: Told) -> None:
        """Take down what became of a trial: a crash as failed, never as pruned."""
        states = self._optuna.trial.TrialState
        state = {"completed": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[told.status]
        trial = self._latest()[number]
        if trial.state == states.RUNNING:
            self._study.tell(trial.number, told.value, state=state)

    def _latest(self) -> dict[int, FrozenTrial]:
        """Optuna's last trial of each number."""
        found = self._study.get_trials(deepcopy=False)
        return {int(trial.user_attrs[_NUMBER]): trial for trial in found if _NUMBER in trial.user_attrs}

    def _next(self) -> int:
        return max(self._latest(), default=-1) + 1

    def _handle(self, trial: FrozenTrial) -> Any:
        return self._optuna.trial.Trial(self._study, trial._trial_id)

    def _drawn(self, params: Mapping[str, Any]) -> dict[str, Any]:
        drawn = {}
        for tuned in self._space:
            value = params[tuned.key]
            drawn[tuned.key] = tuned.values[_choices(tuned).index(value)] if tuned.values else value
        return drawn


def _distribution(tuned: TunedKey) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if tuned.values:
        return CategoricalDistribution(_choices(tuned))
    if tuned.whole:
        return IntDistribution(int(tuned.low), int(tuned.high), log=tuned.log)
    return FloatDistribution(tuned.low, tuned.high, log=tuned.log)


def _choices(tuned: TunedKey) -> list[Any]:
    """The values as Optuna keeps them: a list as text."""
    return [json.dumps(value) if isinstance(value, list) else value for value in tuned.values]


def _sampler(search: DrawnConfig, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{search.seed}/{number}".encode()).digest()[:4], "big")
    if isinstance(search, TpeConfig):
        # trials that still run count as bad ones, or those at the same time would all be at the same place
        return TPESampler(seed=seed, n_startup_trials=search.startup_trials, constant_liar=True)
    return RandomSampler(seed=seed)


def _pruner(search: DrawnConfig) -> BasePruner:
    from optuna.pruners import MedianPruner, NopPruner

    if search.pruner == "none":
        return NopPruner()
    return MedianPruner(n_startup_trials=search.prune_after_trials, n_warmup_steps=search.prune_after_epochs)
