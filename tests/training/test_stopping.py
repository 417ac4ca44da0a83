"""Early stopping beside phases: patience counts where the last of them begins."""

from __future__ import annotations

from tests.conftest import RunTiny

NOTHING_GETS_BETTER = ("optimizer.lr=1e-12", "trainer.early_stopping_patience=1", "trainer.max_epochs=8")


def test_one_phase_stops_as_soon_as_patience_is_over(run_tiny: RunTiny) -> None:
    _, record = run_tiny(*NOTHING_GETS_BETTER)
    assert (record.epochs, record.stopped_by) == (2, "early_stopping")


def test_a_probe_that_gets_no_better_does_not_end_the_run(run_tiny: RunTiny) -> None:
    _, record = run_tiny(
        *NOTHING_GETS_BETTER, "strategy=lp_ft", "strategy.probe_share=0.5", "strategy.normalization=eval"
    )
    assert (record.epochs, record.stopped_by) == (6, "early_stopping")
