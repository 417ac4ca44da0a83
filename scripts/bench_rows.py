"""What benchmarks have in common: a measurement beside the plain way as a row, tables, and a scratch folder."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison: each round's ratio, and the bar that their median must reach."""

    what: str
    ours: float
    """Median of what is measured of Headstart, in `unit`."""
    plain: float | None
    """Median of the plain way, in the same unit; None where the bar is for ours alone."""
    unit: str
    ratio: float
    lowest: float
    highest: float
    bar: float | None
    at_most: bool = False
    """Whether the bar is one that must not be passed."""
    note: str = ""
    rounds: dict[str, list[float]] = field(default_factory=dict)
    """What was measured in each round."""

    @property
    def reached(self) -> bool | None:
        """Whether the median is on the right side of the bar; None without one."""
        if self.bar is None:
            return None
        return self.ratio <= self.bar if self.at_most else self.ratio >= self.bar


def compared(
    what: str,
    ours: Sequence[float],
    plain: Sequence[float],
    *,
    unit: str,
    bar: float | None,
    faster: bool,
    at_most: bool = False,
    note: str = "",
) -> Row:
    """A row of two ways that took turns.

    With `faster` the ratio is how many times as fast ours is, of seconds (or milliseconds); without, it is ours
    over the plain way, as of rates.
    """
    pairs = zip(ours, plain, strict=True)
    ratios = [b / a if faster else a / b for a, b in pairs]
    return Row(
        what,
        statistics.median(ours),
        statistics.median(plain),
        unit,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        bar,
        at_most,
        note,
        {"ours": list(ours), "plain": list(plain)},
    )


def alone(what: str, ours: Sequence[float], *, unit: str, bar: float | None, note: str = "") -> Row:
    """A row of a measurement that must stay below its bar, or has none."""
    middle = statistics.median(ours)
    return Row(what, middle, None, unit, middle, min(ours), max(ours), bar, True, note, {"ours": list(ours)})


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| what | ours | the plain way | ratio | lowest to highest | bar | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        plain = "" if row.plain is None else f"{short(row.plain)} {row.unit}"
        bar = "" if row.bar is None else f"{'at most' if row.at_most else 'at least'} {row.bar:g}"
        verdict = {None: "", True: "reached", False: "NOT REACHED"}[row.reached]
        note = "; ".join(part for part in (verdict, row.note) if part)
        lines.append(
            f"| {row.what} | {short(row.ours)} {row.unit} | {plain} | {short(row.ratio)} | {short(row.lowest)} to "
            f"{short(row.highest)} | {bar} | {note} |"
        )
    return "\n".join(lines)


def short(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def show(rows: Sequence[Row], *, device: str, path: Path | None) -> int:
    """Print the table, and perhaps keep it; exit status 3 where a bar is not reached."""
    said = machine(device)
    print(f"\n{said}\n\n{table(rows)}", flush=True)
    keep(rows, said=said, path=path)
    return 3 if any(row.reached is False for row in rows) else 0


def keep(rows: Sequence[Row], *, said: str, path: Path | None) -> None:
    """Write all that was measured as JSON."""
    if path:
        kept = [{**asdict(row), "reached": row.reached} for row in rows]
        path.write_text(json.dumps({"machine": said, "rows": kept}, indent=1) + "\n")


def read(path: Path) -> list[Row]:
    """Rows that were kept."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return [Row(**{key: value for key, value in row.items() if key != "reached"}) for row in found]


def machine(device: str) -> str:
    """Date, processor or GPU, and versions, in a line."""
    import timm
    import torch

    gpu = torch.cuda.is_available() and device != "cpu"
    where = torch.cuda.get_device_name() if gpu else f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{time.strftime('%Y-%m-%d')}, {where}, torch {torch.__version__}, timm {timm.__version__}"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes again, with results and caches in it and not where they usually lie; no network."""
    names = ("HEADSTART_CACHE", "HEADSTART_OUTPUTS", "HF_HUB_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HEADSTART_CACHE"] = str(Path(folder, "cache"))
        os.environ["HEADSTART_OUTPUTS"] = str(Path(folder, "outputs"))
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def on_gpu(device: str) -> bool:
    """Whether to measure on the GPU."""
    import torch

    return device == "gpu" or (device == "auto" and torch.cuda.is_available())
