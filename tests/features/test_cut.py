"""Where a backbone can be cut: as far up as what is frozen goes, with the same outputs and gradients."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headstart.config.schema.head import LinearHeadConfig
from headstart.facts import LayerGroup, LayerMap, LayerParameter
from headstart.features.cut import NoCut, find_cut
from headstart.features.prefix import cut_of, that_fit
from headstart.models.classifier import Built, build_classifier, full_name
from headstart.strategies.plan import Phase, TrainingPlan

SMALL = ("test_resnet", 32), ("test_efficientnet", 32), ("test_convnext", 64), ("test_vit", 160)


def built_of(name: str, size: int) -> Built:
    return build_classifier(
        name=full_name(name, library="timm"), library="timm", head=LinearHeadConfig(), classes=3,
        channels=3, size=(size, size), weights=None, seed=0,
    )  # fmt: skip


def training_from(built: Built, k: int, *, before: int | None = None) -> TrainingPlan:
    """All but the first k groups train; with `before` they do so after a phase in which all but the first so many."""
    names = built.layers.names
    phases = [Phase(0, dict.fromkeys(names[k:], 1.0))]
    if before is not None:
        phases = [Phase(0, dict.fromkeys(names[before:], 1.0)), Phase(5, dict.fromkeys(names[k:], 1.0))]
    return TrainingPlan(tuple(phases))


@pytest.mark.parametrize(("name", "size"), SMALL, ids=[name for name, _ in SMALL])
def test_both_parts_together_are_the_whole(name: str, size: int) -> None:
    built = built_of(name, size)
    backbone = built.model.backbone
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(1))
    places = []
    for k in range(1, len(built.layers.backbone)):
        modes = [module.training for module in backbone.modules()]
        cut = cut_of(backbone, built.layers, training_from(built, k), 0, shape=(3, size, size))
        assert [module.training for module in backbone.modules()] == modes
        places.append(cut.name)
        backbone.eval()
        kept = cut.below(images)
        assert kept.shape == (5, *cut.shape)
        torch.testing.assert_close(cut.rest(kept), backbone(images))
        own = set(map(id, backbone.modules()))
        trained = [group for group in built.layers.backbone[k:] if group.parameters]
        held = {id(parameter) for parameter in cut.rest.parameters()}
        named = dict(built.model.named_parameters())
        assert all(id(named[p.name]) in held for group in trained for p in group.parameters)
        for group in built.layers.backbone[:k]:  # nothing of what is frozen is computed again
            assert not any(id(named[p.name]) in held for p in group.parameters)
        leaves = [m for m in cut.rest.modules() if list(m.parameters(recurse=False)) and m is not cut.rest]
        assert leaves
        assert all(id(module) in own for module in leaves)
        backbone.zero_grad()
        backbone(images).sum().backward()
        expected = {p.name: named[p.name].grad for group in trained for p in group.parameters}
        backbone.zero_grad()
        cut.rest(kept.detach()).sum().backward()
        for key, grad in expected.items():
            torch.testing.assert_close(named[key].grad, grad, rtol=1e-4, atol=1e-5)
    assert len(set(places)) == len(places)


def test_what_is_above_runs_in_the_modes_of_its_modules() -> None:
    built = built_of("test_vit", 160)
    for module in built.model.backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    plan = training_from(built, 4)
    cut = cut_of(built.model.backbone, built.layers, plan, 0, shape=(3, 160, 160))
    kept = torch.randn(2, *cut.shape)
    built.model.backbone.eval()
    assert torch.equal(cut.rest(kept), cut.rest(kept))
    built.model.backbone.get_submodule("blocks.5").train()
    assert not torch.equal(cut.rest(kept), cut.rest(kept))


def test_what_trained_before_is_not_below() -> None:
    built = built_of("test_resnet", 32)
    alone = cut_of(built.model.backbone, built.layers, training_from(built, 4), 0, shape=(3, 32, 32))
    later = training_from(built, 4, before=2)
    assert alone.name == "layer3"
    assert cut_of(built.model.backbone, built.layers, later, 1, shape=(3, 32, 32)).name == "layer1"
    with pytest.raises(NoCut, match="no layer group stays frozen from the start"):
        cut_of(built.model.backbone, built.layers, training_from(built, 2, before=0), 1, shape=(3, 32, 32))


class Turned(nn.Module):
    """Angles that lie beside the layers, in the last group, and turn what all of them give."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.angles = nn.Linear(4, 4), nn.Linear(4, 4), nn.Module()
        self.norm = nn.BatchNorm1d(4, affine=False)
        self.angles.register_buffer("table", torch.rand(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.low(images.mean(dim=(1, 2))) * self.angles.table
        features: torch.Tensor = self.high(self.norm(x) * self.angles.table)
        return features


def test_constants_of_a_group_that_trains_are_no_obstacle_and_statistics_are() -> None:
    def parameters(name: str) -> tuple[LayerParameter, ...]:
        return (LayerParameter(f"backbone.{name}.weight", 16), LayerParameter(f"backbone.{name}.bias", 4, "bias"))

    statistics = tuple(f"backbone.norm.{key}" for key in ("running_mean", "running_var", "num_batches_tracked"))
    groups = (
        LayerGroup("stem", parameters("low"), ()),
        LayerGroup("neck", parameters("high"), ("backbone.angles.table", *statistics)),
        LayerGroup("head", (), ()),
    )
    plan = TrainingPlan((Phase(0, {"neck": 1.0, "head": 1.0}),))
    model = Turned()
    cut = cut_of(model, LayerMap(groups), plan, 0, shape=(3, 4, 4))
    assert cut.shape == (4,)
    images = torch.rand(6, 3, 4, 4)
    assert torch.equal(cut.below(images), model.low(images.mean(dim=(1, 2))) * model.angles.table)


def test_a_backbone_that_is_frozen_whole_is_cut_above() -> None:
    built = built_of("test_resnet", 32)
    cut = cut_of(built.model.backbone, built.layers, training_from(built, 5), 0, shape=(3, 32, 32))
    assert (cut.name, cut.shape, cut.below) == ("features", (96,), built.model.backbone)


class Sized(nn.Module):
    """Takes the number of images from the images, and uses it far above."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 4, 3, padding=1)
        self.high = nn.Linear(4 * 6, 5)

    def forward(self, images: torch.Tensor, mask: Any = None) -> torch.Tensor:
        count, _, height, width = images.shape
        x = self.low(images).relu()
        x = x.reshape(count * height, 4, width) * (2 * height)
        features: torch.Tensor = self.high(x.reshape(count, height, -1)).sum(dim=1) + x.reshape(count, -1)[:, :5]
        return features


def test_sizes_follow_the_number_of_images() -> None:
    model = Sized()
    cut = find_cut(model, ["high.weight", "high.bias"], shape=(3, 6, 6))
    for count in (1, 4, 7):
        images = torch.randn(count, 3, 6, 6)
        kept = cut.below(images)
        assert kept.shape[0] == count
        torch.testing.assert_close(cut.rest(kept), model(images))


class TwoWays(nn.Module):
    """What trains takes the output of two frozen branches."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.high = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        below = self.left(images.mean(dim=(1, 2))), self.right(images.amax(dim=(1, 2)))
        features: torch.Tensor = self.high(below[0].relu()) * below[1]
        return features


class Asking(nn.Module):
    """Decides by what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.low(images.mean(dim=(1, 2)))
        features: torch.Tensor = self.high(x if x.sum() > 0 else -x)
        return features


class Squared(Sized):
    """Uses the number of images in a way that no cut can keep."""

    def forward(self, images: torch.Tensor, mask: Any = None) -> torch.Tensor:
        x = self.low(images)
        features: torch.Tensor = self.high(x.flatten(1)[:, :24]) * (images.shape[0] * images.shape[0])
        return features


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "has_cut"),
    [
        ("crossvit_tiny_240", 240, False),
        ("tnt_s_legacy_patch16_224", 224, False),
        ("twins_svt_small", 224, False),
        ("hrnet_w18_small", 64, True),
        ("eva02_tiny_patch14_224", 224, True),
        ("mobilenetv3_small_050", 64, True),
        ("swin_tiny_patch4_window7_224", 224, True),
        ("densenet121", 64, True),
    ],
)
def test_families_are_as_the_documentation_lists_them(name: str, size: int, has_cut: bool) -> None:
    built = built_of(name, size)
    k = len(built.layers.backbone) // 2
    with nullcontext() if has_cut else pytest.raises(NoCut):
        cut_of(built.model.backbone, built.layers, training_from(built, k), 0, shape=(3, size, size))
    listed = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    family = built.model.backbone.__class__.__module__.rpartition(".")[2]
    assert has_cut or f"`{family}`" in listed


def test_models_without_a_cut_say_why() -> None:
    with pytest.raises(NoCut, match="a value follows the number of images in an unknown way"):
        find_cut(Squared(), ["high.weight", "high.bias"], shape=(3, 6, 6))
    with pytest.raises(NoCut, match="no single tensor lies between what is frozen and what trains"):
        find_cut(TwoWays(), ["high.weight", "high.bias"], shape=(3, 4, 4))
    with pytest.raises(NoCut, match=r"torch\.fx cannot follow it"):
        find_cut(Asking(), ["high.weight", "high.bias"], shape=(3, 4, 4))
    with pytest.raises(NoCut, match="no single tensor"):  # nothing comes before
        find_cut(TwoWays(), ["left.weight", "right.weight"], shape=(3, 4, 4))


def test_phases_whose_activations_fit_the_first_ones_first() -> None:
    built = built_of("test_resnet", 32)
    backbone, layers = built.model.backbone, built.layers
    cuts = {
        number: cut_of(backbone, layers, training_from(built, k), 0, shape=(3, 32, 32))
        for number, k in enumerate((4, 2, 4, 1))
    }
    sizes = [10 * cut.width * 4 for cut in cuts.values()]
    assert sizes[0] == sizes[2] < sizes[1] == sizes[3]
    assert list(that_fit(cuts, images=10, itemsize=4, room=sum(sizes))) == [0, 1, 2, 3]
    assert list(that_fit(cuts, images=10, itemsize=4, room=sizes[0] + sizes[1])) == [0, 1, 2]  # 2 is as 0
    assert list(that_fit(cuts, images=10, itemsize=4, room=sizes[0])) == [0, 2]
    assert list(that_fit(cuts, images=10, itemsize=2, room=sizes[0] - 4)) == [0, 2]
    assert that_fit(cuts, images=10, itemsize=4, room=sizes[0] - 4) == {}
