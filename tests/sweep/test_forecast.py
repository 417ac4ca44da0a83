"""What a sweep will cost, added up."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from tests.conftest import TINY

from headstart.cli import main
from headstart.sweep.forecast import forecast, job_seconds, size_in_words, units_of
from headstart.sweep.preflight import Checked


def job(step: float | None, *, steps: int = 10, parameters: int = 1000) -> Checked:
    return Checked(
        "k",
        parameters=parameters,
        steps=steps,
        epochs=2,
        batch_size=10,
        val_images=50,
        test_images=100,
        step_seconds=step,
    )


def test_time_and_disk_are_added_up() -> None:
    assert job_seconds(job(1.0)) == pytest.approx(1.5 + 10 + 200 * 0.1 * 0.4)
    two = forecast([job(1.0), job(3.0)], slots=1)
    assert two.seconds == pytest.approx(job_seconds(job(1.0)) + job_seconds(job(3.0)))
    assert two.kept == 2 * 2 * 1000 * 4
    assert two.beside == 3 * 1000 * 4
    four = forecast([job(1.0)] * 4, slots=2)
    assert four.seconds == pytest.approx(2 * job_seconds(job(1.0)))
    assert four.beside == 2 * 3 * 1000 * 4


def test_slots_do_not_make_one_job_faster() -> None:
    assert forecast([job(1.0)], slots=8).seconds == job_seconds(job(1.0))


def test_the_mean_step_stands_in_and_nothing_is_made_up() -> None:
    mixed = forecast([job(1.0), job(3.0), job(None, steps=100)], slots=1)
    assert mixed.unmeasured == 1
    known = job_seconds(job(1.0)) + job_seconds(job(3.0))
    assert mixed.seconds == pytest.approx(known + job_seconds(job(2.0, steps=100)))
    assert forecast([job(None)], slots=1).seconds is None
    assert forecast([], slots=1).seconds is None


def test_what_is_frozen_runs_once_over_each_image_for_all_heads() -> None:
    one = replace(job(1.0), together="x", train_images=300)
    assert job_seconds(one) == pytest.approx(1.5 + (300 + 50 + 100) * 0.1 + 0.1 + 10 * 1e-4)
    assert job_seconds(replace(one, views=3)) == pytest.approx(job_seconds(one) + 600 * 0.1)
    few = forecast([one] * 10, slots=2)
    assert few.seconds == pytest.approx(job_seconds(one) + 9 * (0.1 + 10 * 1e-4))
    other = replace(job(3.0), together="y", train_images=300)
    both = forecast([one, other, one, other], slots=1)
    assert both.seconds == pytest.approx(job_seconds(one) + job_seconds(other) + 2 * (0.1 + 10 * 1e-4))
    many = [one] * 40
    assert [len(unit) for unit in units_of(many, slots=2, divides=True)] == [20, 20]
    assert [len(unit) for unit in units_of(many, slots=2, divides=False)] == [40]
    assert [len(unit) for unit in units_of([*many, job(1.0)], slots=1, divides=True)] == [1, 40]


def test_sizes_in_words() -> None:
    assert [size_in_words(count) for count in (3_200_000, 2_500_000_000)] == ["3 MB", "2.5 GB"]


def test_the_plan_of_a_sweep_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "strategy=full,linear_probe", "seed=0,1"]
    assert main(["plan", "-m", *words]) == 0
    shown = capsys.readouterr().out
    assert "jobs       4; 0 done already" in shown
    assert "axes       seed, strategy" in shown
    assert re.search(r"strategy=linear_probe seed=1 +970 +4 +\d+", shown)
    assert re.search(r"time +about \d+ s, 1?\d+ at a time", shown)
    assert main(["train", "-m", *words[:-1], "seed=0"]) == 0
    capsys.readouterr()
    assert main(["plan", "-m", *words]) == 0
    shown = capsys.readouterr().out
    assert "jobs       4; 2 done already" in shown
    assert shown.count(" done") >= 2


@pytest.mark.slow
def test_the_forecast_is_near_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *(text for text in TINY if "max_epochs" not in text),
        "trainer.max_epochs=30",
        "data.train_size=800",
        "seed=0,1",
    ]
    assert main(["plan", "-m", *words]) == 0
    said = re.search(r"time +about (?:(\d+):)?(\d+)", capsys.readouterr().out)
    assert said
    seconds = int(said[1] or 0) * 60 + int(said[2])
    began = time.monotonic()
    assert main(["train", "-m", *words]) == 0
    took = time.monotonic() - began
    assert seconds / 4 < took < seconds * 4, f"forecast {seconds} s, took {took:.0f} s"
