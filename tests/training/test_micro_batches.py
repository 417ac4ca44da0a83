"""A batch in pieces: gradients of the whole batch, with the memory of a piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import RunTiny, tiny_config
from tests.training.test_resume import COMMON, assert_same, interrupted

from headstart.assembly import module_of
from headstart.errors import ConfigError
from headstart.experiment import resume
from headstart.preparation import prepare
from headstart.records.tables import read_rows
from headstart.training.micro_batches import pieces, sizes_of
from headstart.training.module import TransferModule

VIT = ("backbone.name=test_vit", "data.train_size=45", "data.test_size=20", "data.val_size=20")


@pytest.mark.parametrize("most", [None, 1, 3, 8, 64])
def test_pieces_cover_a_batch_in_equal_parts(most: int | None) -> None:
    for count in range(1, 40):
        found = pieces(count, most=most)
        assert [i for rows in found for i in range(count)[rows]] == list(range(count))
        sizes = [rows.stop - rows.start for rows in found]
        assert max(sizes) - min(sizes) <= 1
        assert len(found) == (1 if most is None else -(-count // most))
        assert sizes_of(count, most=most) == set(sizes)


def module_with(*words: str) -> TransferModule:
    module = module_of(prepare(tiny_config(*words))).double()
    module.enter(module.plan.at(0))
    return module.train()


def batch_of(count: int, *, channels: int = 3) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    images = torch.randn(count, channels, 32, 32, generator=draw, dtype=torch.float64)
    return {"image": images, "target": torch.arange(count) ** 2 % 10, "index": torch.arange(count)}


def gradients(module: TransferModule, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    module.zero_grad()
    module.backward(module.training_step(batch, 0))  # type: ignore[arg-type]
    return {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [16, 13, 3, 1])
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("loss.class_weights=[1,2,3,4,5,6,7,8,9,10]",),
        ("loss.name=focal", "loss.class_weights=balanced"),
        ("regularizer=l2_sp", "strategy=last_k", "strategy.k=2", "weights=file", "weights.path=start.safetensors"),
    ],
    ids=["plain", "class weights", "focal", "a penalty"],
)
def test_gradients_are_those_of_the_whole_batch(count: int, more: tuple[str, ...]) -> None:
    batch = batch_of(count)
    if "weights=file" in more:
        save_file(timm.create_model("test_vit", num_classes=3).state_dict(), "start.safetensors")
    whole, parts = module_with(*VIT, *more), module_with(*VIT, *more, "trainer.micro_batch_size=4")
    expected, found = gradients(whole, batch), gradients(parts, batch)
    assert set(found) == set(expected)
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-7), name
    assert float(parts.step_loss) == pytest.approx(float(whole.step_loss), rel=1e-6)
    assert parts.mean_losses == pytest.approx(whole.mean_losses, rel=1e-6)


def test_float16s_scale_reaches_every_piece() -> None:
    """With the scaler that 16-mixed has, every gradient is the scaled one of the whole batch."""
    batch = batch_of(13)
    expected = gradients(module_with(*VIT), batch)
    module = module_with(*VIT, "trainer.micro_batch_size=4")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    class Trainer:
        class precision_plugin:  # noqa: N801
            pass

        global_step, global_rank, optimizers = 0, 0, ()

    Trainer.precision_plugin.scaler = scaler  # type: ignore[attr-defined]
    module._trainer = Trainer()  # type: ignore[assignment]
    module.zero_grad()
    module.backward(scaler.scale(module.training_step(batch, 0)))  # type: ignore[arg-type]
    for name, p in module.model.named_parameters():
        assert p.grad is not None
        assert torch.allclose(p.grad / 1024, expected[name], rtol=1e-5, atol=1e-7), name


def test_no_more_images_go_through_the_model_at_once(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, validation and test; steps, epochs and rates stay those of the batch."""
    seen: list[int] = []
    plain = TransferModule.features

    def features(self: TransferModule, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(TransferModule, "features", features)
    words = (*VIT, "trainer.max_epochs=2", "optimizer=sgd", "trainer.gradient_clip_val=0.5")
    whole, _ = run_tiny(*words)
    assert max(seen) == 32
    seen.clear()
    parts, record = run_tiny(*words, "trainer.micro_batch_size=5")
    assert max(seen) == 5
    assert record.steps == 4
    for one, other in zip(read_rows(whole / "metrics.csv"), read_rows(parts / "metrics.csv"), strict=True):
        assert one["step"] == other["step"]
        assert one["lr/head"] == other["lr/head"]
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-4)
    kept = [load_file(folder / "checkpoints" / "last.safetensors") for folder in (whole, parts)]
    for name in kept[0]:
        assert torch.allclose(kept[0][name], kept[1][name], atol=2e-5), name


@pytest.mark.parametrize("draws", ["head.dropout=0.5", "data.mixup_alpha=1.0"])
def test_each_piece_draws_anew_and_from_the_step_alone(draws: str) -> None:
    """Equal images in two pieces meet other draws; a step has the same whatever was drawn before it."""
    words = (*VIT, draws, "trainer.micro_batch_size=4")
    half = batch_of(4)
    doubled: Any = {key: torch.cat([value, value]) for key, value in half.items()}
    module = module_with(*words)
    kept: list[torch.Tensor] = []
    module.model.head.register_forward_hook(lambda m, inputs, output: kept.append(output.detach()))
    for before in (1, 2):
        torch.manual_seed(before)
        module.begin_step()
        module.training_step(doubled, 0)
    first, second, again, once_more = kept
    assert torch.equal(first, again)
    assert torch.equal(second, once_more)
    assert not torch.allclose(first, second)


def test_under_bfloat16_a_batch_in_pieces_is_within_its_tolerance(run_tiny: RunTiny) -> None:
    words = (*VIT, "trainer.precision=bf16-mixed", "optimizer=sgd")
    kept = [
        load_file(run_tiny(*words, *more)[0] / "checkpoints" / "last.safetensors")
        for more in ((), ("trainer.micro_batch_size=8",))
    ]
    for name in kept[0]:
        assert torch.allclose(kept[0][name], kept[1][name], atol=2e-3), name


def test_resumed_in_pieces(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*COMMON, "trainer.micro_batch_size=7", "data.mixup_alpha=0.4", "strategy=auto_rgn")
    unbroken = run_tiny(*words)
    folder = interrupted(7, monkeypatch, *words)
    assert_same(folder, resume(folder), unbroken)


def test_single_images_are_refused_where_batches_are_normalised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.micro_batch_size=2: .* raise it to 3"):
        prepare(tiny_config("trainer.micro_batch_size=2"))
    prepare(tiny_config("trainer.micro_batch_size=2", "strategy.normalization=eval"))
    prepare(tiny_config("trainer.micro_batch_size=1", *VIT))
