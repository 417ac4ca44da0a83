"""DELTA: feature maps stay near those of the start, weighted by how much each channel matters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from headstart.config.schema.regularizer import DeltaConfig
from headstart.errors import ConfigError, did_you_mean
from headstart.seeds import derive
from headstart.strategies.penalties.attention import channel_weights
from headstart.strategies.penalties.base import Batches, Parts, Penalty, Step
from headstart.strategies.penalties.l2_sp import head_parameters, squared_norm

_STAGES = 4


class Delta(Penalty):
    """strength/2 * mean over images of sum_j sum_c W_jc ||FM_jc(w) - FM_jc(w0)||^2 + beta/2 ||v||^2.

    Li et al. 2019. Without attention W_jc = 1. With it W_jc = softmax_c(z_jc / 5) * C_j /
    positions_j, where z is the standardised rise of the loss when channel c of map j is zeroed, measured with
    a head that was trained on frozen features: the backbone is untouched (the known implementation trains it).
    """

    replaces_weight_decay = True

    def __init__(self, config: DeltaConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.classes, self.seed = parts.facts.num_classes, parts.seed
        if config.attention and parts.facts.task != "multiclass":
            raise ConfigError("regularizer.delta.attention=true: is for one class per image.")
        self.taps = tuple(config.taps) if config.taps else stage_ends(parts.model.backbone, name=parts.backbone)
        reference = parts.reference()
        for backbone in (reference, parts.model.backbone):
            _check_taps(backbone, self.taps)
        _check_origin(parts, self.taps)
        self._head = head_parameters(parts)
        self._now, self._then = Maps(parts.model.backbone, self.taps), Maps(reference, self.taps)
        self._reference = (reference,)
        # a learned buffer needs its size before it is learned: one image tells the channels of each map
        device = next(reference.parameters()).device
        with torch.no_grad(), self._then.kept() as maps:
            reference(torch.zeros(1, parts.facts.channels, *parts.facts.image_size, device=device))
        _same_shapes(maps, self._now, parts, device)
        self.axes = tuple(channel_axis(maps[tap], reference) for tap in self.taps)
        for i, (tap, axis) in enumerate(zip(self.taps, self.axes, strict=True)):
            self.register_buffer(f"weights_{i}", torch.ones(maps[tap].shape[axis]))

    def begin(self, batches: Batches) -> None:
        """Measure how much each channel matters; without attention all matter alike."""
        if not self.config.attention:
            return
        weights = channel_weights(
            self._on_device(batches),
            batches,
            taps=self.taps,
            axes=self.axes,
            classes=self.classes,
            epochs=self.config.attention_epochs,
            count=self.config.attention_batches,
            seed=derive(self.seed, "delta"),
        )
        for i, found in enumerate(weights):
            self.get_buffer(f"weights_{i}").copy_(found)

    def _on_device(self, batches: Batches) -> nn.Module:
        (reference,) = self._reference
        return reference.to(self.get_buffer("weights_0").device)

    def forget(self) -> None:
        """Let go of the last step's feature maps."""
        self._now.last = {}

    def forward(self, step: Step) -> torch.Tensor:
        """The penalty, a scalar."""
        (reference,) = self._reference
        reference.to(step.images.device)
        with torch.no_grad(), self._then.kept() as before:
            reference(step.images)
        now = self._now.last
        total = step.scores.new_zeros(())
        for i, (tap, axis) in enumerate(zip(self.taps, self.axes, strict=True)):
            away = (_wide(now[tap]) - _wide(before[tap])).square()
            per_channel = away.transpose(0, axis).flatten(1).sum(dim=1)
            scale = 1.0
            if self.config.attention:
                channels = away.shape[axis]
                scale = channels / (away[0].numel() / channels)
            total = total + scale * (per_channel * self.get_buffer(f"weights_{i}")).sum()
        self.forget()
        return self.config.strength / 2 * total / len(step.images) + self.config.beta / 2 * squared_norm(self._head)


class Maps:
    """The outputs of some modules of a backbone while it is in training, or inside `kept`."""

    def __init__(self, backbone: nn.Module, taps: Sequence[str]) -> None:
        self.last: dict[str, torch.Tensor] = {}
        self._always = False
        self._backbone = backbone
        modules = dict(backbone.named_modules())
        for tap in taps:
            modules[tap].register_forward_hook(self._keep(tap))

    def _keep(self, tap: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._always or torch.is_grad_enabled():
                self.last[tap] = output

        return hook

    @contextlib.contextmanager
    def kept(self) -> Iterator[dict[str, torch.Tensor]]:
        """Keep the outputs of what runs inside."""
        self._always, self.last = True, {}
        try:
            yield self.last
        finally:
            self._always, self.last = False, {}


def _same_shapes(before: dict[str, torch.Tensor], now: Maps, parts: Parts, device: torch.device) -> None:
    """Raise ConfigError where what a strategy added changes the shape of a map: it cannot be compared then."""
    mode = {module: module.training for module in parts.model.backbone.modules()}
    with torch.no_grad(), now.kept() as maps:
        parts.model.backbone.eval()(torch.zeros(1, parts.facts.channels, *parts.facts.image_size, device=device))
    for module, training in mode.items():
        module.training = training
    for tap, there in before.items():
        if isinstance(there, torch.Tensor) and maps[tap].shape != there.shape:
            raise ConfigError(
                f"regularizer=delta: the strategy's additions change the shape of {tap}'s feature map."
            )


def stage_ends(backbone: nn.Module, *, name: str) -> tuple[str, ...]:
    """Modules at the ends of the backbone's last four stages; raises ConfigError where timm does not name them."""
    info = getattr(backbone, "feature_info", None)
    rows = info if isinstance(info, list) else getattr(info, "info", [])
    modules = dict(backbone.named_modules())
    found = [row["module"] for row in rows if row.get("module") in modules]
    if not found:
        raise ConfigError(
            f"regularizer=delta: where stages of {name} end is not known; name modules in regularizer.delta.taps."
        )
    return tuple(found[-_STAGES:])


def _check_taps(backbone: nn.Module, taps: Sequence[str]) -> None:
    modules = dict(backbone.named_modules())
    for tap in taps:
        if tap not in modules:
            raise ConfigError(
                f"regularizer.delta.taps: the backbone has no module {tap!r}.{did_you_mean(tap, modules)}"
            )


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float32 at least: the sum of many small squares is lost in 16 bits."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _check_origin(parts: Parts, taps: Sequence[str]) -> None:
    """Raise ConfigError where a map comes out of layers that start at random: there is nothing to stay near."""
    group_of = parts.layers.group_of()
    for tap in taps:
        below = {group for key, group in group_of.items() if key.startswith(f"backbone.{tap}.")}
        odd = [name for name in below if not parts.came_from_the_weights(name)]
        if odd:
            raise ConfigError(
                f"regularizer.delta.taps: {tap} lies in {odd[0]}, which starts at random under "
                f"weights.first_k={parts.first_k}; name modules below it."
            )


def channel_axis(output: Any, backbone: nn.Module) -> int:
    """Which axis of a feature map counts channels: tokens have them last, maps second, but for some of timm's."""
    if not isinstance(output, torch.Tensor) or output.ndim < 2:
        raise ConfigError("regularizer.delta.taps: each must be a module that gives one feature map.")
    last = output.ndim == 3 or (output.ndim == 4 and str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC"))
    return output.ndim - 1 if last else 1
