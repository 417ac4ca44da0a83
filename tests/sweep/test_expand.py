"""Which jobs a sweep has."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import ConfigError
from headstart.sweep.expand import expand


def varied(*overrides: str, config_dirs: tuple[str, ...] = ()) -> list[str]:
    return [" ".join(job.varied) for job in expand(overrides, config_dirs=config_dirs).jobs]


def test_lists_choices_ranges_and_globs() -> None:
    assert varied("seed=0,1", "strategy=full,linear_probe") == [
        "seed=0 strategy=full", "seed=0 strategy=linear_probe", "seed=1 strategy=full", "seed=1 strategy=linear_probe",
    ]  # fmt: skip
    assert varied("seed=choice(3,5)") == ["seed=3", "seed=5"]
    assert varied("seed=range(3)") == ["seed=0", "seed=1", "seed=2"]
    assert varied("backbone=glob(efficientnet*)") == [f"backbone=efficientnet_lite{i}" for i in range(3)]
    assert varied("data.image_size=[32,48],[48,32]") == ["data.image_size=[32,48]", "data.image_size=[48,32]"]


def test_the_readme_grid() -> None:
    jobs = expand(["backbone=efficientnet_lite0,resnet18", "weights=scratch", "strategy=full,linear_probe"]).jobs
    got = [(j.config.backbone.name, j.config.weights.source, j.config.strategy.name) for j in jobs]
    assert got == [
        (b, "scratch", s) for b in ("tf_efficientnet_lite0", "resnet18") for s in ("full", "linear_probe")
    ]


def test_quickstart_is_nine_runs_in_three_arms() -> None:
    jobs = expand(["experiment=quickstart"]).jobs
    got = [(j.config.weights.source, j.config.strategy.name, j.config.seed) for j in jobs]
    arms = [("pretrained", "full"), ("pretrained", "linear_probe"), ("scratch", "full")]
    assert got == [(*arm, seed) for arm in arms for seed in (0, 1, 2)]
    assert all(j.config.data.image_size == 64 and j.config.data.source == "digits" for j in jobs)


def test_the_command_line_replaces_the_files_axis() -> None:
    assert len(varied("experiment=quickstart", "seed=7")) == 3
    assert len(varied("experiment=quickstart", "seed=7,8")) == 6
    only = expand(["experiment=quickstart", "weights=scratch", "strategy=full", "seed=0"])
    assert len(only.jobs) == 1
    assert only.duplicates == 8


def write(tmp_path: Path, **files: str) -> tuple[str]:
    (tmp_path / "more" / "experiment").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (tmp_path / "more" / "experiment" / f"{name}.yaml").write_text("# @package _global_\n" + text)
    return (str(tmp_path / "more"),)


def test_hydras_own_parameters_in_a_file(tmp_path: Path) -> None:
    folder = write(
        tmp_path, mine="hydra:\n  sweeper:\n    params:\n      seed: 0,1\n      optimizer.lr: choice(0.1,0.2)\n"
    )
    assert len(varied("experiment=mine", config_dirs=folder)) == 4


def test_several_experiments_with_sweeps_inside_are_all_expanded(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        one="sweep: {grid: {seed: [0, 1]}}\n",
        two="head: {dropout: 0.1}\nhydra: {sweeper: {params: {seed: 'range(3)'}}}\n",
        three="seed: 9\n",
    )
    got = varied("experiment=one,two,three", config_dirs=folder)
    assert got == [
        "experiment=one seed=0", "experiment=one seed=1", "experiment=two seed=0", "experiment=two seed=1",
        "experiment=two seed=2", "experiment=three",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["strategy=full,ful"], "strategy=ful: there is no such strategy. Did you mean 'full'?"),
        (["optimizer.lr=0.1,-1"], "optimizer.lr=-1.0: must be above 0; to freeze a part use strategy="),
        (["optimiser.lr=0.1,0.2"], "optimiser: there is no such key. Did you mean 'optimizer'?"),
        (["experiment=nothing"], "experiment=nothing: there is no such experiment"),
    ],
)
def test_wrong_jobs_are_said_before_any_runs(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(overrides)
    assert said in str(caught.value)


def test_every_wrong_job_is_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        expand(["optimizer.lr=0.1,-1,-2", "seed=0"])
    instead = "to freeze a part use strategy=linear_probe, last_k, groups or phases."
    assert str(caught.value).splitlines() == [
        "2 of 3 jobs cannot run:",
        f"optimizer.lr=-1: optimizer.lr=-1.0: must be above 0; {instead}",
        f"optimizer.lr=-2: optimizer.lr=-2.0: must be above 0; {instead}",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sweep: {grid: {seed: 3}}\n", "sweep.grid.seed must be a list of values"),
        ("sweep: {grid: {seed: []}}\n", "sweep.grid.seed must be a list of values"),
        ("sweep: {list: [full]}\n", "an entry of sweep.list must be keys with values, not 'full'"),
        ("sweep: {list: 3}\n", "sweep.list must be a list"),
        ("sweep: {grid: {sede: [1]}}\n", "sede: there is no such key. Did you mean 'seed'?"),
    ],
)
def test_a_bad_sweep_in_a_file(tmp_path: Path, text: str, said: str) -> None:
    folder = write(tmp_path, mine=text)
    with pytest.raises(ConfigError) as caught:
        expand(["experiment=mine"], config_dirs=folder)
    assert said in str(caught.value)
