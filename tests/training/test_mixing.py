"""Mixup and CutMix: what is in an image is what its targets say."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_config

from headstart.assembly import module_of
from headstart.errors import ConfigError
from headstart.preparation import prepare
from headstart.training.mixup import Mixing


def test_cutmix_covers_the_share_that_it_says() -> None:
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 30).contiguous()
    before = images.clone()
    shares = []
    for seed in range(60):
        torch.manual_seed(seed)
        made = Mixing(cutmix_alpha=1.0)(images)
        for place in range(6):
            own, partner = float(place), float(made.partners[place])
            picture = made.images[place, 0]
            assert bool(((picture == own) | (picture == partner)).all())
            if own != partner:
                kept = float((picture == own).float().mean())
                assert kept == pytest.approx(made.share, abs=1e-6)
                rows, columns = torch.nonzero(picture == partner, as_tuple=True)
                if len(rows):  # a rectangle
                    area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
                    assert len(rows) == int(area)
        shares.append(made.share)
    assert torch.equal(images, before)
    assert min(shares) < 0.3
    assert max(shares) > 0.9


def test_cutmix_is_the_mixed_loss() -> None:
    prepared = prepare(tiny_config("data.cutmix_alpha=0.7"))
    module = module_of(prepared)
    module.eval()
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 5])
    torch.manual_seed(5)
    made = Mixing(cutmix_alpha=0.7)(images)
    logp = module.model(made.images).double().log_softmax(1).detach()
    picked = torch.arange(6)
    own, partner = logp[picked, targets], logp[picked, targets[made.partners]]
    torch.manual_seed(5)
    loss = module.training_step({"image": images, "target": targets, "index": targets}, 0)
    assert float(loss.detach()) == pytest.approx(-float((made.share * own + (1 - made.share) * partner).mean()))


def test_with_both_each_step_takes_one() -> None:
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 20).contiguous()
    cut = 0
    for seed in range(200):
        torch.manual_seed(seed)
        made = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0)(images)
        cut += bool(torch.equal(made.images, made.images.round()))
    assert 70 < cut < 130


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("weights=pretrained", "regularizer=co_tuning", "data.cutmix_alpha=1"),
            r"co_tuning: .* set data\.cutmix_alpha=0",
        ),
        (("data.augment_magnitude=4",), r"data\.augment_magnitude: is for data\.augment=randaugment and augmix"),
        (("data.augment=augmix", "data.augment_magnitude=20"), "augmix takes 1 to 10"),
        (("data.keep_side=40",), r"data\.keep_side: is for random resized crops, which data\.augment=none has not"),
        (("data.augment=trivial", "data.channels=4"), r"data\.augment=trivial: is for 1 or 3 channels, not 4"),
        (("data.cutmix_alpha=-1",), r"data\.cutmix_alpha=-1\.0: must be at least 0"),
    ],
)
def test_what_does_not_go_together_is_said(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(*overrides)
