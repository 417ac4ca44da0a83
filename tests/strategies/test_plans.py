"""Plans: what each strategy trains, as a pure function of the step."""

from __future__ import annotations

import pytest

from headstart.config.schema.strategy import OPTIONS, FullConfig, LastKConfig, LinearProbeConfig
from headstart.errors import ConfigError
from headstart.facts import LayerGroup, LayerMap, LayerParameter
from headstart.strategies import Phase, Timing, TrainingPlan, build_plan
from headstart.strategies.build import STRATEGIES

TIMING = Timing(total_steps=100, steps_per_epoch=10)
NAMES = ("stem", "block.0", "block.1", "neck", "head")


def layers(problem: str = "") -> LayerMap:
    groups = tuple(LayerGroup(name, (LayerParameter(f"{name}.w", 10**i),), ()) for i, name in enumerate(NAMES))
    return LayerMap(groups, problem)


def test_the_registry_is_closed() -> None:
    assert set(STRATEGIES) == set(OPTIONS)


def test_what_trains() -> None:
    assert build_plan(FullConfig(), layers(), TIMING).ever_trained == NAMES
    assert build_plan(LinearProbeConfig(), layers(), TIMING).ever_trained == ("head",)
    assert build_plan(LastKConfig(k=1), layers(), TIMING).ever_trained == ("neck", "head")
    assert build_plan(LastKConfig(k=4), layers(), TIMING).ever_trained == NAMES


def test_trainable_numbers_are_counted() -> None:
    assert build_plan(LastKConfig(k=1), layers(), TIMING).count_trainable(layers()) == 11_000


def test_a_k_beyond_the_backbone() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.k=5: the backbone has 4 layer groups .stem \.\.\. neck."):
        build_plan(LastKConfig(k=5), layers(), TIMING)


def test_no_prefix_no_last_k() -> None:
    with pytest.raises(ConfigError, match="strategy=last_k: no order; use full, linear_probe or groups"):
        build_plan(LastKConfig(k=1), layers("no order"), TIMING)
    assert build_plan(FullConfig(), layers("no order"), TIMING).ever_trained == NAMES


def test_a_plan_is_asked_by_step() -> None:
    first, second = Phase(0, {"head": 1.0}), Phase(10, {"head": 1.0, "stem": 0.1})
    plan = TrainingPlan((first, second))
    assert [plan.at(step) for step in (0, 9, 10, 99)] == [first, first, second, second]
    assert plan.ever_trained == ("head", "stem")


@pytest.mark.parametrize("starts", [(), (1,), (0, 0), (0, 5, 3)])
def test_phases_go_forward_from_zero(starts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="phases must start at 0"):
        TrainingPlan(tuple(Phase(start, {"head": 1.0}) for start in starts))
