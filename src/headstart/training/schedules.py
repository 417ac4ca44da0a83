"""How the learning rate moves: each schedule is a function from the step to a factor on the base rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from headstart.config.schema.schedule import (
    BitHyperRuleConfig,
    CosineConfig,
    OneCycleConfig,
    ScheduleConfig,
    StepConfig,
)
from headstart.errors import ConfigError

Factor = Callable[[int], float]
"""Global step, from 0 -> what the base learning rate is multiplied by."""


def build_run_factor(
    config: ScheduleConfig, *, starts: Sequence[int], total_steps: int, steps_per_epoch: int, images: int
) -> Factor:
    """The factor of every step of a run whose phases begin at `starts`, on a training split of so many images.

    With `schedule.restart=phase` the schedule runs anew over the length of each phase. Raises ConfigError where
    it does not fit one.
    """
    if config.restart != "phase" or len(starts) == 1:
        return build_factor(config, total_steps=total_steps, steps_per_epoch=steps_per_epoch, images=images)
    factors = []
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], total_steps], strict=True)):
        try:
            factor = build_factor(config, total_steps=end - start, steps_per_epoch=steps_per_epoch, images=images)
            factors.append(factor)
        except ConfigError as error:
            raise ConfigError(f"{error} It begins anew with each phase; this is phase {i + 1}.") from error

    def of_phase(step: int) -> float:
        phase = bisect_right(starts, step) - 1
        return factors[phase](step - starts[phase])

    return of_phase


def build_factor(config: ScheduleConfig, *, total_steps: int, steps_per_epoch: int, images: int) -> Factor:
    """The factor of every step of a run, or phase, of `total_steps`, on a training split of so many `images`.

    Raises ConfigError where the warm-up or a milestone does not lie inside the run.
    """
    warmup = config.warmup_steps or round(config.warmup_epochs * steps_per_epoch)
    if warmup >= total_steps and warmup:
        raise ConfigError(f"schedule.warmup: {warmup} steps leave nothing of the run's {total_steps} steps.")
    match config:
        case OneCycleConfig():
            rise = warmup or max(1, round(config.pct_start * total_steps))
            return one_cycle(
                rise=rise,
                total=total_steps,
                div_factor=config.div_factor,
                final_div_factor=config.final_div_factor,
            )
        case CosineConfig():
            body = cosine(total=total_steps - warmup, min_factor=config.min_factor)
        case StepConfig():
            unit = steps_per_epoch if config.unit == "epoch" else 1
            milestones = [round(m * unit) for m in config.milestones]
            if milestones[-1] >= total_steps:
                raise ConfigError(
                    f"schedule.milestones={config.milestones}: the last one lies beyond the run's "
                    f"{total_steps} steps."
                )
            body = step([m - warmup for m in milestones], gamma=config.gamma)
        case BitHyperRuleConfig():
            if warmup:
                raise ConfigError("schedule.warmup: bit_hyperrule has a warm-up of its own.")
            return bit_hyperrule(total_steps, images=images)
        case _:
            body = constant
    return with_warmup(body, warmup) if warmup else body


BIT_RULES = (
    (20_000, (100, 200, 300, 400, 500), 0.0),
    (500_000, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
    (None, (500, 6_000, 12_000, 18_000, 20_000), 0.1),
)
"""BiT-HyperRule: fewer images than this -> end of warm-up, three drops and end, in steps; alpha of mixup."""


def bit_rule(images: int) -> tuple[tuple[int, ...], float]:
    """Steps and mixup's alpha for a training split of so many images."""
    return next((steps, alpha) for below, steps, alpha in BIT_RULES if below is None or images < below)


def bit_hyperrule(total: int, *, images: int) -> Factor:
    """step / warm-up while it lasts, then a tenth for every drop that lies before the step (strictly).

    The drops are those of the rule for so many training images; for a budget of one's own they are stretched.
    """
    rule, _ = bit_rule(images)
    steps = tuple(max(1, round(step * total / rule[-1])) for step in rule)

    def factor(step: int) -> float:
        return step / steps[0] if step < steps[0] else 0.1 ** sum(drop < step for drop in steps[1:])

    return factor


def constant(step: int) -> float:
    """The base rate throughout."""
    return 1.0


def cosine(*, total: int, min_factor: float) -> Factor:
    """Half a cosine from 1 at step 0 to `min_factor` at `total` (Loshchilov and Hutter 2017, eq. 5)."""

    def factor(step: int) -> float:
        share = min(step / total, 1.0)
        return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * share)) / 2

    return factor


def step(milestones: list[int], *, gamma: float) -> Factor:
    """1, then `gamma` times more from each milestone on."""
    return lambda step: gamma ** bisect_right(milestones, step)


def one_cycle(*, rise: int, total: int, div_factor: float, final_div_factor: float) -> Factor:
    """A cosine rise from 1/div_factor to 1 over `rise` steps, then a cosine fall (Smith and Topin 2018).

    The end is 1/(div_factor * final_div_factor), as in torch.optim.lr_scheduler.OneCycleLR.
    """
    low, end = 1 / div_factor, 1 / (div_factor * final_div_factor)

    def between(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    def factor(step: int) -> float:
        if step < rise:
            return between(low, 1.0, step / rise)
        return between(1.0, end, (step - rise) / max(1, total - rise))

    return factor


def with_warmup(body: Factor, warmup: int) -> Factor:
    """A linear rise over `warmup` steps, from 1/warmup to the base rate, then `body` from its own step 0."""
    return lambda step: (step + 1) / warmup if step < warmup else body(step - warmup)
