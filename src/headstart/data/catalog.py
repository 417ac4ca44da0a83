"""What a source has and where each example is used, as a table that is kept with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headstart.data.fingerprint import Scan
from headstart.data.source import Examples, Source
from headstart.records.examples import ExampleTable

if TYPE_CHECKING:
    from headstart.data.subset import Split


@dataclass(frozen=True)
class Catalog:
    """A source, and what reading it found."""

    source: Source
    found: Scan

    def table(self, splits: Mapping[str, Split]) -> ExampleTable:
        """A row per usable example of the source, with the names of the `splits` that it is in."""
        used: dict[tuple[str, str], list[str]] = {}
        origin_of = {id(examples): name for name, examples in self.source.splits.items()}
        for name, split in splits.items():
            for examples, index in split.places():
                used.setdefault((origin_of[id(examples)], examples.ids[index]), []).append(name)
        origins: list[str] = []
        ids: list[str] = []
        labels: list[str] = []
        for origin, examples in self.source.splits.items():
            usable = self.found.usable[origin]
            origins += [origin] * len(usable)
            ids += [examples.ids[i] for i in usable]
            labels += [self._label(examples, i) for i in usable]
        digests: list[npt.NDArray[np.uint64]] = [self.found.digests[origin] for origin in self.source.splits]
        places = [",".join(used.get(key, ())) for key in zip(origins, ids, strict=True)]
        return ExampleTable(origins, ids, labels, np.concatenate(digests), places)

    def _label(self, examples: Examples, index: int) -> str:
        target = examples.targets[index]
        if target.dtype.kind == "f":
            return ",".join(repr(float(number)) for number in np.atleast_1d(target))
        if target.ndim == 0:
            return self.source.class_names[int(target)]
        return ",".join(name for name, has in zip(self.source.class_names, target, strict=True) if has)
