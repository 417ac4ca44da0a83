"""Hashes: equal for the same result, different for any other."""

from __future__ import annotations

import pytest

from headstart.config.compose import compose
from headstart.config.identity import arm_hash, config_hash, job_key


def arm(*overrides: str, data: str = "d", weights: str = "w") -> str:
    return arm_hash(compose(list(overrides)), data_fingerprint=data, weights_identity=weights)


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=/tmp/x",
        "logger=none",
        "logger.project=x",
        "data.num_workers=3",
        "trainer.progress=none",
        "trainer.pictures=3",
    ],
)
def test_what_cannot_change_a_result_is_left_out(override: str) -> None:
    assert config_hash(compose([override])) == config_hash(compose([]))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.split_seed=1",
        "optimizer.lr=0.1",
        "strategy=linear_probe",
        "trainer.threads=7",
        "data.batch_size=7",
        "head=mlp",
        "backbone=resnet18",
        "loss.label_smoothing=0.1",
        "weights=scratch",
    ],
)
def test_what_changes_a_result_changes_the_hash(override: str) -> None:
    assert config_hash(compose([override])) != config_hash(compose([]))


def test_paths_are_no_part_of_it() -> None:
    one, other = (compose(["data=image_folder", f"data.path={path}"]) for path in ("a", "b"))
    assert config_hash(one) == config_hash(other)


def test_an_arm_is_what_repeats_share() -> None:
    assert arm("seed=1", "data.split_seed=2") == arm()
    assert len({arm(), arm("optimizer.lr=0.1"), arm(data="e"), arm(weights="x")}) == 4


def test_a_job_is_also_its_data_and_weights() -> None:
    config = compose([])
    keys = {job_key(config, data_fingerprint=d, weights_sha256=w) for d in "ab" for w in "ab"}
    assert len(keys) == 4
