"""From the best candidates to the jobs of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import ConfigError
from headstart.sweep.expand import Jobs
from headstart.transferability.candidates import find_candidates
from headstart.transferability.then import jobs_of, sweep_file

SWEEP = """# @package _global_
sweep:
  list:
    - {name: scratch, weights: scratch}
    - {name: tuned, weights: pretrained}
    - {name: probed, weights: pretrained, strategy: linear_probe}
  grid:
    seed: [0, 1]
"""


def jobs(*entries: str, shared: tuple[str, ...] = ("data=digits", "trainer.max_epochs=1")) -> Jobs:
    Path("mine.yaml").write_text(SWEEP)
    with sweep_file("mine.yaml", ()) as (sweep, folders):
        return jobs_of(find_candidates(entries, shared=shared), sweep=sweep, shared=shared, config_dirs=folders)


def told(found: Jobs) -> list[tuple[str, str, str, int]]:
    return [
        (job.config.backbone.name, job.config.weights.source, job.config.strategy.name, job.config.seed)
        for job in found.jobs
    ]


def test_each_candidate_has_the_files_jobs() -> None:
    found = jobs("resnet18", "vit_tiny_patch16_224")
    one = [
        ("scratch", "full", 0), ("scratch", "full", 1), ("pretrained", "full", 0), ("pretrained", "full", 1),
        ("pretrained", "linear_probe", 0), ("pretrained", "linear_probe", 1),
    ]  # fmt: skip
    assert sorted(told(found)) == sorted(
        (name, *job) for name in ("resnet18", "vit_tiny_patch16_224") for job in one
    )
    assert all(job.config.trainer.max_epochs == 1 for job in found.jobs)
    assert {job.name for job in found.jobs} >= {"resnet18 tuned", "vit_tiny_patch16_224 scratch"}
    assert {"backbone.name", "weights", "strategy", "seed"} <= set(found.axes)


def test_jobs_start_from_the_candidates_own_weights_but_for_those_from_scratch() -> None:
    Path("w.pth").write_bytes(b"")
    found = jobs("resnet18 weights=file weights.path=w.pth")
    assert {(job.config.weights.source, job.config.strategy.name) for job in found.jobs} == {
        ("scratch", "full"),
        ("file", "full"),
        ("file", "linear_probe"),
    }
    paths = {getattr(job.config.weights, "path", None) for job in found.jobs}
    assert paths == {None, "w.pth"}
    shared = ("data=digits", "weights=pretrained", "weights.origin=hub")
    assert {getattr(job.config.weights, "origin", None) for job in jobs("resnet18", shared=shared).jobs} == {
        None,
        "hub",
    }


def test_a_baseline_that_two_candidates_share_is_trained_once() -> None:
    found = jobs("resnet18", "resnet18 weights=scratch")
    sources = [(source, strategy) for _, source, strategy, _ in told(found)]
    assert sources.count(("pretrained", "full")) == 2
    assert sources.count(("scratch", "linear_probe")) == 2
    scratch = {job.config.seed for job in found.jobs if job.config.weights.source == "scratch"}
    assert scratch == {0, 1}
    assert sources.count(("scratch", "full")) == 2
    assert found.duplicates > 0


def test_a_sweep_that_is_not_there() -> None:
    with (
        pytest.raises(ConfigError, match=r"--then none\.yaml: there is no such file\."),
        sweep_file("none.yaml", ()),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"--then transfer_vs_scrach: .*Did you mean 'transfer_vs_scratch'"),
        sweep_file("transfer_vs_scrach", ()),
    ):
        pass
