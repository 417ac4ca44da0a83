"""BiT-HyperRule and mixup, against the published rule and a direct computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import RunTiny, tiny_config

from headstart.data.load import bit_image_size
from headstart.data.pictures import as_channels
from headstart.data.transforms import bit_precrop, bit_size
from headstart.errors import DataError
from headstart.preparation import prepare
from headstart.trained import load_run
from headstart.training.mixup import Mixing
from headstart.training.schedules import bit_hyperrule, bit_rule


def published(step: int, images: int) -> float:
    """The published rule, written out: linear warm-up, then a tenth for each support that lies before the step."""
    if images < 20_000:
        supports = [100, 200, 300, 400, 500]
    elif images < 500_000:
        supports = [500, 3000, 6000, 9000, 10_000]
    else:
        supports = [500, 6000, 12_000, 18_000, 20_000]
    if step < supports[0]:
        return step / supports[0]
    rate = 1.0
    for support in supports[1:]:
        if support < step:
            rate /= 10
    return rate


@pytest.mark.parametrize("images", [100, 19_999, 20_000, 499_999, 500_000])
def test_the_published_rule(images: int) -> None:
    steps, alpha = bit_rule(images)
    assert alpha == (0.0 if images < 20_000 else 0.1)
    factor = bit_hyperrule(steps[-1], images=images)
    for step in range(0, steps[-1], 50):
        assert factor(step) == pytest.approx(published(step, images)), step
    for drop in steps[1:-1]:
        assert factor(drop) == pytest.approx(10 * factor(drop + 1))


def test_a_budget_of_ones_own_stretches_it() -> None:
    factor = bit_hyperrule(1000, images=100)
    assert [factor(step) for step in (0, 100, 200, 401, 601)] == pytest.approx([0, 0.5, 1, 0.1, 0.01])


def test_resolution() -> None:
    assert [bit_size(*size) for size in ((8, 8), (95, 96), (96, 96), (300, 200))] == [128, 128, 480, 480]
    assert (bit_precrop((128, 128)), bit_precrop((480, 480))) == ([160, 160], [512, 512])


def test_what_the_rule_decides_is_resolved(run_tiny: RunTiny) -> None:
    config = tiny_config(
        "schedule=bit_hyperrule", "trainer.max_epochs=null", "data.augment=bit", "data.image_size=null"
    )
    prepared = prepare(config)
    assert prepared.config.trainer.max_steps == prepared.budget.total_steps == 500
    assert prepared.config.data.image_size == [128, 128]  # the digits have 8 x 8 pixels
    assert prepared.config.data.mixup_alpha == 0.0


def test_mixup_is_the_mixed_loss_of_mixed_images() -> None:
    from headstart.assembly import module_of

    prepared = prepare(tiny_config("data.mixup_alpha=0.7"))
    module = module_of(prepared)
    module.eval()
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 5])
    torch.manual_seed(11)
    made = Mixing(mixup_alpha=0.7)(images)
    share, order = made.share, made.partners
    mixed = share * images + (1 - share) * images[order]
    logp = module.model(mixed).double().log_softmax(1).detach()
    picked = torch.arange(6)
    expected = -(share * logp[picked, targets] + (1 - share) * logp[picked, targets[order]]).mean()
    torch.manual_seed(11)
    loss = module.training_step({"image": images, "target": targets, "index": targets}, 0)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_shares_are_drawn_from_beta() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 3, 2, 2)
    drawn = torch.tensor([Mixing(mixup_alpha=0.1)(images).share for _ in range(2000)])
    assert abs(float(drawn.mean()) - 0.5) < 0.04
    assert float(drawn.var()) == pytest.approx(1 / (4 * 1.2), abs=0.02)  # ab / ((a+b)^2 (a+b+1))


def test_a_larger_set_has_its_own_rule_stretched() -> None:
    factor = bit_hyperrule(1000, images=50_000)  # its drops lie at 30, 60 and 90 % of the budget
    assert [factor(step) for step in (25, 50, 301, 601, 901)] == pytest.approx([0.5, 1, 0.1, 0.01, 0.001])


def test_the_first_image_that_can_be_read_gives_the_size(photos: Path) -> None:
    first = min(path for path in photos.rglob("*") if path.is_file())
    first.write_bytes(b"not a picture")
    config = tiny_config("data=image_folder", f"data.path={photos}", "data.augment=bit", "data.image_size=null")
    assert bit_image_size(config.data) == 128
    for path in photos.rglob("*.*"):
        path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="none of the training images can be read"):
        bit_image_size(config.data)


def test_a_loaded_run_sees_images_as_the_run_did(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny("data.augment=bit", "data.image_size=32")
    _, transform = load_run(folder)
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    data = prepare(tiny_config("data.augment=bit", "data.image_size=32")).data
    expected = data.normalize(data.evaluation.geometry(as_channels(Image.fromarray(image), 3)))
    assert torch.equal(transform(Image.fromarray(image)), expected)
