"""From the best candidates to the jobs of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import TINY

from headstart.cli import main
from headstart.errors import ConfigError
from headstart.records.store import find_runs
from headstart.sweep.expand import Jobs
from headstart.transferability.candidates import find_candidates
from headstart.transferability.ranking import read_ranking
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


def test_stages_parts_of_weights_and_searches_stay_what_the_file_says() -> None:
    Path("my sweep,1.yaml").write_text(
        """# @package _global_
sweep:
  list:
    - {name: pre, strategy: linear_probe}
    - {name: post, weights: run, weights.path: "stage:pre"}
    - {name: part, weights.first_k: 1}
  tune:
    optimizer.lr: {low: 0.5, high: 0.6}
defaults:
  - override /search: random
"""
    )
    shared = ("data=digits",)
    for entry in ("test_resnet", "test_resnet weights=pretrained", "test_resnet weights=file weights.path=w.pth"):
        candidates = find_candidates([entry], shared=shared)
        with sweep_file("my sweep,1.yaml", ()) as (sweep, folders):
            pre, post, part = jobs_of(candidates, sweep=sweep, shared=shared, config_dirs=folders).jobs
        assert pre.config.weights.source == ("file" if "file" in entry else "pretrained")
        assert (post.needs, post.config.weights.path) == (0, "stage:pre")
        assert part.config.weights.first_k == 1
        assert part.config.weights.source == pre.config.weights.source
        assert {job.config.optimizer.lr for job in (pre, post, part)} == {0.5}


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


def test_the_best_are_trained_and_the_ranking_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """Ranked, trained and held against each other in one command; the ranking that was kept gives the same later."""
    Path("mine.yaml").write_text("# @package _global_\nsweep:\n  list:\n    - {weights: pretrained}\n")
    small = [word for word in TINY if not word.startswith(("backbone", "weights"))]
    words = [
        "backbones=['test_resnet weights=scratch','test_vit weights=scratch','test_vit weights=scratch seed=3']"
    ]
    flags = ["--scores", "logme", "--bootstrap", "5", "--top", "2", "--then", "mine.yaml"]
    assert main(["rank", "data=digits", *small, *words, *flags]) == 0
    said = capsys.readouterr()
    ranking = read_ranking(next(Path("outputs/rankings").iterdir()))
    best = [one.name for one in ranking.candidates[:2]]
    trained = {(run.config["backbone"]["name"], run.config["seed"]) for _, run in find_runs([Path("outputs")])[0]}
    assert trained == {(one.backbone, one.weights["seed"]) for one in ranking.candidates[:2]}
    assert "2 runs of the best" in said.err
    assert "static*" in said.out
    for name in best:
        assert name in said.out
    assert f"not trained, left out: {ranking.candidates[2].name}" in said.out
    (sweep,) = Path("outputs/sweeps").iterdir()
    assert main(["rank", "--ranking", str(next(Path("outputs/rankings").iterdir())), "--against", str(sweep)]) == 0
    later = capsys.readouterr().out
    assert later.strip()
    assert later.strip() in said.out
    assert main(["resume", sweep.name]) == 0
