"""How fast each layer group trains beside the head: two rates, layer-wise decay, discriminative rates."""

from __future__ import annotations

from headstart.config.schema.strategy import StrategyConfig
from headstart.errors import ConfigError
from headstart.facts import LayerMap
from headstart.strategies.plan import HEAD


def multiples(config: StrategyConfig, layers: LayerMap) -> dict[str, float]:
    """The multiple of the base learning rate of every layer group; the head's is 1.

    With L levels from the input up (`neck`, which timm keeps in one group with the classifier, is on the
    head's level), level i has the multiple

    - `layer_decay` d: max(layer_decay_min, d ** (L - 1 - i)), as timm.optim has it (BEiT, Bao et al. 2022);
    - `discriminative` c: c ** -(L - 1 - i) (ULMFiT, Howard and Ruder 2018, section 3.2);
    - `lr_span` s: s ** -((L - 1 - i) / (L - 1)): evenly spaced in the logarithm, the lowest 1/s (fastai's slice);

    times `backbone_lr_mult` for all but the head. Raises ConfigError where the backbone has no levels.
    """
    levels = _levels(config, layers)
    top = max(levels.values())

    def by_depth(group: str) -> float:
        below = top - levels[group]
        if config.layer_decay is not None:
            return float(max(config.layer_decay_min, config.layer_decay**below))
        if config.discriminative is not None:
            return float(config.discriminative**-below)
        if config.lr_span is not None:
            return float(config.lr_span ** -(below / top)) if top else 1.0
        return 1.0

    return {name: by_depth(name) * (1.0 if name == HEAD else config.backbone_lr_mult) for name in layers.names}


def _levels(config: StrategyConfig, layers: LayerMap) -> dict[str, int]:
    below = [group.name for group in layers.backbone if group.name != "neck"]
    option = next((o for o in ("layer_decay", "discriminative", "lr_span") if getattr(config, o) is not None), None)
    if option and below == ["backbone"]:
        raise ConfigError(f"strategy.{option}: {layers.prefix_problem}; strategy.backbone_lr_mult needs none.")
    levels = {name: i for i, name in enumerate(below)}
    return {name: levels.get(name, len(below)) for name in layers.names}
