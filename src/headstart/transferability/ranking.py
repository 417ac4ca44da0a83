"""A ranking of candidates as it is kept: `ranking.json` in a folder of its own. Never imports torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.printable import one_line
from headstart.records.atomic import write_json

RANKINGS = "rankings"
"""The folder of rankings in the output folder."""
RANKING = "ranking.json"
PROBE = "linear_probe"
"""The score that warnings rest on."""
SCHEMA = 1
INTERRUPTED = "interrupted"
"""Why a candidate is left out that was not reached."""
STATIC = "static"
"""The score that ignores the data: the mean on other sets, else the number of parameters."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Ranked:
    """One candidate, and what became of it."""

    name: str
    """As it was asked for: a backbone, with overrides where it has some, or the id of a run."""
    overrides: tuple[str, ...]
    """What makes it on the command line of `headstart train`."""
    backbone: str
    """timm's or torchvision's name, resolved."""
    library: str
    weights: Mapping[str, Any]
    """`source` (pretrained, scratch, file, run), `name` in words, `sha256` of the file (None from scratch), `seed`
    of the initial values where any were drawn (else None)."""
    parameters: int
    """Numbers in the backbone's parameters."""
    images_per_second: float
    """Forward passes on this machine."""
    memory: int
    """Bytes that one step of fine-tuning all of it takes at `data.batch_size`."""
    seconds: Mapping[str, float]
    """`setup` (weights, model), `features`, `scores`, `bootstrap`."""
    scores: Mapping[str, float | None]
    """By score, higher is better; None where it cannot be had, and `notes` says why. `static` is one of them."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """By score: 95 % interval over examples."""
    ranks: Mapping[str, Interval] = field(default_factory=dict)
    """By score: 95 % interval of the place among the candidates, 1 is best."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """By score: what is to be said of it."""
    distance: Mapping[str, Any] = field(default_factory=dict)
    """How far its source lies: see `transferability.distance`."""
    warning: str | None = None
    """Why transfer from it is likely to buy nothing, or to hurt."""
    gain: Mapping[str, Any] | None = None
    """What the warning rests on: the linear probe on its features minus that on those of the same backbone with
    random weights: `value`, `low`, `high`; None where there is no such control."""

    @property
    def label(self) -> str:
        """Its name for people, short: of a run its architecture, the end of the id, and what it was trained on."""
        if self.weights.get("source") != "run" or not self.backbone:
            return self.name
        id, *own = self.name.split(" ")
        of = f" ({origin})" if (origin := self.distance.get("origin")) else ""
        return one_line(" ".join([f"{self.backbone.partition('.')[0]} of run {id[-8:]}{of}", *own]))


@dataclass(frozen=True)
class Ranking:
    """Candidates, ordered by one score; best first."""

    id: str
    created: str
    command: tuple[str, ...]
    task: str
    dataset: str
    """As people say it."""
    fingerprint: str
    """Of the data set."""
    images: int
    """Training images that the scores were computed on."""
    outputs: int
    """Classes, labels or numbers to predict."""
    by: str
    """The score that the order goes by."""
    static: str
    """What the static baseline is: `mean over N other data sets`, or `number of parameters`."""
    candidates: tuple[Ranked, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Candidates that could not be had, and why."""
    overrides: tuple[str, ...] = ()
    """What all candidates share on the command line."""
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def scores(self) -> list[str]:
        """Names of all scores, `static` last."""
        names = dict.fromkeys(name for one in self.candidates for name in one.scores)
        return [*(name for name in names if name != STATIC), *([STATIC] if STATIC in names else [])]


def write_ranking(folder: Path, ranking: Ranking) -> Path:
    """Write `ranking.json` into `folder`, whole or not at all; returns its path."""
    path = folder / RANKING
    write_json(path, dataclasses.asdict(ranking))
    return path


def read_ranking(path: Path) -> Ranking:
    """A ranking from its folder or file; raises RecordError where it is none, or is damaged."""
    file = path / RANKING if path.is_dir() else path
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{file}: cannot be read ({error.strerror}); `headstart rank` writes one.") from error
    except ValueError as error:
        raise RecordError(f"{file}: is no ranking ({error}).") from error
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        said = plain.get("schema") if isinstance(plain, dict) else None
        raise RecordError(f"{file}: is no ranking of schema {SCHEMA} (it says {said}).")
    try:
        candidates = tuple(
            Ranked(
                **one
                | {
                    "overrides": tuple(one["overrides"]),
                    "intervals": _pairs(one["intervals"]),
                    "ranks": _pairs(one["ranks"]),
                }
            )
            for one in plain["candidates"]
        )
        texts = {key: tuple(map(str, plain[key])) for key in ("command", "overrides")}
        return Ranking(**plain | texts | {"candidates": candidates})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise RecordError(f"{file}: is damaged ({error}).") from error


def _pairs(plain: Mapping[str, Any]) -> dict[str, Interval]:
    found = {}
    for name, (low, high) in plain.items():
        found[str(name)] = (float(low), float(high))
    return found
