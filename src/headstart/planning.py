"""The compiled plan of an experiment as tables and a picture: what trains when, how fast, and what is added."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.config.schema.regularizer import RegularizerConfig
from headstart.config.schema.strategy import StrategyConfig
from headstart.facts import LayerGroup
from headstart.preparation import Prepared
from headstart.records.pictures import check_picture, write_picture
from headstart.strategies.plan import HEAD, Phase


@dataclass(frozen=True)
class GroupRow:
    """One layer group: its numbers, those of them that train in some phase, and its peak rate in each phase."""

    name: str
    parameters: int
    trainable: int
    rates: tuple[float | None, ...]
    """Base rate x multiple, before the schedule; None where it is frozen."""


@dataclass(frozen=True)
class PhaseColumn:
    """One phase: where it lies in the run, what of the backbone's groups trains, and how they normalise."""

    start: int
    end: int
    kinds: tuple[str, ...]
    normalization: str


@dataclass(frozen=True)
class Description:
    """What `headstart plan` prints of an experiment."""

    phases: tuple[PhaseColumn, ...]
    groups: tuple[GroupRow, ...]
    penalties: tuple[str, ...]
    of_penalties: int
    """Numbers that the penalties train themselves."""
    additions: int
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Numbers in all parameters."""
        return sum(row.parameters for row in self.groups) + self.of_penalties

    @property
    def trainable(self) -> int:
        """Numbers that train in some phase."""
        return sum(row.trainable for row in self.groups) + self.of_penalties


def describe(prepared: Prepared) -> Description:
    """The plan of a prepared experiment."""
    plan, layers, config = prepared.plan, prepared.built.layers, prepared.config
    total = prepared.budget.total_steps
    ends = [*(phase.start for phase in plan.phases[1:]), total]
    columns = tuple(
        PhaseColumn(phase.start, end, tuple(sorted(phase.kinds or ())), phase.normalization)
        for phase, end in zip(plan.phases, ends, strict=True)
    )

    def row(group: LayerGroup) -> GroupRow:
        trained = sum(p.size for p in group.parameters if plan.ever_trains(group.name, p.kind))
        rates = tuple(_peak(phase, group.name, config.optimizer.lr) for phase in plan.phases)
        return GroupRow(group.name, group.size, trained, rates)

    replaced = [name for name, penalty in prepared.penalties.items() if penalty.replaces_weight_decay]
    notes = [
        f"weight decay is off where {name} takes its place" for name in replaced if config.optimizer.weight_decay
    ]
    if plan.adapts_rates:
        notes.append("rates are upper bounds: each tensor's follows its relative gradient norm")
    notes += [f"strategy.{name} has no effect: of the backbone nothing trains by it" for name in _idle(prepared)]
    if prepared.together:
        notes.append("the head is fitted on features that are computed once and kept")
        notes += [f"{name} has no effect on a head that is fitted on kept features" for name in _unread(prepared)]
    return Description(
        phases=columns,
        groups=tuple(row(group) for group in layers.groups),
        penalties=tuple(_penalty(name, regularizer) for name, regularizer in config.regularizer.items()),
        of_penalties=prepared.of_penalties,
        additions=sum(p.size for group in layers.groups for p in group.parameters if p.kind == "added"),
        notes=tuple(notes),
    )


def _idle(prepared: Prepared) -> list[str]:
    """Options of every strategy that were set and do nothing under this one."""
    config, plan = prepared.config.strategy, prepared.plan
    rates = [] if plan.moves_the_features else ["backbone_lr_mult", "layer_decay", "discriminative", "lr_span"]
    modes = any(phase.runs_in_training_mode(name) for phase in plan.phases for name in phase.rates if name != HEAD)
    given = [name for name in rates if getattr(config, name) != getattr(StrategyConfig, name)]
    policies = [config.normalization] if isinstance(config.normalization, str) else config.normalization
    return given + (["normalization"] if not modes and set(policies) != {"train"} else [])


def _unread(prepared: Prepared) -> list[str]:
    """What was set of the training step, which a head on kept features does not take."""
    trainer = prepared.config.trainer
    given = {
        "trainer.compile": trainer.compile != "none",
        "trainer.channels_last": bool(trainer.channels_last),
        "trainer.micro_batch_size": trainer.micro_batch_size is not None,
        "trainer.grad_checkpointing": trainer.grad_checkpointing,
        "optimizer.fused": prepared.config.optimizer.fused is False,
    }
    return [name for name, is_set in given.items() if is_set]


def _peak(phase: Phase, group: str, base: float) -> float | None:
    return base * phase.rates[group] if group in phase.rates else None


def _penalty(name: str, config: RegularizerConfig) -> str:
    options = [
        f"{f.name}={value}" for f in dataclasses.fields(config) if (value := getattr(config, f.name)) is not None
    ]
    return f"{name} ({', '.join(options)})"


def draw(prepared: Prepared, path: Path) -> None:
    """Write a picture of the rate of each layer group over the run; groups with the same rates share a line."""
    check_picture(path)
    import matplotlib
    from matplotlib.figure import Figure

    plan, total, order = prepared.plan, prepared.budget.total_steps, prepared.built.layers.names
    curves: dict[tuple[float, ...], list[str]] = {}
    steps = range(total)
    for group in prepared.built.layers.groups:
        curve = tuple(_rate(prepared, group.name, step) for step in steps)
        curves.setdefault(curve, []).append(group.name)
    drawn = [(rates, names) for rates, names in curves.items() if any(rates)]
    frozen = [name for rates, names in curves.items() if not any(rates) for name in names]
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axes = figure.subplots()
    shades = matplotlib.colormaps["viridis"]
    for i, (rates, names) in enumerate(drawn):
        colour = "#c2410c" if names == ["head"] else shades(i / max(1, len(drawn)))
        shown = [rate if rate > 0 else math.nan for rate in rates]
        width = 1.4 if names == ["head"] else 2.6  # where they are alike, the head lies on the rest
        axes.step(steps, shown, where="post", color=colour, label=span(names, of=order), linewidth=width)
    for phase in plan.phases[1:]:
        axes.axvline(phase.start, color="#9aa5b1", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    lowest = min((min(rate for rate in rates if rate > 0) for rates, _ in drawn), default=1.0)
    highest = max((max(rates) for rates, _ in drawn), default=1.0)
    axes.set_ylim(max(lowest, highest / 1e6) / 2, highest * 2)
    axes.set_xlabel(f"step ({prepared.budget.steps_per_epoch} per epoch)")
    axes.set_ylabel("learning rate")
    title = f"{prepared.config.backbone.name}, strategy={prepared.config.strategy.name}"
    axes.set_title(title + (f"; always frozen: {span(frozen, of=order)}" if frozen else ""), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    write_picture(figure, path)


def _rate(prepared: Prepared, group: str, step: int) -> float:
    base = prepared.config.optimizer.lr * prepared.factor(step)
    return float(base * prepared.plan.at(step).rates.get(group, 0.0))


def span(names: Sequence[str], *, of: Sequence[str]) -> str:
    """Layer groups in words: those that follow one another in `of` as `first ... last`."""
    runs: list[list[str]] = []
    for name in names:
        if runs and of.index(name) == of.index(runs[-1][-1]) + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(f"{run[0]} ... {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)
