"""What is asked of the images: the source's own task, or the one that the config names."""

from __future__ import annotations

from dataclasses import replace

from headstart.data.source import Source
from headstart.errors import ConfigError

_HAVE = {
    "multiclass": "one class each",
    "multilabel": "several labels each",
    "regression": "numbers for labels",
    "binary": "one of two classes each",
}


def as_task(source: Source, task: str) -> Source:
    """The source for `task`, or for what it is where that is `auto`.

    Two classes become one output of a binary task: the first is the negative one. Raises ConfigError where the
    labels are of another kind.
    """
    if task in ("auto", source.task):
        return source
    if task == "binary" and source.task == "multiclass":
        if len(source.class_names) != 2:
            raise ConfigError(
                f"data.task=binary: there are {len(source.class_names)} classes, not two; "
                "choose two with data.classes=[negative,positive]."
            )
        return replace(source, task="binary")
    raise ConfigError(f"data.task={task}: these images have {_HAVE[source.task]}.")
