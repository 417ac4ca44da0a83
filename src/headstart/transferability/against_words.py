"""How scores agree with training, as tables and sentences for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headstart.compare.sheets import Sheet
from headstart.transferability.against import Against, Mean, OfDataset
from headstart.transferability.agreement import FEWEST, Agreement, Figure, best_first
from headstart.transferability.ranking import STATIC

MARK = "static*"
LONG = 1e6
"""From here on numbers have an exponent."""
HEADER = ("weighted tau", "Spearman", "Pearson", "top-1 regret", "tau over static")


def sheets(against: Against) -> list[Sheet]:
    """A table per data set, one over all of them where there are several, and what warnings came to."""
    found = [_dataset_sheet(of, against) for of in against.datasets]
    if against.means:
        rows = tuple(_cells(one, str(one.datasets)) for one in against.means)
        note = "Intervals over data sets: Student's t from three to nine, a bootstrap from ten."
        title = f"Mean over {len(against.datasets)} data sets"
        found.append(Sheet(title, ("score", *HEADER, "data sets"), rows, note=f"{note}\n{_best(against.means)}"))
    if len(against.datasets) == 1 and against.datasets[0].arms:
        found.append(_measured_sheet(against.datasets[0], against))
    return found


def footer(against: Against) -> list[str]:
    """What the figures are, and what is to be noted."""
    lines = [
        f"Measured: {against.metric}{' (lower is better, turned)' if against.lower_is_better else ''}. "
        f"* Static baseline, which ignores the data: {against.static}.",
        "tau: weighted Kendall (Vigna 2015). Regret: best measured minus measured of the one put first, in the "
        "metric's unit.",
    ]
    if any(len(of.measured) >= FEWEST for of in against.datasets):
        lines.append(
            "[low, high]: 95 % percentile bootstrap over candidates, and over repeats where there are several."
        )
    if against.verdicts:
        lines += ["", "Transfer against training from scratch:", *(f"  {one.words}" for one in against.verdicts)]
        warnings = [one.warning.partition("; compare measures it")[0] for one in against.verdicts if one.warning]
        lines += [f"  warned: {warning}." for warning in warnings]
    return [*lines, *against.notes]


def _dataset_sheet(of: OfDataset, against: Against) -> Sheet:
    labels = {one.name: one.label for one in of.measured}
    rows = tuple((*_cells(one, f"{one.n} of {len(of.measured)}"), _chosen(one, labels)) for one in of.agreements)
    remarks = [f"{_name(one.score)}: {one.note}." for one in of.agreements if one.note]
    if len(remarks) > 1 and len({one.note for one in of.agreements}) == 1:  # it is the candidates, not the scores
        remarks = [f"All scores: {of.agreements[0].note}."]
    notes = [_best(of.agreements), *remarks, *(f"Note: {note.removesuffix('.')}." for note in of.notes)]
    return Sheet(
        f"{of.dataset}: {len(of.measured)} candidates, {against.metric}",
        ("score", *HEADER, "candidates", "puts first"),
        rows,
        note="\n".join(notes),
    )


def _measured_sheet(of: OfDataset, against: Against) -> Sheet:
    order = best_first(of.measured, lower_is_better=against.lower_is_better)
    rows = tuple((one.label, _number(one.mean, ".4f"), str(len(one.repeats)), of.arms[one.name]) for one in order)
    return Sheet("What was measured", ("candidate", against.metric, "repeats", "arm"), rows)


def _cells(one: Agreement | Mean, count: str) -> tuple[str, ...]:
    figures = (one.tau, one.spearman, one.pearson, one.regret, one.over_static)
    texts = [_figure(figure, signed=i == 4) for i, figure in enumerate(figures)]
    return (_name(one.score), *texts, count)


def _name(score: str) -> str:
    return MARK if score == STATIC else score


def _figure(figure: Figure | None, *, signed: bool) -> str:
    if figure is None or figure.value is None:
        return "-"
    sign = "+" if signed else ""  # a difference has its sign
    text = _number(figure.value, f"{sign}.3f")
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{_number(figure.low, f'{sign}.2f')}, {_number(figure.high, f'{sign}.2f')}]"


def _number(value: float, form: str) -> str:
    return format(value, form if abs(value) < LONG else ".3g")


def _chosen(one: Agreement, labels: Mapping[str, str]) -> str:
    names = [labels[name] for name in one.chosen]
    if len(names) > 2:
        return f"{names[0]} and {len(names) - 1} more (ties)"
    return ", ".join(names) or "-"


def _best(rows: Sequence[Agreement | Mean]) -> str:
    """Whether any score is better than the static baseline, which is said only where the paired interval excludes
    zero."""
    static = next((one for one in rows if one.score == STATIC), None)
    scores = [one for one in rows if one.score != STATIC and one.tau.value is not None]
    if not scores:
        return "No score has an order to compare."
    best = max(scores, key=lambda one: one.tau.value or 0.0)
    if static is None or static.tau.value is None or best.over_static is None or best.over_static.value is None:
        missing = "has no order (all candidates alike)" if _has_values(static) else "is not there"
        return f"Highest tau: {best.score}; the static baseline to hold it against {missing}."
    better = [one for one in scores if _beyond(one) > 0]
    worse = [one.score for one in scores if _beyond(one) < 0]
    below = f" Worse than static: {', '.join(worse)}." if worse else ""
    if better:
        named = ", ".join(f"{one.score} ({_figure(one.over_static, signed=True)})" for one in better)
        return f"Better than static by tau: {named}.{below}"
    gap = _figure(best.over_static, signed=True)
    why = "an interval that contains zero" if best.over_static.low is not None else "no interval"
    return (
        f"No score is better than static beyond doubt: the best, {best.score}, has tau {gap} over it, {why}."
        + below
    )


def _has_values(static: Agreement | Mean | None) -> bool:
    return isinstance(static, Agreement) and static.n > 0


def _beyond(one: Agreement | Mean) -> int:
    gap = one.over_static
    if gap is None or gap.value is None or not gap.excludes_zero:
        return 0
    return 1 if gap.value > 0 else -1
