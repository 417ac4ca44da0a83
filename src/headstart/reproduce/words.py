"""A verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.reproduce.changes import Change
from headstart.reproduce.verdict import Verdict

_MOST_KEYS = 3


def verdict_lines(verdict: Verdict, changes: Sequence[Change]) -> list[str]:
    """What a person reads: the verdict, each metric, where the runs part, and what probably made them."""
    lines = [_first(verdict)]
    if verdict.kind != "identical":
        for check in verdict.metrics:
            difference = "" if check.difference is None else f", {check.difference:+.4g}"
            said = "" if check.is_within else "  <- outside"
            lines.append(
                f"  {check.name}: {_number(check.before)} -> {_number(check.now)}{difference} "
                f"(tolerance {check.tolerance:.4g}, {check.basis}){said}"
            )
        if verdict.parting:
            more = len(verdict.parting.keys) - _MOST_KEYS
            keys = ", ".join(verdict.parting.keys[:_MOST_KEYS]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"They part in epoch {verdict.parting.epoch}: {keys}.")
        causes = [change for change in changes if change.matters]
        if causes:
            lines.append(f"The likeliest reason: {causes[0].kind}: {causes[0].text}.")
        else:
            lines.append("No recorded ingredient has changed; an operation without a fixed order may be why.")
    if verdict.unknown:
        lines.append(f"Not compared, as the run did not keep it: {', '.join(verdict.unknown)}.")
    return lines


def _first(verdict: Verdict) -> str:
    if verdict.kind == "identical":
        shown = next((check for check in verdict.metrics if check.now is not None), None)
        value = f" ({shown.name} {_number(shown.now)})" if shown else ""
        return f"identical: {' and '.join(verdict.compared)} are the same, bit for bit{value}."
    if verdict.kind == "within tolerance":
        return "within tolerance: not the same bits, but every metric agrees."
    return "different: at least one metric is further off than its tolerance."


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def first_cause(changes: Sequence[Change]) -> str:
    """The likeliest reason in a few words, or nothing."""
    causes = [change for change in changes if change.matters]
    return f"{causes[0].kind}: {causes[0].text}" if causes else ""
