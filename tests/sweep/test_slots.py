"""How many jobs at a time, and which GPU each sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.conftest import tiny_config

from headstart.config.schema.launcher import LocalConfig, RayConfig
from headstart.config.schema.root import Config
from headstart.errors import ConfigError
from headstart.machine import usable_cores
from headstart.sweep.launch import slots_for


def config(accelerator: str = "cpu", *, threads: int | None = 1, devices: int = 1) -> Config:
    made = tiny_config()
    return replace(made, trainer=replace(made.trainer, accelerator=accelerator, threads=threads, devices=devices))


def test_cores_are_divided_among_jobs() -> None:
    assert slots_for(LocalConfig(), [config(threads=1)], gpus=0) == [None] * usable_cores()
    assert slots_for(LocalConfig(), [config(threads=None)], gpus=0) == [None]
    assert slots_for(LocalConfig(), [config(threads=1), config(threads=10_000)], gpus=0) == [None]
    assert slots_for(LocalConfig(workers=5), [config(threads=None)], gpus=0) == [None] * 5


def test_a_job_has_a_gpu_of_its_own_or_shares_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots_for(LocalConfig(), [config("gpu")], gpus=3) == ["0", "1", "2"]
    assert slots_for(LocalConfig(gpus=[2, 0]), [config("auto")], gpus=3) == ["2", "0"]
    assert slots_for(LocalConfig(jobs_per_gpu=2), [config("gpu")], gpus=2) == ["0", "1", "0", "1"]
    assert slots_for(LocalConfig(workers=1), [config("gpu")], gpus=2) == ["0"]
    assert slots_for(LocalConfig(), [config("cpu")], gpus=2) == [None] * usable_cores()


def test_processes_that_train_together_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots_for(LocalConfig(), [config("gpu", devices=2)], gpus=5) == ["0,1", "2,3"]
    with pytest.raises(ConfigError, match=r"trainer\.devices=4: the sweep may use 2 GPUs"):
        slots_for(LocalConfig(), [config("gpu", devices=4)], gpus=2)


def test_numbers_count_what_this_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert slots_for(LocalConfig(gpus=[1]), [config("gpu")], gpus=2) == ["7"]


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"launcher\.gpus=\[0, 4\]: there are 2 GPUs here, numbered from 0"):
        slots_for(LocalConfig(gpus=[0, 4]), [config("gpu")], gpus=2)
    with pytest.raises(ConfigError, match=r"there are 0 GPUs here"):
        slots_for(LocalConfig(gpus=[0]), [config()], gpus=0)


def test_a_cluster_has_its_own() -> None:
    assert slots_for(RayConfig(), [config()], gpus=0) == [None]
