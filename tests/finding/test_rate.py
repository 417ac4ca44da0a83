"""The range test: its rule on curves made by hand, that it trains as the run does, and that its answer trains well."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.conftest import RunTiny, tiny_config

from headstart.cli import main
from headstart.config.compose import compose
from headstart.finding.rate import HIGHEST, LOWEST, RangeTest, find_rate, rate_at
from headstart.preparation import prepare
from headstart.seeds import derive

WORDS = ("backbone.name=test_resnet", "weights=scratch", "data.image_size=32", "data.train_size=100", "data.test_size=100", "trainer.threads=1")  # fmt: skip


def seen(losses: list[float]) -> RangeTest:
    rates = tuple(rate_at(step, steps=len(losses)) for step in range(len(losses)))
    return RangeTest(rates, tuple(losses), tuple(losses), diverged=False, phase=1, phases=1)


def test_the_rates_rise_in_equal_factors() -> None:
    rates = [rate_at(step, steps=8) for step in range(8)]
    assert rates[0] == LOWEST
    assert rates[-1] == pytest.approx(HIGHEST)
    assert {round(b / a, 9) for a, b in pairwise(rates)} == {round((HIGHEST / LOWEST) ** (1 / 7), 9)}


def test_the_rule_on_a_curve_with_known_places() -> None:
    """Flat to step 40, falling to step 80 and fastest around step 60, then rising."""
    losses = [2.0] * 40 + [2 - (1 - torch.cos(torch.tensor(torch.pi * i / 40)).item()) / 2 for i in range(41)] + [3.0] * 20  # fmt: skip
    found = seen(losses)
    assert found.lowest == found.rates[80]
    assert found.steepest == pytest.approx(found.rates[60], rel=0.2)
    assert found.suggestion == pytest.approx(found.rates[80] / 10, rel=0.05)


@pytest.mark.parametrize("losses", [[2.0] * 100, [2.0 + 0.1 * i for i in range(100)], [2.0] * 5])
def test_where_no_rate_helps_nothing_is_suggested(losses: list[float]) -> None:
    assert seen(losses).suggestion is None


def test_the_suggestion_trains_better_than_rates_far_below_and_above(run_tiny: RunTiny) -> None:
    words = ("strategy=full", "trainer.max_epochs=2")
    found = find_rate(prepare(tiny_config(*words)))
    assert found.diverged
    assert len(found.losses) < 100  # it stops there
    rate = found.suggestion
    assert rate is not None
    good, slow, wild = (run_tiny(*words, f"optimizer.lr={r}")[1].metrics["val/log_loss"] for r in (rate, rate / 100, rate * 100))  # fmt: skip
    assert good < slow
    assert good < wild


def test_the_first_steps_are_those_of_the_run() -> None:
    """Its images, order, augmentation, draws and loss; the rates of the first steps move next to nothing."""
    words = ("strategy=full", "data.augment=light", "loss.label_smoothing=0.1")
    found = find_rate(prepare(tiny_config(*words)), steps=3)
    prepared = prepare(tiny_config(*words))
    batch = next(iter(prepared.data.train_dataloader()))
    batch = prepared.data.on_after_batch_transfer(batch, 0)
    torch.manual_seed(derive(prepared.config.seed, "step", 0))
    scores = prepared.built.model.train()(batch["image"])
    expected = torch.nn.functional.cross_entropy(scores, batch["target"], label_smoothing=0.1)
    assert found.losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found.smoothed[0] == pytest.approx(found.losses[0])
    a, b = found.losses[:2]
    assert found.smoothed[1] == pytest.approx((0.9 * 0.1 * a + 0.1 * b) / (1 - 0.81))


def test_of_several_phases_the_one_with_most_to_train() -> None:
    prepared = prepare(tiny_config("strategy=lp_ft", "trainer.max_epochs=2"))
    weight = next(prepared.built.model.backbone.parameters())
    before = weight.detach().clone()
    found = find_rate(prepared, steps=12)
    assert (found.phase, found.phases) == (2, 2)
    assert not torch.equal(before, weight)


def test_pieces_make_the_loss_of_the_batch() -> None:
    """The last piece's loss is not the step's."""
    words = ("strategy=full", "strategy.normalization=eval")
    whole, pieces = (find_rate(prepare(tiny_config(*words, *more)), steps=4) for more in ((), ("trainer.micro_batch_size=8",)))  # fmt: skip
    assert pieces.losses[0] == pytest.approx(whole.losses[0], rel=1e-5)


def test_the_command_prints_a_line_to_paste_and_leaves_a_picture_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["plan", *WORDS, "strategy=full", "data.batch_size=8", "--find", "lr", "--plot", "rate.svg"]) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("Suggested"))
    assert compose([line.split()[-1]]).optimizer.lr == pytest.approx(float(re.findall(r"[\d.e-]+$", line)[0]))
    assert Path("rate.svg").read_bytes()[:5] == b"<?xml"
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts}
    assert left == {"rate.svg"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--find", "speed"), "argument --find: invalid choice: 'speed'"),
        (("strategy=linear_probe", "head.solver=ridge", "--find", "lr"), "head.solver=ridge has no learning rate"),
        (("--find", "lr", "-m"), "--find: tries one run; name one without -m."),
        (("--find", "lr", "--plot", "x.gif"), "x.gif: a picture must end in"),
        (("--find", "batch", "--plot", "nowhere/x.png"), "there is no folder nowhere."),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    assert main(["plan", *WORDS, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
