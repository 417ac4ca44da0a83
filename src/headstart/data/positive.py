"""Two classes of which one is looked for: the source as a binary one."""

from __future__ import annotations

import dataclasses
from typing import Any

from headstart.data.class_subset import OfClasses
from headstart.data.source import Source
from headstart.errors import ConfigError, did_you_mean


def with_positive(source: Source, wanted: Any) -> Source:
    """The source with the task `binary`, and `wanted`, the name of a class, as the second of its two.

    Raises ConfigError where there are other than two classes, or images have several labels or numbers, or there
    is no class of that name.
    """
    names = source.class_names
    if source.task in ("multilabel", "regression"):
        have = "several labels" if source.task == "multilabel" else "numbers"
        raise ConfigError(f"data.positive={wanted}: is for one of two classes per image; these images have {have}.")
    if len(names) != 2:
        some = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
        raise ConfigError(
            f"data.positive={wanted}: is for two classes, and there are {len(names)} ({some}); choose two by "
            "data.classes."
        )
    place = _index(wanted, names)
    order = (1 - place, place)
    splits = source.splits if place == 1 else {key: OfClasses(one, order) for key, one in source.splits.items()}
    return dataclasses.replace(
        source, class_names=tuple(names[i] for i in order), task="binary", splits=dict(splits)
    )


def _index(wanted: Any, names: tuple[str, ...]) -> int:
    if str(wanted) in names:
        return names.index(str(wanted))
    # a class called yes or true, which is no text on a command line
    alike = [i for i, name in enumerate(names) if isinstance(wanted, bool) and name.lower() == str(wanted).lower()]
    if len(alike) != 1:
        hint = did_you_mean(str(wanted), names)
        raise ConfigError(f"data.positive={wanted}: there is no such class.{hint} There are {' and '.join(names)}.")
    return alike[0]
