"""Solvers of a head: what they read, what they refuse, and what `auto` stands for."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.config.compose import compose
from headstart.config.schema.head import LinearHeadConfig
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.resolve import resolve, resolve_for_data

PLAIN = ("backbone.name=test_resnet", "weights=scratch", "strategy=linear_probe", "logger=none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("head.penalties=[1]", "read by head.solver=lbfgs or ridge; it is gradient"),
        ("head.solver=knn head.penalties=[1]", "read by head.solver=lbfgs or ridge; it is knn"),
        ("head.solver=ridge head.neighbors=[5]", "read by head.solver=knn; it is ridge"),
        ("head.solver=lbfgs head.temperature=0.1", "read by head.solver=knn; it is lbfgs"),
        ("head.solver=lbfgs head.penalties=[]", "each of them once"),
        ("head.solver=lbfgs head.penalties=[1,1.0]", "each of them once"),
        ("head.solver=lbfgs head.penalties=[0]", "must be above 0"),
        ("head.solver=knn head.neighbors=[0]", "must be at least 1"),
        ("head.solver=ridge head.dropout=0.5", "could drop out"),
        ("head.solver=ridge head.init=zero", "does not start from anything"),
        ("head.solver=lbfgs loss.name=focal", "minimises the cross-entropy; use loss.name=auto"),
        ("head.solver=ridge loss.name=mae", "minimises squared errors"),
        ("head.solver=knn loss.label_smoothing=0.1", "minimises nothing"),
        ("head.solver=ridge loss.class_weights=balanced", "minimises squared errors"),
        ("head.solver=lbfgs trainer.max_epochs=5", "trainer.max_epochs=5: is for training in steps"),
        ("head.solver=lbfgs trainer.max_time=00:01:00:00", "trainer.max_time"),
        ("head.solver=knn trainer.early_stopping_patience=2", "trainer.early_stopping_patience=2"),
        ("head.solver=knn trainer.gradient_clip_val=1", "trainer.gradient_clip_val=1"),
        ("head.solver=ridge trainer.checkpoint=last", "keeps what validation chose"),
        ("head.solver=lbfgs optimizer.lr=0.3", "optimizer.lr=0.3: head.solver=lbfgs takes no steps"),
        ("head.solver=lbfgs optimizer=sgd optimizer.momentum=0.5", "optimizer.momentum=0.5"),
        ("head.solver=lbfgs schedule.warmup_epochs=1", "schedule.warmup_epochs=1"),
        ("head.solver=lbfgs schedule=bit_hyperrule", "says how many steps"),
        ("head.solver=lbfgs data.sampling=balanced", "use loss.class_weights=balanced"),
        ("head.solver=knn features.views=3", "takes every training image once"),
        ("head=mlp head.solver=lbfgs", "head.solver: there is no such key. It belongs to head=linear"),
    ],
)
def test_what_has_no_part_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([*PLAIN, *words.split()])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_untouched_optimiser_of_any_kind_is_let_be(optimizer: str) -> None:
    compose([*PLAIN, "head.solver=lbfgs", f"optimizer={optimizer}", "schedule=constant"])


def facts(task: str, *, train: int = 60, val: int = 20) -> DataFacts:
    return DataFacts(
        task=task,  # type: ignore[arg-type]
        class_names=("a", "b", "c"),
        channels=3,
        image_size=(32, 32),
        sizes={"train": train, "val": val, "test": 20},
        class_counts={},
        fingerprint="",
        split_fingerprint="",
        target_mean=(0.0,) * 3,
        target_std=(1.0,) * 3,
    )


def resolved(*words: str, task: str = "multiclass", train: int = 60) -> LinearHeadConfig:
    config = resolve_for_data(resolve(compose([*PLAIN, *words])), facts(task, train=train))
    assert config.trainer.max_epochs is None
    assert isinstance(config.head, LinearHeadConfig)
    return config.head


def test_auto_is_said_in_a_resolved_config() -> None:
    penalties = resolved("head.solver=lbfgs").penalties
    assert penalties == pytest.approx(np.logspace(-6, 5, 45))
    assert resolved("head.solver=ridge").penalties == pytest.approx(np.logspace(-4, 6, 41))
    assert resolved("head.solver=ridge", "head.penalties=[3]").penalties == [3]
    head = resolved("head.solver=knn")
    assert (head.neighbors, head.temperature, head.penalties) == ([1, 5, 10, 20, 50], 0.07, None)


def test_neighbours_are_among_the_images_that_choose() -> None:
    assert resolved("head.solver=knn", "data.refit_on_val=true").neighbors == [1, 5, 10, 20]
    with pytest.raises(ConfigError, match="there are 60 training images"):
        resolved("head.solver=knn", "head.neighbors=[5,61]")


def test_a_logistic_regression_is_of_classes() -> None:
    with pytest.raises(ConfigError, match=r"head\.solver=lbfgs: is of classes.*use ridge or knn"):
        resolved("head.solver=lbfgs", task="regression")
    assert resolved("head.solver=ridge", task="regression").penalties


def test_a_resolved_config_is_checked_again_without_complaint() -> None:
    from headstart.config.checks import check

    for solver in ("lbfgs", "ridge", "knn"):
        config = compose([*PLAIN, f"head.solver={solver}", "data.refit_on_val=true"])
        for task in ("multiclass", "binary", "multilabel"):
            check(resolve_for_data(resolve(config), facts(task)))
