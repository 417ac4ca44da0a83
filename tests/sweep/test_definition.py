"""What a sweep file may say: lists, grids, zips, conditions and exclusions."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import ConfigError
from headstart.sweep.expand import expand


def write(text: str, *, name: str = "mine", group: str = "sweep") -> None:
    folder = Path("conf") / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text("# @package _global_\n" + text)


def varied(*overrides: str) -> list[str]:
    return [" ".join(job.varied) for job in expand(overrides).jobs]


def test_a_zip_goes_together_and_a_grid_multiplies() -> None:
    write("sweep:\n  zip: {trainer.max_epochs: [1, 2], optimizer.lr: [0.1, 0.2]}\n  grid: {seed: [0, 1]}\n")
    assert varied("sweep=mine") == [
        "trainer.max_epochs=1 optimizer.lr=0.1 seed=0", "trainer.max_epochs=1 optimizer.lr=0.1 seed=1",
        "trainer.max_epochs=2 optimizer.lr=0.2 seed=0", "trainer.max_epochs=2 optimizer.lr=0.2 seed=1",
    ]  # fmt: skip


def test_conditions_and_exclusions() -> None:
    write(
        "sweep:\n"
        "  grid: {strategy: [full, linear_probe, last_k], weights: [scratch, pretrained]}\n"
        "  conditional: [{when: {strategy: last_k}, grid: {strategy.k: [1, 2]}}]\n"
        "  exclude: [{weights: scratch, strategy: [linear_probe, last_k]}]\n"
    )
    got = [
        (j.config.weights.source, j.config.strategy.name, getattr(j.config.strategy, "k", None))
        for j in expand(["sweep=mine"]).jobs
    ]
    assert got == [
        ("scratch", "full", None), ("pretrained", "full", None), ("pretrained", "linear_probe", None),
        ("pretrained", "last_k", 1), ("pretrained", "last_k", 2),
    ]  # fmt: skip


def test_what_a_job_leaves_as_it_is_counts_too() -> None:
    write("sweep:\n  grid: {seed: [0, 1]}\n  exclude: [{strategy: full, seed: 1}]\n")
    assert [job.config.seed for job in expand(["sweep=mine"]).jobs] == [0]
    assert len(varied("sweep=mine", "strategy=linear_probe")) == 2


def test_an_experiment_gives_the_rest() -> None:
    write("head: {dropout: 0.25}\n", name="base", group="experiment")
    write("sweep: {grid: {seed: [0, 1]}}\n")
    jobs = expand(["experiment=base", "sweep=mine"])
    assert [job.config.head.dropout for job in jobs.jobs] == [0.25, 0.25]
    assert jobs.name == "base-mine"
    assert jobs.axes == ("seed",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zip: {seed: [0, 1], optimizer.lr: [1]}", "must be of one length; seed has 2, optimizer.lr has 1"),
        ("grid: {seed: []}", "sweep.grid.seed must be a list of values"),
        ("gird: {seed: [1]}", "sweep.gird: there is no such key. Did you mean 'grid'?"),
        ("conditional: [{if: {seed: 1}, grid: {}}]", "must be {when: ..., grid: ...}"),
        ("exclude: [seed]", "sweep.exclude must be keys with values, not 'seed'"),
        ("exclude: [{stratgy: full}]", "names stratgy, which its jobs do not have"),
        ("exclude: [{strategy: full}]", "the sweep has no jobs: all are excluded"),
        ("grid: {optimiser.lr: [1, 2]}", "optimiser: there is no such key. Did you mean 'optimizer'?"),
    ],
)
def test_a_wrong_file(text: str, said: str) -> None:
    write(f"sweep:\n  {text}\n")
    with pytest.raises(ConfigError) as caught:
        expand(["sweep=mine"])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep=mien"], "sweep=mien: there is no such sweep. Did you mean 'mine'?"),
        (["sweep.grid={seed:[0,1]}"], "sweep.grid: belongs in an experiment or sweep file"),
        (["launcher.workers=1,2"], "launcher.workers: a sweep has one; it is no axis"),
        (["launcher.worker=2"], "launcher.worker: there is no such key. Did you mean 'workers'?"),
        (["sweep.name=a,b"], "sweep.name: a sweep has one"),
    ],
)
def test_wrong_words(words: list[str], said: str) -> None:
    write("sweep: {grid: {seed: [0, 1]}}\n")
    with pytest.raises(ConfigError) as caught:
        expand(words)
    assert said in str(caught.value)
