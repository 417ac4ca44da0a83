"""`headstart plan --find lr|batch`: short trials that say which learning rate or batch size to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.preparation import Prepared

PICTURES = {"lr": Path("lr_range.png"), "batch": Path("batch_sizes.png")}
"""Where the picture goes if nothing else is said."""


def find(what: str, prepared: Prepared, path: Path) -> int:
    """Try, say what is suggested and draw it; exit status 3 where nothing can be suggested."""
    return _rate(prepared, path) if what == "lr" else _batch(prepared, path)


def _title(prepared: Prepared) -> str:
    config = prepared.config
    return f"{config.backbone.name}, strategy={config.strategy.name}, optimizer={config.optimizer.name}"


def _rate(prepared: Prepared, path: Path) -> int:
    from headstart.finding.pictures import draw_rate
    from headstart.finding.rate import HIGHEST, LOWEST, STEPS, find_rate
    from headstart.progress import counted

    with counted(STEPS, what="Raising the rate") as progress:
        found = find_rate(prepared, progress=progress)
    if found.phases > 1:
        start = prepared.plan.phases[found.phase - 1].start
        print(
            f"phase      {found.phase} of {found.phases} was tried (from step {start}: most trains in it), with "
            "the weights that the run starts from"
        )
    ended = f"the loss ran away at {found.rates[-1]:.2g}" if found.diverged and found.rates else "to the end"
    print(f"tried      {len(found.rates)} steps, rates from {LOWEST:g} towards {HIGHEST:g}: {ended}")
    if found.losses:
        draw_rate(found, path, title=_title(prepared))
        print(f"Picture: {path}")
    if found.suggestion is None:
        print("No suggestion: no rate made the loss fall. Is there anything to learn that this strategy can learn?")
        return 3
    print(f"loss       falls fastest at {found.steepest:.2g}, is lowest at {found.lowest:.2g}")
    print(f"Suggested, a tenth of where the loss is lowest: optimizer.lr={found.suggestion:g}")
    return 0


def _batch(prepared: Prepared, path: Path) -> int:
    from rich.console import Console

    from headstart.finding.batch import find_batch
    from headstart.finding.memory import size
    from headstart.finding.pictures import draw_batch

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("Trying batch sizes") as status:
            found = find_batch(prepared, progress=lambda words: status.update(f"Trying {words}"))
    else:
        found = find_batch(prepared)
    memory = "memory" if found.measured else "memory, estimated"
    print(f"{'images per batch':>16} {'images per second':>18} {memory:>18}")
    for one in found.tried:
        print(f"{one.size:>16,} {one.rate:>18,.0f} {size(one.memory):>18}")
    why = "as many as the training split has" if found.limited_by == "images" else f"room: {size(found.room)}"
    draw_batch(found, path, title=_title(prepared))
    print(f"Picture: {path}")
    print(f"Largest that has room: data.batch_size={found.largest} ({why})")
    print(f"Suggested, the smallest within 5 % of the best speed: data.batch_size={found.suggestion}")
    print(
        "Another batch size is another experiment: its rate, and with batch normalisation its result, change with "
        "it. trainer.micro_batch_size passes fewer images at once and leaves the result as it is."
    )
    return 0
