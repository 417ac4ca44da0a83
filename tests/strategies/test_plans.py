"""Plans: what each strategy trains, as a pure function of the step."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from tests.conftest import RunTiny, tiny_config

from headstart.config.schema.strategy import (
    OPTIONS,
    AutoRgnConfig,
    BitFitConfig,
    FirstKConfig,
    FreezeFirstKConfig,
    FullConfig,
    GradualConfig,
    GroupsConfig,
    LastKConfig,
    LinearProbeConfig,
    LpFtConfig,
    NormOnlyConfig,
    PhasesConfig,
    StrategyConfig,
)
from headstart.errors import ConfigError
from headstart.facts import LayerGroup, LayerMap, LayerParameter
from headstart.preparation import prepare
from headstart.strategies import Phase, Timing, TrainingPlan, build_plan, resolve_strategy
from headstart.strategies.build import STRATEGIES

TIMING = Timing(total_steps=100, steps_per_epoch=10)
NAMES = ("stem", "block.0", "block.1", "neck", "head")


def layers(problem: str = "") -> LayerMap:
    groups = tuple(LayerGroup(name, (LayerParameter(f"{name}.w", 10**i),), ()) for i, name in enumerate(NAMES))
    return LayerMap(groups, problem)


def test_the_registry_is_closed() -> None:
    assert set(STRATEGIES) == set(OPTIONS)


def test_what_trains() -> None:
    assert build_plan(FullConfig(), layers(), TIMING).ever_trained == NAMES
    assert build_plan(LinearProbeConfig(), layers(), TIMING).ever_trained == ("head",)
    assert build_plan(LastKConfig(k=1), layers(), TIMING).ever_trained == ("neck", "head")
    assert build_plan(LastKConfig(k=4), layers(), TIMING).ever_trained == NAMES


def test_trainable_numbers_are_counted() -> None:
    assert build_plan(LastKConfig(k=1), layers(), TIMING).count_trainable(layers()) == 11_000


def test_a_k_beyond_the_backbone() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.k=5: the backbone has 4 layer groups .stem \.\.\. neck."):
        build_plan(LastKConfig(k=5), layers(), TIMING)


def test_no_prefix_no_last_k() -> None:
    with pytest.raises(ConfigError, match="strategy=last_k: no order; use full, linear_probe or groups"):
        build_plan(LastKConfig(k=1), layers("no order"), TIMING)
    assert build_plan(FullConfig(), layers("no order"), TIMING).ever_trained == NAMES


def test_a_plan_is_asked_by_step() -> None:
    first, second = Phase(0, {"head": 1.0}), Phase(10, {"head": 1.0, "stem": 0.1})
    plan = TrainingPlan((first, second))
    assert [plan.at(step) for step in (0, 9, 10, 99)] == [first, first, second, second]
    assert plan.ever_trained == ("head", "stem")


@pytest.mark.parametrize("starts", [(), (1,), (0, 0), (0, 5, 3)])
def test_phases_go_forward_from_zero(starts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="phases must start at 0"):
        TrainingPlan(tuple(Phase(start, {"head": 1.0}) for start in starts))


# --- each strategy, over groups that hold every kind of parameter


KINDS = ("weight", "bias", "norm_weight", "norm_bias")


def deep(depth: int = 5, *, neck: bool = False, problem: str = "") -> LayerMap:
    """`depth` groups of the backbone and the head, one parameter of each kind in each."""
    names = ["stem", *(f"block.{i}" for i in range(depth - 1 - neck)), *(["neck"] if neck else []), "head"]
    return LayerMap(
        tuple(LayerGroup(n, tuple(LayerParameter(f"{n}.{kind}", 1, kind) for kind in KINDS), ()) for n in names),
        problem,
    )


def trained(config: StrategyConfig, layers: LayerMap, step: int = 0, timing: Timing = TIMING) -> set[str]:
    """Names of the parameters that train at a step."""
    phase = build_plan(config, layers, timing).at(step)
    return {p.name for g in layers.groups for p in g.parameters if phase.trains(g.name, p.kind)}


def all_of(*groups: str) -> set[str]:
    return {f"{group}.{kind}" for group in groups for kind in KINDS}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (FirstKConfig(k=2), ("stem", "block.0", "head")),
        (FirstKConfig(k=4), ("stem", "block.0", "block.1", "neck", "head")),
        (FreezeFirstKConfig(k=1), ("block.0", "block.1", "neck", "head")),
        (FreezeFirstKConfig(k=4), ("head",)),
        (LastKConfig(k=2), ("block.1", "neck", "head")),
        (GroupsConfig(groups=["stem"]), ("stem", "head")),
        (GroupsConfig(groups=["block.*"]), ("block.0", "block.1", "head")),
        (GroupsConfig(groups=["neck", "*.1", "n*"]), ("block.1", "neck", "head")),
        (GroupsConfig(groups=["head"]), ("head",)),
        (GroupsConfig(groups=["?tem", "block.[0-9]"]), ("stem", "block.0", "block.1", "head")),
        (AutoRgnConfig(), ("stem", "block.0", "block.1", "neck", "head")),
    ],
    ids=lambda value: value.name if isinstance(value, StrategyConfig) else None,
)
def test_which_groups_train(config: StrategyConfig, expected: tuple[str, ...]) -> None:
    layers = deep(4, neck=True)
    assert trained(config, layers) == all_of(*expected)
    assert build_plan(config, layers, TIMING).count_trainable(layers) == 4 * len(expected)
    assert trained(config, layers, 99) == all_of(*expected)


def test_first_k_and_freeze_first_k_split_the_backbone() -> None:
    layers = deep(6)
    for k in range(1, 7):
        first, rest = trained(FirstKConfig(k=k), layers), trained(FreezeFirstKConfig(k=k), layers)
        assert first & rest == all_of("head")
        assert first | rest == all_of(*layers.names)
        if k < 6:
            assert rest == trained(LastKConfig(k=6 - k), layers)


def test_norm_only_and_bitfit_take_kinds_and_the_whole_head() -> None:
    layers = deep(3)
    backbone = ("stem", "block.0", "block.1")
    assert trained(NormOnlyConfig(), layers) == all_of("head") | {
        f"{group}.{kind}" for group in backbone for kind in ("norm_weight", "norm_bias")
    }
    assert trained(BitFitConfig(), layers) == all_of("head") | {
        f"{group}.{kind}" for group in backbone for kind in ("bias", "norm_bias")
    }


def test_a_backbone_without_such_parameters() -> None:
    plain = LayerMap(tuple(LayerGroup(n, (LayerParameter(f"{n}.w", 1),), ()) for n in ("stem", "head")))
    with pytest.raises(ConfigError, match="strategy=norm_only: this backbone has no normalisation"):
        build_plan(NormOnlyConfig(), plain, TIMING)
    with pytest.raises(ConfigError, match="strategy=bitfit: this backbone has no biases"):
        build_plan(BitFitConfig(), plain, TIMING)


# --- gradual


def starts_of(config: StrategyConfig, layers: LayerMap, timing: Timing = TIMING) -> list[tuple[int, set[str]]]:
    return [(phase.start, set(phase.rates)) for phase in build_plan(config, layers, timing).phases]


def test_gradual_goes_from_the_top() -> None:
    layers = deep(4, neck=True)
    assert starts_of(GradualConfig(milestones=[2, 4.5], groups_per_step=1), layers) == [
        (0, {"head"}),
        (20, {"head", "neck"}),
        (45, {"head", "neck", "block.1"}),
    ]
    assert starts_of(GradualConfig(milestones=[7, 30], unit="step", groups_per_step=3), layers) == [
        (0, {"head"}),
        (7, {"head", "neck", "block.1", "block.0"}),
        (30, set(layers.names)),
    ]


def test_gradual_adds_as_many_groups_as_are_needed_by_the_last_milestone() -> None:
    layers = deep(6)
    assert [len(groups) for _, groups in starts_of(GradualConfig(milestones=[1, 2, 3]), layers)] == [1, 3, 5, 7]
    assert [len(groups) for _, groups in starts_of(GradualConfig(milestones=[4]), layers)] == [1, 7]


@pytest.mark.parametrize("epochs", range(2, 14))
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 6, 7, 9, 10, 13, 17])
def test_gradual_by_default_fits_every_depth_and_budget(depth: int, epochs: int) -> None:
    layers, timing = deep(depth), Timing(epochs * 10, 10)
    config = resolve_strategy(GradualConfig(), layers, timing)
    assert isinstance(config, GradualConfig)
    assert config.milestones
    assert config.groups_per_step
    assert config.unit == "epoch"
    assert resolve_strategy(config, layers, timing) == config, "what is explicit stays"
    plan = build_plan(config, layers, timing)
    assert plan == build_plan(GradualConfig(), layers, timing)
    assert plan.at(0).rates == {"head": 1.0}
    assert set(plan.phases[-1].rates) == set(layers.names)
    assert plan.phases[-1].start <= timing.total_steps // 2
    assert len(plan.phases) == 1 + len(config.milestones)
    grown = [len(phase.rates) for phase in plan.phases]
    assert all(a < b <= a + config.groups_per_step for a, b in pairwise(grown))
    for phase in plan.phases:
        assert set(phase.rates) == set(layers.names[len(layers.names) - len(phase.rates) :]), "from the top"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_gradual_chooses_the_groups_per_step_for_given_milestones(count: int) -> None:
    """As few per step as have the whole backbone training from the last milestone on."""
    config = GradualConfig(milestones=[float(m) for m in range(1, count + 1)])
    plan = build_plan(config, deep(5), TIMING)
    assert set(plan.phases[-1].rates) == set(deep(5).names)
    assert set(plan.phases[-2].rates) < set(deep(5).names)
    assert max(len(b.rates) - len(a.rates) for a, b in pairwise(plan.phases)) == -(-5 // count)


@pytest.mark.parametrize("per_step", [1, 2, 3, 4, 5, 9])
def test_gradual_chooses_the_milestones_for_a_given_number_of_groups(per_step: int) -> None:
    plan = build_plan(GradualConfig(groups_per_step=per_step), deep(5), TIMING)
    assert [len(phase.rates) for phase in plan.phases] == [
        1 + min(5, i * per_step) for i in range(1 + min(5, -(-5 // per_step)))
    ]


# --- linear probing, then fine-tuning


@pytest.mark.parametrize("total", [10, 37, 101, 1000])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_lp_ft_gives_each_part_its_share(total: int, share: float) -> None:
    layers, timing = deep(3), Timing(total, 10)
    plan = build_plan(LpFtConfig(probe_share=share, finetune_lr_mult=0.2), layers, timing)
    probe, rest = plan.lengths(total)
    assert probe + rest == total
    assert abs(probe - share * total) <= 0.5
    assert plan.at(probe - 1).rates == {"head": 1.0}
    assert plan.at(probe).rates == dict.fromkeys(layers.names, 0.2)


def test_lp_ft_that_leaves_a_part_empty() -> None:
    for share in (0.01, 0.99):
        with pytest.raises(ConfigError, match="leaves one part of 4 steps empty"):
            build_plan(LpFtConfig(probe_share=share), deep(3), Timing(4, 2))


# --- the user's own phases


def test_phases_say_what_trains_how_fast_and_how_norms_behave() -> None:
    config = PhasesConfig(
        phases=[
            {"start": 0, "groups": ["head"], "end": 2},
            {"start": 2, "groups": {"block.*": 0.1, "head": 1}, "lr_mult": 0.5, "normalization": "eval", "end": 4},
            {"start": 4, "groups": ["*"], "end": 10},
        ],
        normalization=["train", "train", "batch_stats"],
        backbone_lr_mult=0.5,
    )
    plan = build_plan(config, deep(3), TIMING)
    assert [phase.start for phase in plan.phases] == [0, 20, 40]
    assert plan.at(19).rates == {"head": 1.0}
    assert plan.at(20).rates == pytest.approx({"block.0": 0.025, "block.1": 0.025, "head": 0.5})
    assert plan.at(99).rates == pytest.approx({"stem": 0.5, "block.0": 0.5, "block.1": 0.5, "head": 1.0})
    assert [phase.normalization for phase in plan.phases] == ["train", "eval", "batch_stats"]


def test_phases_count_steps_and_may_freeze_again() -> None:
    config = PhasesConfig(
        unit="step",
        phases=[
            {"start": 0, "groups": ["*"]},
            {"start": 7, "groups": ["head"]},
            {"start": 8, "groups": ["stem", "head"]},
        ],
    )
    layers = deep(3)
    assert [trained(config, layers, step) for step in (0, 6, 7, 8, 99)] == [
        all_of(*layers.names), all_of(*layers.names), all_of("head"), all_of("stem", "head"), all_of("stem", "head"),
    ]  # fmt: skip


def test_phases_need_no_order_of_the_groups() -> None:
    config = PhasesConfig(phases=[{"start": 0, "groups": ["head", "stem"]}])
    assert trained(config, deep(3, problem="no order")) == all_of("stem", "head")
    for other in (FirstKConfig(), FreezeFirstKConfig(), GradualConfig()):
        with pytest.raises(ConfigError, match=f"strategy={other.name}: no order; use full, linear_probe or groups"):
            build_plan(other, deep(3, problem="no order"), TIMING)


def test_two_patterns_may_name_one_group_at_one_rate() -> None:
    config = PhasesConfig(phases=[{"start": 0, "groups": {"block.*": 0.1, "block.0": 0.1, "head": 1}}])
    assert build_plan(config, deep(3), TIMING).at(0).rates["block.0"] == pytest.approx(0.1)


def test_the_resolved_config_of_a_run_says_all(run_tiny: RunTiny) -> None:
    folder, record = run_tiny("strategy=gradual", "trainer.max_epochs=4", "data.train_size=40")
    plain = yaml.safe_load((folder / "config.yaml").read_text())["strategy"]
    assert plain["milestones"] == [1.0, 2.0]
    assert plain["groups_per_step"] == 3
    assert plain["unit"] == "epoch"
    assert plain["normalization"] == ["train", "train", "train"]
    assert record.status == "completed"


# --- what bad input gets


OVERLAP = "strategy.phases=[{start:0,groups:[head],end:2},{start:1,groups:['*']}]"
BAD = (
    ("strategy=last_k strategy.k=9", r"strategy\.k=9: the backbone has 5 layer groups \(stem \.\.\. block\.3\)"),
    ("strategy=first_k strategy.k=6", r"strategy\.k=6: the backbone has 5 layer groups"),
    ("strategy=freeze_first_k strategy.k=6", r"strategy\.k=6: the backbone has 5 layer groups"),
    ("strategy=first_k strategy.k=0", r"strategy\.k=0: must be at least 1"),
    (
        "strategy=groups strategy.groups=[stem,blok.*]",
        r"strategy\.groups: 'blok\.\*' matches no layer group\..* There are: stem, block\.0 \.\.\. block\.3, head",
    ),
    ("strategy=groups strategy.groups=[]", r"strategy\.groups=\[\]: names no layer group"),
    ("strategy=groups", r"strategy\.groups"),
    ("strategy=gradual strategy.milestones=[1,2]", "2 epochs lie past the budget: the run has 8 steps, 2 epochs"),
    ("strategy=gradual strategy.unit=step strategy.milestones=[8]", "8 steps lie past the budget"),
    ("strategy=gradual strategy.milestones=[0.01]", "0.01 epochs are less than one step after the start"),
    ("strategy=gradual strategy.milestones=[1.5,1]", "must be a rising list"),
    ("strategy=gradual strategy.milestones=[]", "must be a rising list"),
    ("strategy=gradual strategy.milestones=[0,1]", r"strategy\.milestones=.*must be above 0"),
    ("strategy=gradual trainer.max_epochs=1", "less than two epochs"),
    ("strategy=gradual strategy.unit=step", r"strategy\.unit: says what strategy\.milestones count; give those as well"),
    ("strategy=full strategy.stochnorm_p=0.2", r"strategy\.stochnorm_p: needs strategy\.normalization=stochnorm"),
    *(
        (
            f"strategy={strategy} strategy.normalization=stochnorm backbone.name=test_vit data.image_size=160",
            "is for batch normalisation, and this backbone has none",
        )
        for strategy in ("full", "lora", "linear_probe")
    ),
    ("strategy=full data.batch_size=2 trainer.devices=2", "batch normalisation trains on 2 images or more per process"),
    (
        "strategy=gradual strategy.unit=step strategy.milestones=[1,2,3] strategy.groups_per_step=4",
        "with 4 groups per step all 5 layer groups train after 2 of them; leave out the rest",
    ),
    ("strategy=lp_ft strategy.probe_share=0.01", "leaves one part of 8 steps empty"),
    ("strategy=lp_ft strategy.probe_share=1", r"strategy\.probe_share=1.*: must be below 1"),
    (f"strategy=phases {OVERLAP}", r"strategy\.phases\[0\]\.end=2: overlaps the next phase, which starts at 1"),
    (
        "strategy=phases strategy.phases=[{start:0,groups:[head]},{start:1,groups:[head]},{start:0.5,groups:['*']}]",
        r"strategy\.phases\[2\]\.start=0\.5: phases go forward; the one before starts at 1",
    ),
    (
        "strategy=phases strategy.phases=[{start:0,groups:[head],end:0.5},{start:1,groups:['*']}]",
        r"strategy\.phases\[1\]\.start=1: the phase before ends at 0\.5",
    ),
    (
        "strategy=phases strategy.phases=[{start:0,groups:[head]},{start:0.01,groups:['*']}]",
        r"strategy\.phases\[1\]\.start=0\.01: ",
    ),
    ("strategy=phases strategy.phases=[{start:1,groups:[head]}]", "the first phase starts at 0"),
    ("strategy=phases strategy.phases=[{start:0,groups:[head]},{start:2,groups:['*']}]", "lie past the budget"),
    ("strategy=phases strategy.phases=[{start:0,groups:['*'],end:1}]", "the run ends at step 8, not 4"),
    ("strategy=phases strategy.phases=[{start:0,groups:[stem]}]", "the head trains in no phase"),
    ("strategy=phases strategy.phases=[{start:0,group:[head]}]", r"\.group: there is no such key\. Did you mean"),
    ("strategy=phases strategy.phases=[{groups:[head]}]", r"\.start=None: must be a number"),
    ("strategy=phases strategy.phases=[{start:0}]", r"\.groups: must be names of layer groups"),
    ("strategy=phases strategy.phases=[]", "must be a list such as"),
    ("strategy=phases strategy.phases=[{start:0,groups:[haed]}]", r"'haed' matches no layer group\. Did you mean"),
    (
        "strategy=phases strategy.phases=[{start:0,groups:{head:1,stem:0}}]",
        r"groups\.stem=0: must be above 0; a group that is left out of the phase is frozen",
    ),
    (
        "strategy=phases strategy.phases=[{start:0,groups:[head],lr_mult:-1}]",
        r"lr_mult=-1: must be .*",
    ),
    (
        "strategy=phases strategy.phases=[{start:0,groups:{block.*:0.1,block.1:0.2,head:1}}]",
        r"block\.1 is matched by 'block\.\*' and 'block\.1', at different rates",
    ),
    (
        "strategy=phases strategy.phases=[{start:0,groups:[head],normalization:frozen}]",
        r"normalization=frozen: must be one of train, eval, batch_stats, stochnorm",
    ),
    ("optimizer.lr=0", r"optimizer\.lr=0.*: must be above 0; to freeze a part use"),
    ("optimizer.lr=-0.1", r"optimizer\.lr=-0\.1: must be above 0; to freeze a part use"),
    ("strategy.backbone_lr_mult=0", r"backbone_lr_mult=0.*: must be above 0; to freeze it use linear_probe"),
    ("strategy.backbone_lr_mult=-1", r"backbone_lr_mult=-1.*: must be above 0; to freeze it use linear_probe"),
    ("strategy.layer_decay=0", r"layer_decay=0.*: must be above 0; to freeze it use"),
    ("strategy=lp_ft strategy.finetune_lr_mult=0", r"finetune_lr_mult=0.*: must be above 0; to freeze it use"),
    ("strategy.discriminative=0.5", r"discriminative=0\.5: must be at least 1"),
    ("strategy.normalization=frozen", "must be one of train, eval, batch_stats, stochnorm"),
    ("strategy.normalization=[train,eval]", "2 policies, 1 phases; give one, or one each"),
    ("strategy=lp_ft strategy.normalization=[train,eval,train]", "3 policies, 2 phases; give one, or one each"),
    ("strategy.layer_decay=0.7 strategy.discriminative=2.6", "are both set; choose one"),
    ("strategy.layer_decay=0.7 strategy.lr_span=10", "are both set; choose one"),
    ("strategy.lr_span=10 strategy.discriminative=2.6", "are both set; choose one"),
    ("strategy.layer_decay_min=0.1", r"layer_decay_min: needs strategy\.layer_decay"),
    ("strategy.normalization=stochnorm backbone.name=test_convnext", "is for batch normalisation, and this backbone"),
    (
        "strategy.normalization=stochnorm backbone.name=test_vit data.image_size=160",
        "is for batch normalisation, and this backbone has none",
    ),
    ("weights=file weights.path=x regularizer=[l2_sp,delta]", r"regularizer=\[l2_sp,delta\]: exclude each other"),
    ("regularizer=l2_sp", r"regularizer=l2_sp: .*weights=scratch has none worth it"),
    ("regularizer=[nothing]", "there is no such regularizer"),
)  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), BAD, ids=[text for text, _ in BAD])
def test_bad_input_gets_one_clear_line_before_training(overrides: str, said: str) -> None:
    words = overrides.split(" ")
    keys = {word.partition("=")[0] for word in words}
    if "trainer.max_epochs" not in keys:
        words.append("trainer.max_epochs=2")
    with pytest.raises(ConfigError, match=said) as caught:
        prepare(tiny_config(*words))
    assert len(str(caught.value).splitlines()) == 1
    assert not Path("outputs").exists()
