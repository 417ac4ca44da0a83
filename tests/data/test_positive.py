"""Two classes of which one is looked for, and targets that are numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import make_photos, tiny_config

from headstart.data.image_folder import image_folder
from headstart.data.positive import with_positive
from headstart.data.source import Source
from headstart.data.targets import target_statistics
from headstart.errors import ConfigError, DataError
from headstart.preparation import prepare


def two(names: tuple[str, ...] = ("cat", "dog"), root: str = "two") -> Source:
    photos = make_photos(Path(root), per_class=4)
    for name, new in zip(("red", "green", "blue"), (*names, ""), strict=False):
        (photos / name).rename(photos / (new or ".left"))
    return image_folder(root)


@pytest.mark.parametrize(("positive", "order"), [("dog", ("cat", "dog")), ("cat", ("dog", "cat"))])
def test_the_positive_class_is_the_second(positive: str, order: tuple[str, str]) -> None:
    before = two()
    source = with_positive(before, positive)
    assert (source.class_names, source.task) == (order, "binary")
    examples = source.splits["train"]
    assert {name.partition("/")[0]: int(target) for name, target in zip(examples.ids, examples.targets, strict=True)} == {
        order[0]: 0, order[1]: 1,
    }  # fmt: skip
    place = list(examples.ids).index(f"{positive}/01.jpg")
    old = list(before.splits["train"].ids).index(f"{positive}/01.jpg")
    assert examples.content(place) == before.splits["train"].content(old)


def test_classes_that_are_numbers_or_look_like_truth() -> None:
    assert with_positive(two(("0", "1")), 0).class_names == ("1", "0")
    assert with_positive(two(("Yes", "True"), "other"), True).class_names == ("Yes", "True")


@pytest.mark.parametrize(
    ("source", "positive", "said"),
    [
        (lambda: two(), "dgo", "data.positive=dgo: there is no such class. Did you mean 'dog'? There are cat and dog."),
        (lambda: image_folder(str(make_photos(Path("three")))), "red", "is for two classes, and there are 3 (blue, green, red)"),
        (lambda: Source(("a", "b"), "multilabel", {}), "a", "these images have several labels."),
        (lambda: Source(("a", "b"), "regression", {}), "a", "these images have numbers."),
    ],
)  # fmt: skip
def test_what_has_no_positive_class(source: object, positive: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        with_positive(source(), positive)  # type: ignore[operator]
    assert said in str(error.value)


def test_a_list_is_no_name() -> None:
    with pytest.raises(ConfigError, match=r"data\.positive=\['3'\]: must be the name of a class"):
        tiny_config("data.positive=['3']")


def test_two_of_the_digits() -> None:
    prepared = prepare(tiny_config("data.classes=[3,8]", "data.positive=3"))
    assert prepared.facts.class_names == ("8", "3")
    assert (prepared.facts.num_classes, prepared.facts.num_outputs) == (2, 1)
    batch = next(iter(prepared.data.val_dataloader()))
    assert batch["target"].dtype.is_floating_point is False
    assert prepared.config.trainer.threshold == "validation"
    assert prepared.config.trainer.monitor == "val/auroc"
    assert prepared.config.loss.name == "binary_cross_entropy"
    assert prepared.built.model(batch["image"].float()).shape == (len(batch["target"]), 1)


def test_statistics_of_numbers() -> None:
    random = np.random.default_rng(0)
    targets = np.stack([2000 + 5 * random.normal(size=50), np.full(50, 3.1)], axis=1)
    mean, std = target_statistics(targets, ("year", "same"))
    assert mean == pytest.approx(targets.mean(axis=0))
    assert std == pytest.approx((targets[:, 0].std(), 1.0))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, np.nan], "data: age: has targets that are no finite numbers"),
        ([1.0, np.inf], "no finite numbers"),
        ([1e39, 2.0], "no finite numbers, or over 3.4e+38"),
        ([1e9, 1e9 + 1], "its targets lie too close together (mean 1e+09, standard deviation 0.5) for float32"),
        ([0.0, 1e-40], "too close together"),
    ],
)
def test_numbers_that_float32_cannot_hold(values: list[float], said: str) -> None:
    with pytest.raises(DataError) as error:
        target_statistics(np.array(values)[:, None], ("age",))
    assert said in str(error.value)
