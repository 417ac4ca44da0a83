"""Small frozen values that data and models tell each other, so that neither imports the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Task = Literal["multiclass", "multilabel", "binary", "regression"]
"""One class per image; any number of labels per image; one of two classes, scored by one number; numbers."""


def outputs_of(task: str, names: int) -> int:
    """How many numbers a model of `task` gives per image, where there are so many classes, labels or numbers."""
    return 1 if task == "binary" else names


@dataclass(frozen=True)
class InputSpec:
    """What a backbone expects of an image; known from its name, without building it.

    `size` is (height, width) in pixels; `mean` and `std` are per channel, for pixels scaled to [0, 1];
    `crop_pct` is the share of the resized image that the evaluation crop keeps.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"


@dataclass(frozen=True)
class DataFacts:
    """What the data says of itself once it is read and split.

    `sizes` counts examples per split; `class_counts` counts examples of each class per split, in the
    order of `class_names`, of two classes (negative, positive). The fingerprints are SHA-256 hex digests. Where the
    targets are numbers, `class_names` names them, `class_counts` are empty, and `target_mean` and `target_std` are
    those of the training split, per number, in the data's own units.
    """

    task: Task
    class_names: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    sizes: Mapping[str, int]
    class_counts: Mapping[str, tuple[int, ...]]
    fingerprint: str
    split_fingerprint: str
    skipped: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes, labels or numbers there are."""
        return len(self.class_names)

    @property
    def num_outputs(self) -> int:
        """How many outputs the head has."""
        return outputs_of(self.task, self.num_classes)

    @property
    def units(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of the targets where these are numbers; else None."""
        return (self.target_mean, self.target_std) if self.task == "regression" else None


ParameterKind = Literal["weight", "bias", "norm_weight", "norm_bias", "added"]
"""What a parameter is: a kernel, matrix or embedding; a bias; scale or shift of a normalisation; or something
that a strategy put into the backbone (LoRA's factors, an adapter, a prompt)."""


@dataclass(frozen=True)
class LayerParameter:
    """One parameter tensor of a model; `size` counts its numbers."""

    name: str
    size: int
    kind: ParameterKind = "weight"


@dataclass(frozen=True)
class LayerGroup:
    """One step of a backbone from the input up: what lives in it."""

    name: str
    parameters: tuple[LayerParameter, ...]
    buffers: tuple[str, ...]
    batch_norms: int = 0
    """How many batch normalisations it has."""
    added_modules: tuple[str, ...] = ()
    """Modules that a strategy put into it."""

    @property
    def size(self) -> int:
        """How many numbers its parameters hold."""
        return sum(parameter.size for parameter in self.parameters)


@dataclass(frozen=True)
class LayerMap:
    """A model's layer groups from the input up; the last one is always `head`.

    `prefix_problem` is empty where the groups run in their order; otherwise it says why "the first k
    groups" has no meaning for this backbone.
    """

    groups: tuple[LayerGroup, ...]
    prefix_problem: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all groups, `head` last."""
        return tuple(group.name for group in self.groups)

    @property
    def backbone(self) -> tuple[LayerGroup, ...]:
        """All groups but the head."""
        return self.groups[:-1]

    def group_of(self) -> dict[str, str]:
        """Map from each parameter's and buffer's name to the name of its group."""
        found = {p.name: group.name for group in self.groups for p in group.parameters}
        return found | {name: group.name for group in self.groups for name in group.buffers}
