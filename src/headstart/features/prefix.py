"""The frozen lower part of a backbone, run once: activations at the cut stand in for it while the rest trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from headstart.data.datamodule import ImageDataModule
from headstart.facts import LayerMap
from headstart.features.bank import CONTIGUOUS, FeatureBank, FeatureTable
from headstart.features.cut import Cut, NoCut, find_cut
from headstart.features.extract import evaluating
from headstart.features.store import TooLarge
from headstart.models.classifier import Classifier
from headstart.strategies.plan import Phase, TrainingPlan
from headstart.training.shortcut import Rest

Open = Callable[[nn.Module, str | None], FeatureBank]
"""Opens a bank of what a module gives; the name of the cut that it ends at, None for the whole backbone."""
WHOLE = "features"
"""The cut above a backbone that is frozen as a whole."""


def cut_of(
    backbone: nn.Module, layers: LayerMap, plan: TrainingPlan, number: int, *, shape: tuple[int, int, int]
) -> Cut:
    """Where the frozen part of a phase ends: what never trained up to the phase's end, and in no way moved.

    Raises NoCut where nothing is frozen, or no cut can be found.
    """
    moved = {name for phase in plan.phases[: number + 1] for name in phase.rates}
    groups = [group for group in layers.backbone if group.name in moved]
    if len(groups) == len(layers.backbone):
        raise NoCut("no layer group stays frozen from the start")
    if not groups:
        return Cut(WHOLE, backbone, nn.Identity(), (_width(backbone, shape),))
    trained = [parameter.name for group in groups for parameter in group.parameters]
    trained += [name for group in groups for name in group.buffers if not _is_constant(name, backbone)]
    return find_cut(backbone, [name.removeprefix("backbone.") for name in trained], shape=shape)


def _is_constant(buffer: str, backbone: nn.Module) -> bool:
    """Whether a buffer of a layer group that trains stays as it is: the angles of positions, for example.

    It does in a module that has nothing to train and is no normalisation, which has running statistics.
    """
    module = backbone.get_submodule(buffer.removeprefix("backbone.").rpartition(".")[0])
    return not list(module.parameters(recurse=False)) and "norm" not in type(module).__name__.lower()


def cuts_of(
    backbone: nn.Module, layers: LayerMap, plan: TrainingPlan, *, shape: tuple[int, int, int]
) -> tuple[dict[int, Cut], str]:
    """The cut of each phase that has one, by number; and why the first that has none has none, else empty."""
    found, problem = dict[int, Cut](), ""
    for number in range(len(plan.phases)):
        try:
            found[number] = cut_of(backbone, layers, plan, number, shape=shape)
        except NoCut as reason:
            problem = problem or str(reason)
    return found, problem


def _width(backbone: nn.Module, shape: tuple[int, int, int]) -> int:
    device = next(iter(backbone.parameters())).device
    with evaluating(backbone), torch.no_grad():
        return int(backbone(torch.zeros(2, *shape, device=device)).shape[1])


class Prefix:
    """Stands in for the frozen layers of some phases (training/shortcut.py)."""

    def __init__(
        self,
        layers: LayerMap,
        plan: TrainingPlan,
        numbers: Sequence[int],
        *,
        shape: tuple[int, int, int],
        open_bank: Open,
        say: Callable[[str], None],
    ) -> None:
        """`numbers` are those of the phases; `shape` is (channels, height, width) of an image."""
        self.layers = layers
        self.plan = plan
        self.numbers = tuple(numbers)
        self.shape = shape
        self.open_bank = open_bank
        self.say = say
        self.banks: dict[str, FeatureBank] = {}
        self._cuts: dict[int, Cut] = {}
        self._computed: dict[str, str] = {}
        """Phases whose frozen layers were computed after all, and why."""
        self._tables: dict[int, Mapping[str, FeatureTable]] = {}

    def begin(self, model: nn.Module, data: ImageDataModule, *, step: int) -> None:
        """Compute what is missing for the phases from global step `step` on; `model` lies where it trains."""
        assert isinstance(model, Classifier)
        now = self.plan.phases.index(self.plan.at(step))
        self.banks, self._cuts, self._tables = {}, {}, {}
        for number in self.numbers:
            if number < now:
                continue
            try:
                cut = cut_of(model.backbone, self.layers, self.plan, number, shape=self.shape)
                bank = self.banks.get(cut.name) or self.open_bank(
                    cut.below, None if cut.name == WHOLE else cut.name
                )
                self._tables[number] = bank.tables(data, ["train", "val"])
            except (NoCut, TooLarge) as reason:
                self.say(f"features.prefix: the frozen layers are computed in every step after all ({reason}).")
                self._computed[str(number)] = str(reason)
                continue
            self._cuts[number] = cut
            self.banks[cut.name] = bank

    @property
    def phases(self) -> list[Phase]:
        """The phases that it can stand in for, after `begin`."""
        return [self.plan.phases[number] for number in self._cuts]

    def kept(self, phase: Phase, split: str, places: torch.Tensor) -> torch.Tensor:
        """What the frozen layers of a phase give for the images at `places` (n,) of `train` or `val`: (n, ...)."""
        number = self.plan.phases.index(phase)
        self._tables = {other: tables for other, tables in self._tables.items() if other >= number}
        return self._tables[number][split].rows(places).view(-1, *self._cuts[number].shape)

    def rest(self, phase: Phase) -> Rest:
        """What is to be computed from it."""
        # no module: whoever holds it would take the layers above for further ones of its own
        rest: Rest = self._cuts[self.plan.phases.index(phase)].rest.forward
        return rest

    def about(self) -> dict[str, Any]:
        """For the record: what was kept where, by the name of the cut, and in which phases it stood in."""
        phases = {name: [n for n, cut in self._cuts.items() if cut.name == name] for name in self.banks}
        kept = {name: {**bank.about(), "phases": phases[name]} for name, bank in self.banks.items()}
        return kept | ({"computed": self._computed} if self._computed else {})


def that_fit(cuts: Mapping[int, Cut], *, images: int, itemsize: int, room: int) -> dict[int, Cut]:
    """Phases, the first ones first, whose activations of so many `images` fit into `room` bytes together."""
    fitting: dict[int, Cut] = {}
    held: dict[str, int] = {}
    for number, cut in cuts.items():
        size = {**held, cut.name: images * cut.width * itemsize}
        if sum(size.values()) <= room:
            fitting[number], held = cut, size
    return fitting


IN_MEMORY = CONTIGUOUS
"""Bytes of activations that are held in memory where the disk takes none."""
