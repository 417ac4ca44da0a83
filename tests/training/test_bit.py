"""BiT-HyperRule and mixup, against the published rule and a direct computation."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import RunTiny, tiny_config

from headstart.data.transforms import bit_precrop, bit_size
from headstart.preparation import prepare
from headstart.training.mixup import draw_mixup
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
    factor = bit_hyperrule(steps[-1])
    for step in range(0, steps[-1], 50):
        assert factor(step) == pytest.approx(published(step, images)), step
    for drop in steps[1:-1]:
        assert factor(drop) == pytest.approx(10 * factor(drop + 1))


def test_a_budget_of_ones_own_stretches_it() -> None:
    factor = bit_hyperrule(1000)
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
    from headstart.experiment import _module

    prepared = prepare(tiny_config("data.mixup_alpha=0.7"))
    module = _module(prepared)
    module.eval()
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 5])
    torch.manual_seed(11)
    share, order = draw_mixup(6, 0.7)
    mixed = share * images + (1 - share) * images[order]
    logp = module.model(mixed).double().log_softmax(1).detach()
    picked = torch.arange(6)
    expected = -(share * logp[picked, targets] + (1 - share) * logp[picked, targets[order]]).mean()
    torch.manual_seed(11)
    loss = module.training_step({"image": images, "target": targets, "index": targets}, 0)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_shares_are_drawn_from_beta() -> None:
    torch.manual_seed(0)
    drawn = torch.tensor([draw_mixup(4, 0.1)[0] for _ in range(2000)])
    assert abs(float(drawn.mean()) - 0.5) < 0.04
    assert float(drawn.var()) == pytest.approx(1 / (4 * 1.2), abs=0.02)  # ab / ((a+b)^2 (a+b+1))
