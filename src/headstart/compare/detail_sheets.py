"""The further tables of a comparison: each answers one question, and says how."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.compare.abroad_sheets import corruptions_sheet, elsewhere_sheet
from headstart.compare.comparison import Comparison
from headstart.compare.details import Details, changed_most
from headstart.compare.labels import Equivalence
from headstart.compare.rows import Row
from headstart.compare.sheets import Sheet, count_words, p_words, without_empty
from headstart.compare.statistics.across import Aggregate
from headstart.compare.summary import MethodSummary
from headstart.compare.transfer import Along, Reach
from headstart.compare.verdicts import signed, unsigned

MOST_CLASSES = 8


def detail_sheets(comparison: Comparison, details: Details) -> list[Sheet]:
    """The further tables, those without rows left out."""
    sheets = [
        elsewhere_sheet(comparison),
        corruptions_sheet(comparison),
        paired_sheet(comparison, details),
        datasets_sheet(details.summaries),
        along_sheet(details.along),
        levels_sheet(details.along),
        labels_sheet(details),
        classes_sheet(details),
        rankings_sheet(details),
        cost_sheet(comparison),
        unequal_sheet(comparison),
    ]
    return [without_empty(sheet) for sheet in sheets if sheet.rows]


def paired_sheet(comparison: Comparison, details: Details) -> Sheet:
    """A row per arm that has pairs: effect sizes, P(A > B), and the tests over runs and over images."""
    rows = [_paired_cells(row, details) for row in comparison.rows if row.paired]
    header = (
        "arm",
        "pairs",
        "vary",
        "effect size",
        "Cliff's delta",
        "P(A>B)",
        "p",
        "p Holm",
        "p images",
        "only it right",
    )
    return Sheet(
        "Paired with the baseline",
        header,
        tuple(rows),
        "Effect size: mean difference over its standard deviation. P(A>B): share of pairs won, with its percentile "
        "bootstrap interval; below 6 pairs it says nothing. p: paired t over runs; Holm: corrected over "
        f"{comparison.comparisons} comparisons. p images: arms exchanged image by image (permutation; with one "
        "pair exact McNemar), which varies the test images and not the training. Only it right: images that the "
        "arm alone has right, and that the baseline alone has right.",
    )


def _paired_cells(row: Row, details: Details) -> tuple[str, ...]:
    paired, test = row.paired, details.examples.get(row.arm)
    assert paired is not None
    ahead = paired.superiority
    over = f"{ahead.probability:.2f} [{ahead.low:.2f}, {ahead.high:.2f}]"
    if ahead.verdict:
        over += f" {ahead.verdict}"
    images = "-"
    if test:
        images = p_words(test.mcnemar_p if test.mcnemar_p is not None else test.p)
    return (
        row.arm,
        str(paired.difference.n),
        row.pairs_vary,
        _number(paired.effect_size, "+.2f"),
        f"{paired.cliffs_delta:+.2f}",
        over if paired.difference.n > 1 else "-",
        p_words(paired.p),
        p_words(paired.p_holm),
        images,
        f"{test.only_arm} : {test.only_baseline}" if test and test.only_arm is not None else "-",
    )


def datasets_sheet(summaries: Sequence[MethodSummary]) -> Sheet:
    """A row per number of labels and method, over data sets."""
    rows = [
        (
            one.method,
            one.labels,
            str(len(one.datasets)),
            _aggregate(one.mean),
            _aggregate(one.iqm) + ("" if one.scaled else " (raw)"),
            f"{one.rank:.2f}",
            _aggregate(one.gain, "+.3f"),
            _aggregate(one.improvement, ".2f"),
            f"{one.better} / {one.worse} / {one.undecided}" if one.gain else "-",
        )
        for one in summaries
    ]
    return Sheet(
        "Over data sets",
        (
            "method",
            "labels",
            "data sets",
            "mean",
            "IQM",
            "mean rank",
            "gain",
            "P(improves)",
            "better / worse / open",
        ),
        tuple(rows),
        "IQM: mean of the middle half of all runs, of (value - chance) / (1 - chance) unless raw. P(improves): a "
        "run of it against a run of the baseline, unpaired. Intervals: over data sets, by bootstrap from ten on, "
        "else Student's t (none of the IQM); where there are too few of them, over runs.",
    )


def along_sheet(found: Sequence[Along]) -> Sheet:
    """A row per arm: start, whole and speed of training, on the validation split."""
    rows = [
        (
            one.arm,
            signed(one.jumpstart) if one.jumpstart else "-",
            signed(one.area) if one.area else "-",
            _reach(one.own),
            _reach(one.baseline_own),
            _ratio(one),
        )
        for one in found
    ]
    return Sheet(
        "Along training",
        ("arm", "jumpstart", "gain area", "to 90 % of its best odds", "baseline to its", "times fewer steps"),
        tuple(rows),
        "On the validation split. Jumpstart: gain at the first evaluation. Gain area: mean gain over log10(steps). "
        "90 % of the odds at a run's own best (Kornblith et al. 2019), at the first evaluation beyond it. "
        "The cost of pretraining is in none of these.",
    )


def levels_sheet(found: Sequence[Along]) -> Sheet:
    """A row per arm and value: what it takes to get there."""
    rows = [
        (
            one.arm,
            f"{level.arm.threshold:.3f}",
            _reach(level.arm),
            _reach(level.baseline),
            _number(level.speedup, ".1f"),
        )
        for one in found
        for level in one.levels
    ]
    return Sheet(
        "Until a value is reached",
        ("arm", "validation value", "arm", "baseline", "times fewer steps"),
        tuple(rows),
        "Swept, because any one threshold is arbitrary; a ratio only where every run of both gets there.",
    )


def labels_sheet(details: Details) -> Sheet:
    """A row per method, data set and number of labels."""
    rows = []
    for one in details.labels:
        equal = {each.labels: each for each in one.equivalence}
        for size, value, gain in zip(one.labels, one.values, one.gains, strict=True):
            rows.append(
                (
                    f"{one.method} on {one.dataset}",
                    f"{size:,}",
                    unsigned(value),
                    signed(gain) if gain else "-",
                    _times(equal.get(size)),
                    signed(one.area) if one.area else "-",
                )
            )
    return Sheet(
        "By number of labels",
        ("method", "labels", "value", "gain", "baseline needs", "gain area"),
        tuple(rows),
        "Baseline needs: times the labels for the same value, read off its curve over log10(labels). Gain area: "
        "mean gain over log10(labels), of seeds that have every number.",
    )


def classes_sheet(details: Details) -> Sheet:
    """A row per arm and class, those that changed most and all that are worse beyond their interval."""
    rows = []
    for arm, gains in details.classes.items():
        shown = changed_most(gains, MOST_CLASSES)
        shown += [gain for gain in gains if gain.is_negative and gain not in shown]
        for gain in sorted(shown, key=lambda gain: -gain.gain.mean):
            rows.append(
                (
                    arm,
                    gain.name,
                    str(gain.images),
                    f"{gain.recall:.3f}",
                    f"{gain.baseline_recall:.3f}",
                    signed(gain.gain),
                    gain.flag or "-",
                )
            )
    return Sheet(
        "Classes that changed most",
        ("arm", "class", "test images", "recall", "baseline", "gain", "flag"),
        tuple(rows),
        "Recall per class, paired. Flagged where the 95 % interval lies below zero; one class in forty does by "
        "chance, so it is said whether it holds after Holm's correction over the classes.",
    )


def rankings_sheet(details: Details) -> Sheet:
    """A row per data set and strategy: backbones, best first."""
    rows = [
        (
            f"{one.strategy} on {one.dataset}, {one.labels} labels",
            " > ".join(f"{name} {value:.3f}" for name, value in one.order),
            _number(one.agreement, "+.2f"),
        )
        for one in details.rankings
    ]
    return Sheet(
        "Backbones by strategy",
        ("strategy", "best first", "agreement"),
        tuple(rows),
        "Agreement: Kendall's tau with the first strategy on the same data.",
    )


def cost_sheet(comparison: Comparison) -> Sheet:
    """A row per arm: what a run costs."""
    rows = [
        (
            row.arm,
            _number(row.seconds, ".1f"),
            _number(row.gpu_hours, ".3f"),
            count_words(row.trainable),
            f"{row.peak_memory / 2**20:,.0f} MiB" if row.peak_memory else "-",
            _number(row.drift, ".3f"),
            f"{row.searched}; {row.trials} trials" if row.trials else "-",
        )
        for row in comparison.rows
        if row.seconds is not None
    ]
    return Sheet(
        "Cost",
        ("arm", "seconds", "GPU hours", "trainable", "peak memory", "CKA with the start", "tuned"),
        tuple(rows),
        "Means over runs; memory is the largest. CKA: linear centred kernel alignment, debiased, of the "
        "final features with those at the start of training, 1 where nothing moved. Pretraining is not counted.",
    )


def unequal_sheet(comparison: Comparison) -> Sheet:
    """A row per key that should be held equal and is not."""
    return Sheet(
        "Not held equal",
        ("arm", "key", "arm's", "baseline's"),
        tuple((one.arm, one.key, one.value, one.baseline_value) for one in comparison.unequal),
        "A gain may come from these.",
    )


def _reach(reach: Reach | None) -> str:
    if reach is None:
        return "-"
    if reach.steps is None:
        return "never"
    parts = [f"{reach.steps:,.0f} steps"]
    if reach.epochs is not None:
        parts.append(f"{reach.epochs:.1f} epochs")
    if reach.seconds is not None:
        parts.append(f"{reach.seconds:,.1f} s")
    if reach.images is not None:
        parts.append(f"{reach.images:,.0f} images")
    some = f" ({reach.reached} of {reach.of} runs)" if reach.reached < reach.of else ""
    return ", ".join(parts) + some


def _ratio(one: Along) -> str:
    if one.own is None or one.baseline_own is None or not one.own.steps or not one.baseline_own.steps:
        return "-"
    return f"{one.baseline_own.steps / one.own.steps:.1f}"


def _times(equal: Equivalence | None) -> str:
    if equal is None:
        return "-"
    sign = {"=": "", ">": "more than ", "<": "less than "}[equal.bound]
    return f"{sign}{equal.times:.1f} x"


def _aggregate(of: Aggregate | None, how: str = ".3f") -> str:
    if of is None:
        return "-"
    interval = of.over_datasets or of.over_runs
    return f"{of.value:{how}}" + (f" [{interval[0]:{how}}, {interval[1]:{how}}]" if interval else "")


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else f"{value:{how}}"
