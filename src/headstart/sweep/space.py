"""What a search may choose from: the values of each tuned key, as a sweep file gives them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from headstart.config.compose import CHOOSERS
from headstart.config.schema.root import LAUNCH
from headstart.errors import ConfigError, did_you_mean

_SPEC = ("values", "low", "high", "log", "count", "also", "divided_by")
_NEVER = {
    "seed": "is an axis of its own (search.seeds, and seed for what is tested)",
    "data.split_seed": "is an axis of its own",
    "data.fold": "is an axis of its own",
    "trainer.test": "is off for trials",
    "data.refit_on_val": "is off for trials",
    "trainer.monitor": "says which epoch counts, for all trials alike",
    "weights": "is compared, by list or grid",
    "backbone": "is compared, by list or grid",
} | dict.fromkeys(
    (
        "data.source", "data.path", "data.root", "data.name", "data.subset", "data.classes", "data.task",
        "data.metric", "data.val_size", "data.test_size", "data.num_folds", "data.split_file", "data.split_sha256",
        "data.image_column", "data.label_column", "data.label_separator", "data.split_column", "data.group_column",
        "data.group_pattern",
    ),
    "decides which images trials are told apart by",
)  # fmt: skip


@dataclass(frozen=True)
class TunedKey:
    """One tuned key: some values, or all numbers in a range."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    """Whether a range is of whole numbers."""
    divided_by: str | None = None
    """Another tuned key, by whose value this one's is divided."""

    @property
    def ends(self) -> tuple[Any, ...]:
        """All its values, or the ends of its range."""
        return self.values or (self.low, self.high)


Space = tuple[TunedKey, ...]


def read_space(node: Mapping[str, Any], *, where: str) -> Space:
    """The tuned keys of `sweep.tune`, or of a list entry's own; raises ConfigError that says what is wrong."""
    return checked_space(tuple(_tuned(str(key), value, where) for key, value in node.items()), where=where)


def checked_space(space: Space, *, where: str) -> Space:
    """The space itself, unless a key is divided by one that is not there; that raises ConfigError."""
    for tuned in space:
        if tuned.divided_by is not None:
            divisor = next((other for other in space if other.key == tuned.divided_by), None)
            if divisor is None or divisor.divided_by or any(not _above_zero(value) for value in divisor.ends):
                raise ConfigError(
                    f"{where}: sweep.tune.{tuned.key}.divided_by={tuned.divided_by}: must be another tuned key "
                    "whose values are above zero."
                )
    return space


def _tuned(key: str, value: Any, where: str) -> TunedKey:
    name = f"{where}: sweep.tune.{key}"
    if key in CHOOSERS or key.partition(".")[0] in (*LAUNCH, "logger", "output_dir"):
        raise ConfigError(
            f"{name}: only single values are tuned, such as optimizer.lr; compare this by list or grid."
        )
    for never, why in _NEVER.items():
        if key == never or key.startswith(f"{never}."):
            raise ConfigError(f"{name}: is never searched over; it {why}.")
    if isinstance(value, list):
        value = {"values": value}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: must be a list of values, or a range {{low: ..., high: ...}}, not {value!r}.")
    for unknown in set(value) - set(_SPEC):
        raise ConfigError(f"{name}.{unknown}: there is no such key.{did_you_mean(str(unknown), _SPEC)}")
    if "values" not in value:
        return _range(key, value, name)
    values = value["values"]
    if not isinstance(values, list) or not values or any(isinstance(one, dict) for one in values):
        raise ConfigError(f"{name}: must have values in a list, or be a range {{low: ..., high: ...}}.")
    if set(value) - {"values", "divided_by"}:
        raise ConfigError(f"{name}: has either values or a range.")
    return TunedKey(key, values=tuple(values), divided_by=value.get("divided_by"))


def _range(key: str, value: dict[str, Any], name: str) -> TunedKey:
    low, high, log = value.get("low"), value.get("high"), value.get("log", False)
    count, also, divided_by = value.get("count"), value.get("also", []), value.get("divided_by")
    numbers = [_number(low), _number(high)]
    if None in numbers or not numbers[0] < numbers[1]:  # type: ignore[operator]
        raise ConfigError(f"{name}: low={low}, high={high}: must be numbers, low below high.")
    if not isinstance(log, bool) or (log and numbers[0] <= 0):  # type: ignore[operator]
        raise ConfigError(f"{name}: log={log}: must be true or false, true only where low is above zero.")
    if not isinstance(also, list) or (also and count is None):
        raise ConfigError(f"{name}.also: must be a list of further values, beside a count.")
    low, high = numbers
    whole = isinstance(low, int) and isinstance(high, int)
    if count is None:
        return TunedKey(key, low=low, high=high, log=log, whole=whole, divided_by=divided_by)  # type: ignore[arg-type]
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise ConfigError(f"{name}.count={count}: must be a whole number from 2.")
    values = (*spaced(low, high, count, log=log, whole=whole), *also)  # type: ignore[arg-type]
    return TunedKey(key, values=tuple(dict.fromkeys(values)), divided_by=divided_by)


def _number(value: Any) -> float | int | None:
    """A finite number; YAML reads 1e-4 as a text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def _above_zero(value: Any) -> bool:
    number = _number(value)
    return number is not None and number > 0


def is_interval(override: Override) -> bool:
    """Whether an override gives a range, as `key=interval(a,b)` does."""
    return override.is_sweep_override() and not override.is_discrete_sweep()


def range_of(override: Override) -> tuple[str, dict[str, Any]]:
    """What `key=interval(a,b)` and `key=tag(log,interval(a,b))` say, as a range of `sweep.tune`."""
    sweep: Any = override.value()
    return override.get_key_element().lstrip("+"), {
        "low": sweep.start,
        "high": sweep.end,
        **({"log": True} if "log" in sweep.tags else {}),
    }


def spaced(low: float, high: float, count: int, *, log: bool, whole: bool) -> list[float]:
    """`count` numbers from `low` to `high`, both included, at equal distances or equal ratios."""
    import numpy as np  # most sweeps do without

    numbers = (np.geomspace if log else np.linspace)(low, high, count)
    return [round(number) if whole else rounded(number) for number in numbers.tolist()]


def rounded(number: float) -> float:
    """To six digits, as people write such values down."""
    return float(f"{number:.6g}")


def applied(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The config values of what was drawn: rounded, and divided where that is asked for."""
    values = {key: rounded(value) if isinstance(value, float) else value for key, value in drawn.items()}
    divided = {
        tuned.key: rounded(values[tuned.key] / values[tuned.divided_by]) for tuned in space if tuned.divided_by
    }
    return {**values, **divided}


def first(space: Space) -> dict[str, Any]:
    """The first value of each key: what stands in for them until something is found."""
    return {tuned.key: tuned.ends[0] for tuned in space}


def combinations(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of values; raises ConfigError for a range that has no `count`."""
    for tuned in space:
        if not tuned.values:
            raise ConfigError(
                f"search=grid: sweep.tune.{tuned.key} is a range; give it a count, or list its values."
            )
    keys = [tuned.key for tuned in space]
    for values in itertools.product(*(tuned.values for tuned in space)):
        yield dict(zip(keys, values, strict=True))


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Each value, or end of a range, once: what must be right for a trial to be."""
    yield first(space)
    for tuned in space:
        for value in tuned.ends[1:]:
            yield {**first(space), tuned.key: value}


def to_plain(space: Space) -> dict[str, Any]:
    """Plain data that `read_space` takes."""
    plain: dict[str, Any] = {}
    for tuned in space:
        if tuned.values and tuned.divided_by is None:
            plain[tuned.key] = list(tuned.values)
            continue
        node: dict[str, Any] = {"values": list(tuned.values)} if tuned.values else {}
        if not tuned.values:
            node = {"low": tuned.low, "high": tuned.high, "log": tuned.log}
        plain[tuned.key] = {**node, **({"divided_by": tuned.divided_by} if tuned.divided_by else {})}
    return plain


def said(tuned: TunedKey) -> str:
    """A tuned key and what it may be, for people."""
    if tuned.values:
        values = [str(value) for value in tuned.values]
        what = ", ".join(
            values if len(values) <= 6 else [*values[:3], "...", values[-1], f"({len(values)} values)"]
        )
    else:
        what = f"{tuned.low:g} to {tuned.high:g}{', by ratios' if tuned.log else ''}"
    return f"{tuned.key}: {what}{f', divided by {tuned.divided_by}' if tuned.divided_by else ''}"


def at_edge(space: Space, drawn: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys whose value is the smallest or largest number there was, or within a twentieth of a range's end."""
    found = []
    for tuned in space:
        value = drawn[tuned.key]
        ends = [end for end in tuned.ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if value == 0 or len(ends) < len(tuned.ends) or (len(set(ends)) < 3 and tuned.values):
            continue
        low, high = min(ends), max(ends)
        share = math.log(value / low) / math.log(high / low) if tuned.log else (value - low) / (high - low)
        margin = 0.0 if tuned.values else 0.05
        if not margin < share < 1 - margin:
            found.append(tuned.key)
    return tuple(found)
