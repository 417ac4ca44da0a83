"""Two processes train one run: the ranks hold equal weights after an unfreezing, and gradients are those of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config
from tests.training.test_resume import assert_same, interrupted
from torch.nn.parallel import DistributedDataParallel

from headstart.assembly import module_of
from headstart.data.sampler import EpochSampler
from headstart.errors import ConfigError, RunFailed
from headstart.experiment import resume
from headstart.preparation import prepare
from headstart.records.schema import RunRecord
from headstart.records.store import find_runs
from headstart.records.tables import read_rows
from headstart.training import distributed
from headstart.training.module import TransferModule

TWO = ("trainer.devices=2", "trainer.threads=2", "data.train_size=66", "trainer.max_epochs=3")

KEEPING = """
import sys
import torch
from headstart.training.module import TransferModule

def keep(self):
    torch.save(self.model.state_dict(), sys.argv[1] + "/rank1.pt")

TransferModule.on_fit_end = keep
from headstart.experiment import train_rank
train_rank(sys.argv[1], resume=sys.argv[2] == "1")
"""


def test_shares_of_a_batch() -> None:
    def order(rank: int, world: int) -> list[int]:
        sampler = EpochSampler(71, seed=3, epoch=lambda: 2, batch_size=16, rank=rank, world=world)
        found = [position for _, position in sampler]
        assert len(found) == len(sampler)
        return found

    alone, first, second = order(0, 1), order(0, 2), order(1, 2)
    assert len(first) == len(second) == 35  # the last of 71 cannot be divided
    for i in range(5):
        batch = alone[16 * i : 16 * i + 16]
        assert first[8 * i : 8 * i + 8] + second[8 * i : 8 * i + 8] == batch[: len(batch) // 2 * 2]


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(("strategy=gradual", "strategy.milestones=[1,2]"), id="gradual", marks=pytest.mark.slow),
        pytest.param(
            (
                "strategy=phases",
                "strategy.phases=[{start:0,groups:[head]},{start:1,groups:['*']},{start:2,groups:[block.3]}]",
            ),
            id="phases",
            marks=pytest.mark.slow,
        ),
        pytest.param(("strategy=auto_rgn",), id="auto_rgn", marks=pytest.mark.slow),
        pytest.param(
            ("strategy=lp_ft", "regularizer=bss", "data.mixup_alpha=0.3"), id="lp_ft", marks=pytest.mark.slow
        ),
    ],
)
def test_ranks_hold_equal_weights(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, strategy: tuple[str, ...]
) -> None:
    monkeypatch.setattr(distributed, "_PROGRAM", KEEPING)
    folder, record = run_tiny(*TWO, *strategy)
    assert record.status == "completed"
    first = load_file(folder / "checkpoints" / "last.safetensors")
    second = torch.load(folder / "rank1.pt", weights_only=True)
    assert set(first) == set(second)
    model = prepare(tiny_config(*TWO, *strategy)).built.model
    parameters = {name for name, _ in model.named_parameters()}
    start = model.state_dict()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    moved = {name for name in parameters if not torch.equal(first[name], start[name])}
    assert {"backbone.layer1.0.conv1.weight", "head.0.weight"} <= moved


VIT = (
    "backbone.name=test_vit", "data.train_size=64", "data.test_size=30", "data.val_size=30", "data.batch_size=16",
    "trainer.max_epochs=3", "trainer.threads=2", "optimizer.weight_decay=0.1",
)  # fmt: skip
GRADUAL = ("strategy=gradual", "strategy.milestones=[1,2]", "strategy.groups_per_step=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        *(
            pytest.param(words, id=name)
            for name, words in {
                "full sgd": ("optimizer=sgd", "optimizer.lr=0.05"),
                "full adamw": ("optimizer=adamw", "optimizer.eps=1e-4"),
                "gradual adamw": (*GRADUAL, "optimizer=adamw", "optimizer.eps=1e-4"),
                "lp_ft sgd": ("strategy=lp_ft", "optimizer=sgd", "optimizer.lr=0.05"),
                "lp_ft adamw": ("strategy=lp_ft", "optimizer=adamw", "optimizer.eps=1e-4"),
                "linear_probe sgd": ("strategy=linear_probe", "features.use=false", "optimizer=sgd"),
                "linear_probe adamw": ("strategy=linear_probe", "features.use=false", "optimizer=adamw"),
                "statistics at rest": ("backbone.name=test_resnet", "strategy.normalization=eval", "optimizer=sgd"),
                "weighted classes": ("loss.class_weights=[1,2,3,4,5,6,7,8,9,10]", "optimizer=sgd"),
                "in pieces, clipped": (
                    "trainer.micro_batch_size=3", "trainer.gradient_clip_val=0.5", "optimizer=sgd", "optimizer.lr=0.05",
                ),
                "averaged": (*GRADUAL, "optimizer=sgd", "trainer.ema_decay=0.9"),
                "auto_rgn": ("strategy=auto_rgn", "optimizer=sgd"),
            }.items()
        ),
    ],
)  # fmt: skip
def test_two_processes_take_the_steps_of_one(run_tiny: RunTiny, more: tuple[str, ...]) -> None:
    """Without statistics of batches the gradient of a batch is the mean of its shares'."""
    keys = {word.partition("=")[0] for word in more}
    words = (*(word for word in VIT if word.partition("=")[0] not in keys), *more)
    assert_equal(run_tiny(*words), run_tiny(*words, "trainer.devices=2"))


def assert_equal(first: tuple[Path, RunRecord], second: tuple[Path, RunRecord]) -> None:
    (one, alone), (two, together) = first, second
    kept = [load_file(folder / "checkpoints" / "last.safetensors") for folder in (one, two)]
    for name in kept[0]:
        assert torch.allclose(kept[0][name], kept[1][name], rtol=1e-3, atol=1e-4), name
    for row, other in zip(read_rows(one / "metrics.csv"), read_rows(two / "metrics.csv"), strict=True):
        assert row["val/log_loss"] == pytest.approx(other["val/log_loss"], rel=1e-3)
    assert together.metrics["test/log_loss"] == pytest.approx(alone.metrics["test/log_loss"], rel=1e-3)


COUNTING = """
import json, sys
import torch
from torch.nn.parallel import DistributedDataParallel
from headstart.training.module import TransferModule

folder, resume = sys.argv[1], sys.argv[2] == "1"
wrapped, broadcast, state = [], [], []
before = DistributedDataParallel.__init__

def init(self, *rest, **more):
    before(self, *rest, **more)
    sent = []
    wrapped.append(sent)
    def hook(state, bucket):
        sent.append(bucket.buffer().numel())
        return torch.distributed.algorithms.ddp_comm_hooks.default_hooks.allreduce_hook(None, bucket)
    self.register_comm_hook(None, hook)

DistributedDataParallel.__init__ = init
one = torch.distributed.broadcast
torch.distributed.broadcast = lambda tensor, *rest, **more: (broadcast.append(tensor.numel()), one(tensor, *rest, **more))
coalesced = torch.distributed._broadcast_coalesced
torch.distributed._broadcast_coalesced = lambda g, tensors, *r: (broadcast.extend(t.numel() for t in tensors), coalesced(g, tensors, *r))
ended = TransferModule.on_train_batch_end

def end(self, *rest):
    names = {p: name for name, p in self.named_parameters()}
    state.append(sorted(names[p] for p in self.optimizer.state))
    ended(self, *rest)

TransferModule.on_train_batch_end = end

def write():
    with open(folder + f"/{RANK}.json", "w") as file:
        json.dump({"sent": wrapped, "broadcast": broadcast, "state": state}, file)
"""


def test_two_processes_send_what_trains_and_take_the_steps_of_one(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bytes of gradients counted in the second process by a hook of DDP's own: those of what trains, in each step."""
    program = COUNTING + (
        "RANK = 1\nfrom headstart.experiment import train_rank\ntrain_rank(folder, resume=resume)\nwrite()\n"
    )
    monkeypatch.setattr(distributed, "_PROGRAM", program)
    counting = dict[str, Any]()
    monkeypatch.setattr("sys.argv", ["", str(tmp_path), "0"])
    kept = DistributedDataParallel.__init__, torch.distributed.broadcast, torch.distributed._broadcast_coalesced
    monkeypatch.setattr(TransferModule, "on_train_batch_end", TransferModule.on_train_batch_end)
    try:
        exec(COUNTING, counting)  # both processes have the hook, or they would not send alike
        words = (*VIT, *GRADUAL, "optimizer=sgd", "optimizer.lr=0.05")
        folder, record = run_tiny(*words, "trainer.devices=2")
    finally:
        DistributedDataParallel.__init__, torch.distributed.broadcast, torch.distributed._broadcast_coalesced = kept  # type: ignore[method-assign]
    assert_equal(run_tiny(*words), (folder, record))
    found = json.loads((folder / "1.json").read_text())
    sizes = {name: p.numel() for name, p in prepare(tiny_config(*words)).built.model.named_parameters()}
    module = module_of(prepare(tiny_config(*words)))
    assert record.steps == 12
    assert len(found["sent"]) == 3  # one wrapping for each phase
    for phase, sent in enumerate(found["sent"]):
        module.enter(module.plan.phases[phase])
        trains = {name for name, p in module.model.named_parameters() if p.requires_grad}
        assert sum(sent) == 4 * sum(sizes[name] for name in trains)  # four steps
        for state in found["state"][4 * phase : 4 * phase + 4]:
            assert set(state) == {f"model.{name}" for name in trains}
    # nothing else goes from process to process in a step, no running statistic of what is frozen either
    assert sum(found["broadcast"]) < 200


DRIFTING = """
import sys
import torch
from headstart.training.module import TransferModule

ended = TransferModule.on_train_batch_end

def end(self, *rest):
    ended(self, *rest)
    if self.global_step == 3:
        with torch.no_grad():
            self.model.head[0].bias[1] += 1e-6

TransferModule.on_train_batch_end = end
from headstart.experiment import train_rank
train_rank(sys.argv[1], resume=sys.argv[2] == "1")
"""


@pytest.mark.slow
def test_processes_that_drift_apart_end_the_run(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_PROGRAM", DRIFTING)
    with pytest.raises(
        RunFailed, match=r"drifted apart: at step 4, process 1 of 2 holds other values of head.0.bias"
    ):
        run_tiny(*TWO)
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.status == "failed"


@pytest.mark.slow
def test_running_statistics_are_the_means_of_the_shares(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first normalisation sees the images themselves: its mean over two shares is that of the batch."""
    means = [
        load_file(run_tiny(*TWO, *more, "trainer.max_epochs=1", "data.train_size=64", "optimizer.lr=1e-9")[0]
                  / "checkpoints" / "last.safetensors")["backbone.conv1.1.running_mean"]
        for more in ((), ("trainer.devices=1",))
    ]  # fmt: skip
    assert torch.allclose(*means, rtol=1e-4, atol=1e-6)
    assert bool(means[0].any())


@pytest.mark.slow
def test_resumed_by_two(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*TWO, "data.train_size=96", "strategy=gradual", "strategy.milestones=[1,2]", "trainer.ema_decay=0.9")
    unbroken = run_tiny(*words)
    folder = interrupted(4, monkeypatch, *words)
    assert_same(folder, resume(folder), unbroken)


def test_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=2: cannot divide data\.batch_size=31"):
        tiny_config("trainer.devices=2", "data.batch_size=31")


def test_a_process_that_does_not_start_ends_the_run(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(RunFailed, match=r"process 1 of 2 did not get ready .exit status 3."):
        run_tiny(*TWO)
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.status == "failed"
