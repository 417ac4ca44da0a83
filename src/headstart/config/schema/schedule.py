"""How the learning rate moves over the run."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required


@dataclass
class ScheduleConfig:
    """Options that every schedule has."""

    name: str = required("Kind of schedule; choose it with `schedule=`.")
    warmup_epochs: float = option(0.0, "Length of a linear rise from zero, in epochs.", least=0)
    warmup_steps: int = option(0, "The same in steps; one of the two.", least=0)
    restart: str = option(
        "auto",
        "`run`: once over the whole run; `phase`: from its start with every phase of the strategy, over that "
        "phase's length; `auto`: phase for lp_ft, else run.",
        choices=("auto", "run", "phase"),
    )


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from the base rate down."""

    name: str = "cosine"
    min_factor: float = option(0.0, "Where it ends, as a share of the base rate.", least=0, below=1)


@dataclass
class StepConfig(ScheduleConfig):
    """A fixed factor at each milestone."""

    name: str = "step"
    milestones: list[float] = required("When the rate drops, in the given unit.", above=0)
    unit: str = option("epoch", "What milestones count.", choices=("epoch", "step"))
    gamma: float = option(0.1, "What the rate is multiplied by at each milestone.", above=0, below=1)


@dataclass
class OneCycleConfig(ScheduleConfig):
    """A cosine rise, then a cosine fall (Smith and Topin 2018); a warm-up length replaces pct_start."""

    name: str = "one_cycle"
    pct_start: float = option(0.3, "Share of the run that rises.", above=0, below=1)
    div_factor: float = option(25.0, "The run starts at base rate / div_factor.", above=1)
    final_div_factor: float = option(1e4, "It ends at its start / final_div_factor.", above=1)


@dataclass
class ConstantConfig(ScheduleConfig):
    """The base rate throughout."""

    name: str = "constant"


@dataclass
class BitHyperRuleConfig(ScheduleConfig):
    """BiT-HyperRule (Kolesnikov et al. 2020): warm-up, then three drops to a tenth, at steps that follow the number
    of training images, which decides the budget and mixup too where they are not given."""

    name: str = "bit_hyperrule"


OPTIONS = {
    "cosine": CosineConfig,
    "step": StepConfig,
    "one_cycle": OneCycleConfig,
    "constant": ConstantConfig,
    "bit_hyperrule": BitHyperRuleConfig,
}
