"""`headstart runs --filter ... --sort ...`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.compare.test_compare import ARMS, made, three_arms

from headstart.cli import main
from headstart.compare.filters import select
from headstart.errors import RecordError
from headstart.records.schema import RunRecord
from headstart.records.store import write_record


def runs() -> list[tuple[Path, RunRecord]]:
    found = [*three_arms(), made((*ARMS[2], "backbone=resnet18"), 0, 0.5), made(ARMS[0], 7, 0.0, status="failed", metrics={})]  # fmt: skip
    return [(Path(f"r{i}"), record) for i, record in enumerate(found)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["test/accuracy_micro>0.9"], ["r1", "r2"]),
        (["test/accuracy_micro>=0.9", "seed<2"], ["r0", "r1"]),
        (["backbone=resnet18"], ["r9"]),
        (["backbone.name=resnet18*"], ["r9"]),
        (["backbone!=resnet18", "weights=scratch"], ["r6", "r7", "r8"]),
        (["strategy=linear_probe", "seed=1"], ["r4"]),
        (["strategy.name = *probe", "optimizer.lr<=1"], ["r3", "r4", "r5"]),
        (["status=failed"], ["r10"]),
        (["status!=completed"], ["r10"]),
        (["parameters.trainable=1.5e6", "seed=7"], ["r10"]),
        (["sweep=none", "fold=null", "seed=7"], ["r10"]),
        (["seed>100"], []),
        (["trainer.test=true", "seed=7"], ["r10"]),
    ],
)
def test_filters(filters: list[str], expected: list[str]) -> None:
    assert [str(folder) for folder, _ in select(runs(), filters, None)] == expected


def test_order() -> None:
    values = [record.metrics.get("test/accuracy_micro") for _, record in select(runs(), [], "-test/accuracy_micro")]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[-1] is None
    assert [record.seed for _, record in select(runs(), [], "seed")] == sorted(r.seed for _, r in runs())
    assert next(record.status for _, record in select(runs(), [], "-status")) == "failed"


@pytest.mark.parametrize(
    ("filters", "sort", "said"),
    [
        (["accuracy"], None, "--filter accuracy: does not parse"),
        (["=3"], None, "does not parse"),
        (["test/accuracy_micro>high"], None, "> compares numbers, and high is none"),
        (["test/acuracy_micro>0.5"], None, "no run has it. Did you mean 'test/accuracy_micro'"),
        ([], "-test/acuracy_micro", "--sort test/acuracy_micro: no run has it. Did you mean"),
    ],
)
def test_what_cannot_be_asked(filters: list[str], sort: str | None, said: str) -> None:
    with pytest.raises(RecordError) as caught:
        select(runs(), filters, sort)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for folder, record in runs():
        place = Path("outputs/runs") / folder
        place.mkdir(parents=True)
        write_record(place, record)
    words = ["runs", "--filter", "weights=pretrained", "--filter", "test/accuracy_micro>0.9", "--sort=-test/accuracy_micro"]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "test/accuracy_micro" in shown
    assert shown.index("r1 ") < shown.index("r2 ")
    assert "2 of 11 runs." in shown
    assert main([*words, "--format", "json"]) == 0
    assert [row["value"] for row in json.loads(capsys.readouterr().out)] == [0.94, 0.92]
    assert main(["runs", "--filter", "lr"]) == 2
