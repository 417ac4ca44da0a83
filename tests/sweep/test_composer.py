"""Composing a sweep's jobs quickly is composing them as Hydra does."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.config.compose import checked, compose_node, configs
from headstart.config.plain import to_plain
from headstart.errors import ConfigError
from headstart.sweep import composer as module
from headstart.sweep.composer import Composer

SAME = (
    {},
    {"seed": "3"},
    {"strategy": "last_k", "strategy.k": "2", "optimizer.lr": "1e-4"},
    {"strategy": "gradual", "strategy.milestones": "[1,2.5]"},
    {"regularizer": "[l2_sp,bss]", "regularizer.l2_sp.alpha": "0.5"},
    {"regularizer": "none"},
    {"data": "image_folder", "data.path": "'a b, c=1'", "data.image_size": "[32,48]"},
    {"data": "torchvision", "data.name": "EMNIST", "data.path": "x", "data.options": "{split: letters}"},
    {"trainer.max_epochs": "null", "trainer.max_steps": "12"},
    {"logger": "wandb", "logger.tags": "[a,b]", "logger.mode": "offline"},
    {"experiment": "quickstart", "weights": "scratch", "data.train_size": "0.5"},
    {"data.classes": "['1','2',3]"},
    {"strategy": "phases", "strategy.phases": "[{start:0,groups:[head]},{start:1,groups:{block.*:0.1,head:1}}]"},
)
WRONG = (
    {"optimizer.lr": "fast"},
    {"optimizer.rl": "0.1"},
    {"strategy.k": "2"},
    {"strategy": "last_k", "strategy.k": "0"},
    {"strategy": "lastk"},
    {"data": "image_folder"},
    {"seed": "1.5"},
    {"regularizer.l2_sp.alpha": "1"},
    {"data.mean": "[0.5,x]"},
)


@pytest.mark.parametrize("values", SAME, ids=str)
def test_the_same_config(values: dict[str, str]) -> None:
    with configs():
        expected = checked(compose_node([f"{key}={text}" for key, text in values.items()]))
        composer = Composer()
        for _ in range(2):
            assert to_plain(composer.config(values)) == to_plain(expected)


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_the_same_words_for_a_mistake(values: dict[str, str]) -> None:
    def said(make: object) -> str:
        with pytest.raises(ConfigError) as caught:
            make()  # type: ignore[operator]
        return str(caught.value)

    with configs():
        expected = said(lambda: checked(compose_node([f"{key}={text}" for key, text in values.items()])))
        assert said(lambda: Composer().config(values)) == expected


def test_hydra_composes_once_per_choice_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def counted(texts: tuple[str, ...]) -> object:
        nonlocal count
        count += 1
        return compose_node(texts)

    monkeypatch.setattr(module, "compose_node", counted)
    with configs():
        composer = Composer()
        made = [
            composer.config({"strategy": strategy, "optimizer.lr": lr, "seed": seed})
            for strategy in ("full", "linear_probe") for lr in ("0.1", "0.2") for seed in ("0", "1", "2")
        ]  # fmt: skip
    assert count == 2
    assert len({str(to_plain(config)) for config in made}) == 12


def test_one_job_does_not_change_the_next(tmp_path: Path) -> None:
    with configs():
        composer = Composer()
        first = composer.config({"logger.tags": "[a]"})
        first.logger.tags.append("b")  # type: ignore[attr-defined]
        assert composer.config({"logger.tags": "[a]"}).logger.tags == ["a"]  # type: ignore[attr-defined]


def test_values_that_refer_to_others_go_through_hydra(tmp_path: Path) -> None:
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndata: {val_size: '${data.test_size}'}\n"
    (tmp_path / "more" / "experiment" / "refers.yaml").write_text(text)
    with configs((str(tmp_path / "more"),)):
        config = Composer().config({"experiment": "refers", "data.test_size": "77"})
    assert config.data.val_size == 77
