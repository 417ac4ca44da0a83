"""Sweeps on a Ray cluster: a real one, of two nodes on this machine, one of which goes away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import TINY

from headstart.config.schema.launcher import RayConfig
from headstart.errors import ConfigError
from headstart.records.store import find_runs
from headstart.records.sweeps import read_sweep, states_of
from headstart.sweep.ray_cluster import check

ray = pytest.importorskip("ray")
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def test_a_cluster_that_does_not_answer_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ConfigError, match=rf"launcher\.address=127\.0\.0\.1:{port}: no Ray cluster answers there"):
        check(RayConfig(address=f"127.0.0.1:{port}"))
    assert time.monotonic() - began < 15
    with pytest.raises(ConfigError, match="must be host:port"):
        check(RayConfig(address="somewhere"))


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(ConfigError, match=r'pip install "headstart\[ray\]"'):
        check(RayConfig())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, object]]:
    """Two nodes of one core each on 127.0.0.1; yields the head's address, and the node that can be removed."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False},
    )
    node = made.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    made.wait_for_nodes()
    yield made.address, lambda: made.remove_node(node, allow_graceful=False)
    made.shutdown()


@pytest.mark.slow
def test_the_jobs_of_a_lost_node_run_again_elsewhere(cluster: tuple[str, object]) -> None:
    address, lose = cluster
    words = [*(text for text in TINY if "max_epochs" not in text), "trainer.max_epochs=8", "seed=range(6)"]
    launched = subprocess.Popen(
        [sys.executable, "-m", "headstart", "train", "-m", *words, "launcher=ray", f"launcher.address={address}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def later() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and len(list(Path("outputs").glob("runs/*/checkpoints/last.ckpt"))) < 2:
            time.sleep(0.1)
        lose()  # type: ignore[operator]

    thread = threading.Thread(target=later)
    thread.start()
    said, _ = launched.communicate(timeout=400)
    thread.join()
    assert launched.returncode == 0, said
    (folder,) = Path("outputs/sweeps").iterdir()
    states = states_of(folder, read_sweep(folder).jobs)
    assert {state.status for state in states.values()} == {"completed"}
    assert max(state.attempts for state in states.values()) >= 2, "the lost node had a job"
    records = [record for _, record in find_runs([folder])[0]]
    assert len({record.job_key for record in records}) == 6
    assert len({record.environment["pid"] for record in records}) == 6, "each in a process of its own"


@pytest.mark.slow
def test_a_sweep_on_a_cluster_of_its_own() -> None:
    words = [*TINY, "seed=0,1", "launcher=ray", "launcher.cpus_per_job=1"]
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "train", "-m", *words],
        capture_output=True, text=True, check=False, env={**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[2/2] seed=" in done.stderr
    records = [record for _, record in find_runs([Path("outputs")])[0]]
    assert [record.status for record in records] == ["completed"] * 2
