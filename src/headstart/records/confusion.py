"""The confusion counts of a record: whole where there are few classes, else only the cells that are not zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

WHOLE_UP_TO = 100
"""Classes; the square of a thousand is 5 MB of JSON in every record."""

MOST_CLASSES = 30_000


def stored(counts: list[list[int]]) -> dict[str, Any]:
    """What a record holds of counts (classes, classes) or (labels, 4)."""
    if len(counts) <= WHOLE_UP_TO or len(counts[0]) != len(counts):
        return {"counts": counts}
    cells = [[i, j, n] for i, row in enumerate(counts) for j, n in enumerate(row) if n]
    return {"cells": cells, "classes": len(counts)}


def counts_of(confusion: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    """(classes, classes) or (labels, 4) from a record; None where it holds none that can be read."""
    try:
        if "cells" not in confusion:
            table = np.asarray(confusion.get("counts"), dtype=np.float64)
            return table if table.ndim == 2 and table.size else None
        size = int(confusion["classes"])
        if not 0 < size <= MOST_CLASSES:
            return None
        cells = np.asarray(confusion["cells"], dtype=np.int64).reshape(-1, 3)
        if cells.size and (cells[:, :2].min() < 0 or cells[:, :2].max() >= size):
            return None
        found = np.zeros((size, size))
        found[cells[:, 0], cells[:, 1]] = cells[:, 2]
        return found
    except (TypeError, ValueError, KeyError, OverflowError, MemoryError):
        return None
