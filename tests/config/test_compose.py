"""Composing: what a person writes, and what a mistake in it is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart.config.checks import check
from headstart.config.compose import compose
from headstart.config.plain import from_plain, to_plain
from headstart.errors import ConfigError


def test_defaults() -> None:
    config = compose([])
    assert (config.backbone.name, config.weights.source) == ("tf_efficientnet_lite0", "pretrained")
    assert (config.strategy.name, config.data.source, config.optimizer.name) == ("full", "digits", "adamw")


def test_choices_and_values_reach_the_config() -> None:
    config = compose(
        ["strategy=last_k", "strategy.k=3", "optimizer=sgd", "optimizer.lr=0.5", "data.image_size=[32,48]"]
    )
    assert (config.strategy.name, config.strategy.k) == ("last_k", 3)  # type: ignore[attr-defined]
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.5)
    assert config.data.image_size == [32, 48]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("bakbone=resnet18", "bakbone: there is no such key. Did you mean 'backbone'?"),
        ("optimzer.lr=3", "optimzer: there is no such key. Did you mean 'optimizer'?"),
        ("optimizer.lrr=3", "optimizer.lrr: there is no such key. Did you mean 'lr'?"),
        ("data.batchsize=3", "data.batchsize: there is no such key. Did you mean 'batch_size'?"),
        ("strategy.k=2", "strategy.k: there is no such key. It belongs to strategy=last_k"),
        ("+foo=1", "foo: there is no such key."),
        ("+strategy.z=1", "strategy.z: there is no such key."),
        ("++trainer.zz=1", "trainer.zz: there is no such key."),
        ("~seed", "'~seed': a key cannot be removed"),
        ("strategy=linear_prob", "strategy=linear_prob: there is no such strategy. Did you mean 'linear_probe'?"),
        ("backbone=resnet34d", "Did you mean 'resnet"),
        (
            "backbone=zzz",
            "backbone=zzz: there is no such backbone. Any timm model can be named: backbone.name=zzz.",
        ),
        ("experiment=quikstart", "experiment=quikstart: there is no such experiment. Did you mean 'quickstart'?"),
        ("optimizer.lr=fast", "optimizer.lr: Value 'fast' of type 'str' could not be converted to Float"),
        ("seed=x", "seed: Value 'x' of type 'str' could not be converted to Integer"),
        ("seed=null", "seed: field 'seed' is not Optional"),
        ("data.batch_size=[1]", "data.batch_size: Value '[1]'"),
        ("data=hf", "data.path is required: A hub name"),
        ("schedule=step", "schedule.milestones is required"),
        ("seed=1,2", "seed=1,2: several values for one run; add -m"),
        ("data.image_size=(", "cannot be read"),
        ("word", "'word' is not an override: write key=value"),
        ("optimizer.lr=0", "optimizer.lr=0.0: must be above 0; to freeze a part use strategy=linear_probe"),
        ("optimizer.lr=-1", "optimizer.lr=-1.0: must be above 0; to freeze"),
        ("optimizer.lr=nan", "optimizer.lr=nan: must be finite."),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1.0: must be at least 0."),
        ("data.image_size=0", "data.image_size=0: must be above 0."),
        ("data.image_size=[32,-1]", "data.image_size=[32, -1]: must be above 0."),
        ("data.image_size=big", "data.image_size=big: must be a whole number, or [height,width]."),
        ("data.image_size=[1,2,3]", "data.image_size=[1, 2, 3]: must be a whole number, or [height,width]."),
        ("data.batch_size=0", "data.batch_size=0: must be at least 1."),
        ("data.train_size=0", "data.train_size=0: must be above 0."),
        ("data.train_size=-0.5", "data.train_size=-0.5: must be above 0."),
        ("data.train_size=1.5", "data.train_size=1.5: a share must be below 1"),
        ("data.train_size=many", "data.train_size=many: must be a count, or a share below 1."),
        ("data.shots=0", "data.shots=0: must be at least 1."),
        ("data.std=[0,1,1]", "data.std=[0.0, 1.0, 1.0]: must be above 0."),
        ("data.mean=[0.5,0.5]", "data.mean=[0.5, 0.5]: must be one number, or one per channel (3)."),
        ("head.dropout=1", "head.dropout=1.0: must be below 1."),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: must be at least 1."),
        ("trainer.max_time=soon", "trainer.max_time=soon: must be DD:HH:MM:SS"),
        ("trainer.precision=fp16", "trainer.precision=fp16: must be one of auto, 32-true"),
        (
            "trainer.monitor=val/accuracy",
            "trainer.monitor=val/accuracy: there is no such metric. Did you mean 'val/accuracy_",
        ),
        ("loss.class_weights=some", "loss.class_weights=some: must be none, balanced or a list"),
        ("loss.label_smoothing=1", "loss.label_smoothing=1.0: must be below 1."),
        ("backbone.library=keras", "backbone.library=keras: must be one of timm, torchvision."),
    ],
)
def test_a_mistake_gets_one_clear_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.max_epochs=2", "trainer.max_steps=2"], "trainer.max_epochs and trainer.max_steps are both set"),
        (
            ["schedule.warmup_steps=2", "schedule.warmup_epochs=1"],
            "schedule.warmup_epochs and schedule.warmup_steps",
        ),
        (["schedule=step", "schedule.milestones=[4,2]"], "must be a rising list"),
        (["schedule=step", "schedule.milestones=[10]"], "beyond the budget of 10 epochs"),
        (["schedule=step", "schedule.milestones=[9]", "trainer.max_epochs=5"], "beyond the budget of 5 epochs"),
        (["optimizer=sgd", "optimizer.momentum=0"], "optimizer.nesterov=true needs optimizer.momentum above 0"),
        (["data.shots=2", "data.train_size=2"], "data.shots and data.train_size are both set"),
        (
            ["features.views=2"],
            "features.views=2: are versions of augmented images; data.augment=none has but one.",
        ),
        (
            ["features.views=2", "data.augment=light", "features.use=false"],
            "features.views: keeps what features.use",
        ),
        (["features.prefix=true", "features.use=false"], "features.prefix: keeps what features.use=false computes"),
    ],
)
def test_options_that_exclude_each_other(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("[", r"\[").replace(".", r"\.")):
        compose(overrides)


def experiment(tmp_path: Path, text: str) -> str:
    folder = tmp_path / "more" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\n" + text)
    return str(tmp_path / "more")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer: {lrr: 3}\n", "optimizer.lrr: there is no such key. Did you mean 'lr'?"),
        ("optimiser: {lr: 3}\n", "optimiser: there is no such key. Did you mean 'optimizer'?"),
        ("data: {batch_size: many}\n", "data.batch_size: Value 'many'"),
        ("strategy: {_target_: os.system}\n", "strategy._target_: there is no such key."),
        ("seed: [\n", "A config file is not YAML"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, said: str) -> None:
    folder = experiment(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=mine"], config_dirs=(folder,))
    assert said in str(caught.value)


def test_a_python_tag_in_a_file_is_refused(tmp_path: Path) -> None:
    folder = experiment(tmp_path, "seed: !!python/object/apply:os.system ['touch ran']\n")
    with pytest.raises(ConfigError):
        compose(["experiment=mine"], config_dirs=(folder,))
    assert not Path("ran").exists()


def test_config_dir_and_local_conf_come_before_the_package(tmp_path: Path) -> None:
    Path("conf/backbone").mkdir(parents=True)
    Path("conf/backbone/resnet18.yaml").write_text("name: resnet18.tv_in1k\n")
    assert compose(["backbone=resnet18"]).backbone.name == "resnet18.tv_in1k"
    (tmp_path / "named" / "backbone").mkdir(parents=True)
    (tmp_path / "named" / "backbone" / "resnet18.yaml").write_text("name: resnet18.a1_in1k\n")
    named = compose(["backbone=resnet18"], config_dirs=(str(tmp_path / "named"),))
    assert named.backbone.name == "resnet18.a1_in1k"


def test_a_missing_config_dir_is_named() -> None:
    with pytest.raises(ConfigError, match="--config-dir nowhere: there is no such folder"):
        compose([], config_dirs=("nowhere",))


def test_graphs_that_would_write_over_gradients_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.compile=max-autotune: .*use trainer\.compile=default"):
        compose(["trainer.compile=max-autotune", "trainer.micro_batch_size=4"])


@pytest.mark.parametrize(
    "measured", [{"prefix": "all"}, {"prefix": [True]}, {"channels_last": 1}, {"speed": 2}], ids=str
)
def test_what_measurements_chose_is_checked(measured: dict[str, Any]) -> None:
    plain = to_plain(compose([]))
    with pytest.raises(ConfigError, match=r"measured\.\w+=.*: is filled in by a run's start"):
        check(from_plain({**plain, "measured": measured}))
    check(from_plain({**plain, "measured": {"prefix": [0], "channels_last": True}}))
