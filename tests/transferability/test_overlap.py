"""Class names of source and target: what matches, and what must not."""

from __future__ import annotations

import pytest
from timm.data import ImageNetInfo

from headstart.transferability.overlap import Overlap, label_overlap, overlap_note

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("tabby, tabby cat", "Tabby_Cat"),
        ("tabby, tabby cat", "tabby"),
        ("zebras", "zebra"),
        ("hand-held computer", "hand held  computer"),
        ("STRASSE", "straße"),
        ("n01440764, tench", "n01440764"),
    ],
    ids=str,
)
def test_names_that_match(source: str, target: str) -> None:
    assert label_overlap(["other", source], [target, "else"]) == Overlap((target,), 0.5)
    assert label_overlap([target, "else"], [source]).share == 1


@pytest.mark.parametrize(
    ("source", "target"),
    [("tabby, tabby cat", "cat"), ("cats", "cars"), ("bus", "bu"), ("glass", "glas"), ("iris", "iri"), ("", ",")],
    ids=str,
)
def test_names_that_do_not(source: str, target: str) -> None:
    assert label_overlap([source], [target]).shared == ()


def test_numbers_are_no_names() -> None:
    digits = [str(i) for i in range(10)]
    assert label_overlap(digits, digits) == Overlap((), None)
    assert label_overlap([*digits, "cat"], [*digits, "Cat"]) == Overlap(("Cat",), 1.0)


def test_cifar10_against_imagenet() -> None:
    """ImageNet-1k has breeds of dogs and kinds of ships; 12k and 22k have the dog and the ship as well."""
    shares = {
        subset: label_overlap(ImageNetInfo(subset).label_descriptions(), CIFAR10).share
        for subset in ("imagenet-1k", "imagenet-12k", "imagenet-22k")
    }
    assert shares == {"imagenet-1k": 0, "imagenet-12k": 1, "imagenet-22k": 1}


def test_notes_at_both_ends() -> None:
    assert (overlap_note(Overlap(("a", "b"), 1.0), source="S", classes=2) or "").startswith("all 2 classes bear")
    assert (overlap_note(Overlap((), 0.0), source="S", classes=2) or "").startswith(
        "no class bears a name of a class"
    )
    assert overlap_note(Overlap(("a",), 0.5), source="S", classes=2) is None
    assert overlap_note(Overlap((), None), source="S", classes=2) is None
