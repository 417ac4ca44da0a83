"""A subset of the classes: targets count anew, the rest is as if it were not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import RunTiny
from tests.test_experiment import write_two_colours

from headstart.data.class_subset import of_classes
from headstart.data.digits import digits
from headstart.errors import ConfigError


def test_examples_keep_their_ids_and_content() -> None:
    whole = digits()
    part = of_classes(whole, [7, 2])
    assert part.class_names == ("7", "2")
    before, after = whole.splits["train"], part.splits["train"]
    kept = [i for i, target in enumerate(before.targets) if target in (7, 2)]
    assert list(after.ids) == [before.ids[i] for i in kept]
    assert after.targets.tolist() == [0 if before.targets[i] == 7 else 1 for i in kept]
    for j in (0, 5, len(kept) - 1):
        assert after.content(j) == before.content(kept[j])
        assert np.array_equal(np.asarray(after.image(j)), np.asarray(before.image(kept[j])))
        assert after.where(j) == before.where(kept[j])
    assert of_classes(whole, ["7", "2"]).class_names == ("7", "2")


def test_a_run_on_some_classes(run_tiny: RunTiny) -> None:
    _, record = run_tiny("data.classes=[3,1,4]")
    assert record.data["class_names"] == ["3", "1", "4"]
    assert record.parameters["total"] == 373658 - 7 * 97
    _, other = run_tiny("data.classes=[1,3,4]")
    assert other.data["fingerprint"] != record.data["fingerprint"]
    assert other.arm != record.arm


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data.classes=[3]", "must be a list of two classes or more"),
        ("data.classes=3", "must be a list of two classes or more"),
        ("data.classes=[3,3]", "names a class twice"),
        ("data.classes=[3,10]", "there is no class 10; there are 0 to 9"),
        ("data.classes=[3,four]", "there is no class 'four'"),
    ],
)
def test_mistakes(run_tiny: RunTiny, words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_tiny(words)


def test_several_labels_have_no_subset(run_tiny: RunTiny, tmp_path: Path) -> None:
    write_two_colours(tmp_path / "set", rows=40)
    with pytest.raises(ConfigError, match="several labels each"):
        run_tiny("data=hf", f"data.path={tmp_path / 'set'}", "data.classes=[0,1]")
