"""The whole model: a backbone and a head, built, loaded, proven loaded and mapped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import nn

from headstart.config.schema.head import HeadConfig
from headstart.errors import ConfigError
from headstart.facts import InputSpec, LayerMap
from headstart.models import timm_backbone, torchvision_backbone
from headstart.models.heads import Units, build_head
from headstart.models.layer_groups import backbone_groups, keep_first, layer_map, run_once, with_head
from headstart.models.loading import LoadReport, require_complete
from headstart.models.weights import WeightsFile, read_for
from headstart.seeds import derive

LIBRARIES: dict[str, ModuleType] = {"timm": timm_backbone, "torchvision": torchvision_backbone}


class Classifier(nn.Module):
    """Normalised images (n, channels, height, width) -> class scores or numbers (n, outputs)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores before softmax or sigmoid; numbers in the data's own units."""
        scores: torch.Tensor = self.head(self.backbone(images))
        return scores


@dataclass(frozen=True)
class Built:
    """A model with what is known of it."""

    model: Classifier
    layers: LayerMap
    report: LoadReport | None
    features: int = 0
    """Width of the vectors that the head takes."""


def full_name(name: str, *, library: str) -> str:
    """A backbone's name with its weights tag, where it has one; raises ConfigError for an unknown one."""
    return str(LIBRARIES[library].full_name(name))


def input_spec(name: str, *, library: str) -> InputSpec:
    """What a backbone expects of an image, known without building it."""
    spec: InputSpec = LIBRARIES[library].input_spec(name)
    return spec


def build_classifier(
    *,
    name: str,
    library: str,
    head: HeadConfig,
    classes: int,
    channels: int,
    size: tuple[int, int],
    weights: WeightsFile | None,
    seed: int,
    first_k: int | None = None,
    units: Units | None = None,
) -> Built:
    """Build a model; initial values are drawn from `seed` and no other random state is touched.

    `classes` counts the outputs; with `units` they are numbers in these. With `first_k`, only the first k layer
    groups come from the weights. Raises ConfigError where the backbone
    cannot take such images or has not k groups in order, WeightsError where the weights do not fit.
    """
    state = read_for(weights, name=name, library=library) if weights else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", "backbone"))
        backbone, report = LIBRARIES[library].create(
            name, channels=channels, size=size, pool=head.pool, state=state
        )
        if weights and report:
            require_complete(report, what=weights.said, backbone=name)
        groups, problem = backbone_groups(backbone, name=name, library=library)
        features = _features(backbone, groups, name=name, shape=(channels, *size))
        if not problem and not features[1]:
            problem = f"the layer groups of {name} do not run one after another"
        if first_k is not None:
            # not the values that the network which the others come from may have begun with
            torch.manual_seed(derive(seed, "init", "fresh backbone"))
            fresh, _ = LIBRARIES[library].create(name, channels=channels, size=size, pool=head.pool, state=None)
            keep_first(first_k, backbone, fresh, groups, problem=problem)
            backbone = fresh
        model = Classifier(
            backbone,
            _head(head, features=features[0], classes=classes, units=units, seed=seed, fresh=first_k is not None),
        )
    return Built(model, layer_map(model, groups, order_problem=problem), report, features[0])


def on_same_backbone(
    built: Built, *, head: HeadConfig, classes: int, units: Units | None, seed: int, first_k: int | None
) -> Built:
    """A model on the very backbone of `built`, with a head of its own: the values that it would have alone."""
    with torch.random.fork_rng(devices=[]):
        own = _head(
            head, features=built.features, classes=classes, units=units, seed=seed, fresh=first_k is not None
        )
    model = Classifier(built.model.backbone, own)
    return replace(built, model=model, layers=with_head(built.layers, own))


def _head(
    config: HeadConfig, *, features: int, classes: int, units: Units | None, seed: int, fresh: bool
) -> nn.Sequential:
    torch.manual_seed(derive(seed, "init", "fresh head" if fresh else "head"))
    return build_head(config, features=features, outputs=classes, units=units)


def _features(
    backbone: nn.Module, groups: dict[str, str], *, name: str, shape: tuple[int, int, int]
) -> tuple[int, bool]:
    """Width of the features, and whether the groups run in order, from one image through the backbone."""
    try:
        features, in_order = run_once(backbone, groups, torch.zeros(2, *shape))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"data.image_size: {name} cannot take {shape[1]} x {shape[2]} pixels ({reason})."
        ) from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape_found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise ConfigError(
            f"backbone.name={name}: gives no single vector per image (found {shape_found}); try head.pool=avg."
        )
    return features.shape[1], in_order
