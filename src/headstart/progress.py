"""Progress of work that takes a while, outside of training: shown on a terminal, silent elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], *, total: int, what: str, show: bool = True) -> Iterator[T]:
    """Yield `items`, with a bar and the time left on standard error if `show` and it is a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield from items
        return
    yield from rich_track(items, total=total, description=what, console=console, transient=True)


@contextmanager
def counted(total: int, *, what: str) -> Iterator[Callable[[int], None]]:
    """Yield what is told how many of `total` are done; a bar on standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, completed=count)
