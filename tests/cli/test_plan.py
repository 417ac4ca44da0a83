"""`headstart plan`: the compiled plan as a person sees it, and as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import TINY, tiny_config

from headstart.cli import main
from headstart.planning import describe, span
from headstart.preparation import prepare
from headstart.recording import describe_run

Captured = pytest.CaptureFixture[str]


def plan(*words: str) -> int:
    keys = {text.partition("=")[0] for text in words}
    return main(["plan", *(text for text in TINY if text.partition("=")[0] not in keys), *words])


def test_phases_rates_and_counts(capsys: Captured) -> None:
    assert plan("strategy=gradual", "trainer.max_epochs=4", "strategy.layer_decay=0.5", "optimizer.lr=0.01") == 0
    shown = capsys.readouterr().out
    assert "strategy   gradual: 373,658 parameters train, 0 are frozen" in shown
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert lines["head"][-3:] == ["0.01", "0.01", "0.01"]
    assert lines["block.3"][-3:] == ["frozen", "0.005", "0.005"]
    assert lines["stem"][-3:] == ["frozen", "frozen", "0.00031"]
    assert "0-4" in shown
    assert not Path("outputs").exists()


def test_penalties_additions_and_kinds(capsys: Captured) -> None:
    assert plan("strategy=ssf", "regularizer=bss", "regularizer.bss.k=2") == 0
    shown = capsys.readouterr().out
    assert "penalties  bss (strength=0.001, k=2)" in shown
    assert "additions  ssf:" in shown
    assert "only added" in shown
    assert plan("strategy=bitfit", "strategy.normalization=eval") == 0
    shown = capsys.readouterr().out
    assert "only bias, norm_bias" in shown
    assert "norm eval" in shown


def test_the_plan_is_what_the_record_says() -> None:
    from headstart.experiment import run

    config = tiny_config("strategy=lp_ft", "trainer.max_epochs=2", "strategy.normalization=[train,eval]")
    described = describe(prepare(config))
    _, record = run(config)
    assert described.trainable == record.parameters["trainable"]
    assert [phase["start"] for phase in record.plan] == [phase.start for phase in described.phases] == [0, 4]
    assert [phase["normalization"] for phase in record.plan] == ["train", "eval"]
    for i, phase in enumerate(record.plan):
        rates = {row.name: row.rates[i] for row in described.groups if row.rates[i] is not None}
        assert rates == {name: pytest.approx(0.001 * rate) for name, rate in phase["rates"].items()}


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_of_the_rates(capsys: Captured, kind: str) -> None:
    assert plan("strategy=gradual", "trainer.max_epochs=4", "--plot", f"rates.{kind}") == 0
    start = Path(f"rates.{kind}").read_bytes()[:5]
    assert start == {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}[kind]
    assert f"Picture: rates.{kind}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--plot", "rates.gif"), "rates.gif: a picture must end in .png, .svg, .pdf."),
        (("--plot", "nowhere/rates.png"), "nowhere/rates.png: there is no folder nowhere."),
        (("experiment=quickstart",), "this experiment is a sweep"),
        (("strategy=last_k", "strategy.k=9"), "strategy.k=9: the backbone has 5 layer groups (stem ... block.3)."),
    ],
)
def test_mistakes(capsys: Captured, words: tuple[str, ...], said: str) -> None:
    assert plan(*words) == 2
    assert said in capsys.readouterr().err


def test_groups_that_are_no_neighbours_are_not_said_in_one_breath() -> None:
    order = ["stem", "block.0", "block.1", "block.2", "block.3", "head"]
    assert span(["stem", "block.0", "block.1", "head"], of=order) == "stem ... block.1, head"
    assert span(order, of=order) == "stem ... head"
    assert span(["stem", "block.2"], of=order) == "stem, block.2"


def test_options_that_do_nothing_under_a_strategy_are_noted(capsys: Captured) -> None:
    words = ("strategy.layer_decay=0.5", "strategy.normalization=eval")
    assert plan("strategy=linear_probe", *words) == 0
    shown = capsys.readouterr().out
    assert "note       strategy.layer_decay has no effect" in shown
    assert "note       strategy.normalization has no effect" in shown
    assert plan("strategy=full", *words) == 0
    assert "no effect" not in capsys.readouterr().out


def test_options_of_the_step_do_nothing_to_a_head_on_features(capsys: Captured) -> None:
    words = ("trainer.micro_batch_size=8", "trainer.channels_last=true", "optimizer.fused=false")
    assert plan("strategy=linear_probe", *words) == 0
    shown = capsys.readouterr().out
    assert "note       the head is fitted on features that are computed once" in shown
    assert "strategy.normalization" not in shown
    for name in ("trainer.micro_batch_size", "trainer.channels_last", "optimizer.fused"):
        assert f"note       {name} has no effect on a head" in shown
    assert plan("strategy=full", *words) == 0
    assert "has no effect" not in capsys.readouterr().out


def test_what_a_penalty_trains_is_counted(capsys: Captured) -> None:
    words = ("backbone.name=tf_efficientnet_lite0", "weights=pretrained", "regularizer=co_tuning")
    assert plan(*words) == 0
    own = 1280 * 1000 + 1000
    shown = capsys.readouterr().out
    assert f"{own:,} parameters of their own" in shown
    prepared = prepare(tiny_config(*words))
    record = describe_run(prepared, name="x", command=())
    inside = sum(p.numel() for p in prepared.built.model.parameters())
    assert record.parameters == {"total": inside + own, "trainable": inside + own, "frozen": 0}
