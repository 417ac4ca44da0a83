"""Early stopping beside phases: patience counts where the last of them begins; and stopping on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import TINY, RunTiny

from headstart.config.compose import compose
from headstart.errors import RunPruned
from headstart.experiment import resume, run
from headstart.records.store import find_runs
from headstart.records.tables import METRICS, read_rows

NOTHING_GETS_BETTER = ("optimizer.lr=1e-12", "trainer.early_stopping_patience=1", "trainer.max_epochs=8")


def test_one_phase_stops_as_soon_as_patience_is_over(run_tiny: RunTiny) -> None:
    _, record = run_tiny(*NOTHING_GETS_BETTER)
    assert (record.epochs, record.stopped_by) == (2, "early_stopping")


def test_a_probe_that_gets_no_better_does_not_end_the_run(run_tiny: RunTiny) -> None:
    _, record = run_tiny(
        *NOTHING_GETS_BETTER, "strategy=lp_ft", "strategy.probe_share=0.5", "strategy.normalization=eval"
    )
    assert (record.epochs, record.stopped_by) == (6, "early_stopping")


def test_a_run_that_is_asked_to_stop_ends_after_a_validation_and_goes_on_if_resumed() -> None:
    """A search's trial: its record says pruned, its history stays, and nothing has been tested."""
    asked: list[int] = []

    def prune() -> bool:
        asked.append(1)
        return len(asked) == 3

    config = compose([*(word for word in TINY if "max_epochs" not in word), "trainer.max_epochs=6"])
    with pytest.raises(RunPruned, match="other trials were better by then"):
        run(config, prune=prune)
    ((folder, record),) = find_runs([Path("outputs")])[0]
    assert (record.status, record.metrics, record.predictions_sha256) == ("pruned", {}, None)
    assert "stopped after step" in str(record.error)
    assert len(read_rows(folder / METRICS)) == 3
    assert resume(folder).status == "completed"
    assert len(read_rows(folder / METRICS)) == 6
    assert len(asked) == 3
