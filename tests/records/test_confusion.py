"""Confusion counts in a record: few classes whole, many as cells."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.records.confusion import counts_of, stored


@pytest.mark.parametrize("classes", [3, 100, 101, 300])
def test_counts_come_back(classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 3, (classes, classes))
    kept = stored(counts.tolist())
    assert ("cells" in kept) == (classes > 100)
    np.testing.assert_array_equal(counts_of(kept), counts)


def test_labels_are_always_whole() -> None:
    counts = [[1, 2, 3, 4]] * 500
    assert stored(counts) == {"counts": counts}
    assert counts_of({"counts": counts}).shape == (500, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "bad",
    [{}, {"counts": "x"}, {"counts": [[1], [2, 3]]}, {"counts": []}, {"cells": [[0, 5, 1]], "classes": 3}, {"cells": [[-1, 0, 1]], "classes": 3},
     {"cells": "x", "classes": 3}, {"cells": [[0, 1]], "classes": 3}, {"cells": [], "classes": 10**9}, {"cells": []}],
)  # fmt: skip
def test_what_is_none(bad: dict[str, object]) -> None:
    assert counts_of(bad) is None
