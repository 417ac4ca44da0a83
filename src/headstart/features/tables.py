"""What the heads are fitted on, as the engine asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch

from headstart.data.datamodule import ImageDataModule

ROWS = 8192
"""Rows that are scored at once."""


class Table(Protocol):
    """Features of one split of one data module, rows in the split's order."""

    @property
    def width(self) -> int:
        """Numbers of a row."""

    def __len__(self) -> int: ...

    def rows(self, positions: torch.Tensor, *, view: int = 0) -> torch.Tensor:
        """(n, width) float32 on the run's device."""


class Bank(Protocol):
    """Features of one frozen backbone, computed once wherever they are asked for."""

    def tables(
        self, data: ImageDataModule, names: Sequence[str], *, views: int | None = None
    ) -> Mapping[str, Table]:
        """The tables of some splits; `views` concern the training split alone."""


def in_parts(table: Table) -> Iterator[torch.Tensor]:
    """All rows of a table, some at a time: (n, width)."""
    for start in range(0, len(table), ROWS):
        yield table.rows(torch.arange(start, min(start + ROWS, len(table))))
