"""A ranking against runs that trained its candidates: real runs, a second each."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headstart.cli.rank_against import show
from headstart.compare.results import Result
from headstart.compare.sources import find_results
from headstart.errors import RecordError
from headstart.records.schema import RunRecord
from headstart.transferability.against import against_ranking
from headstart.transferability.agreement import Figure
from headstart.transferability.matching import best_arm, settings
from headstart.transferability.measured import measured_of
from headstart.transferability.ranking import Ranked, Ranking
from headstart.transferability.static import static_scores
from headstart.transferability.verdicts import verdicts_of


def candidate(name: str, backbone: str, *, sha256: str | None = None, **further: object) -> Ranked:
    source = "file" if sha256 else "scratch"
    return Ranked(
        name=name,
        backbone=backbone,
        library="timm",
        weights={"source": source, "name": name, "sha256": sha256, "seed": 0},
        **{  # type: ignore[arg-type]
            "overrides": (),
            "parameters": 1000,
            "images_per_second": 1.0,
            "memory": 1,
            "seconds": {},
            "scores": {"logme": 1.0, "static": 1000.0},
            **further,
        },
    )


@dataclass(frozen=True)
class Trained:
    outputs: Path
    fingerprint: str
    scratch: RunRecord
    probe: RunRecord
    ranking: Ranking


def ranking_of(candidates: tuple[Ranked, ...], fingerprint: str, *, images: int = 100) -> Ranking:
    return Ranking(
        id="r",
        created="",
        command=(),
        task="multiclass",
        dataset="digits",
        fingerprint=fingerprint,
        images=images,
        outputs=10,
        by="logme",
        static="number of parameters",
        candidates=candidates,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """test_resnet from scratch twice, and from the weights of another run: whole twice, and its head alone."""
    from tests.conftest import tiny_config

    from headstart.experiment import run

    home = tmp_path_factory.mktemp("trained")
    before = {name: os.environ.get(name) for name in ("HEADSTART_CACHE", "HEADSTART_OUTPUTS")}
    os.environ["HEADSTART_CACHE"] = str(home / "cache")
    outputs = home / "outputs"

    def one(*overrides: str) -> tuple[Path, RunRecord]:
        return run(tiny_config(f"output_dir={outputs}", *overrides), command=["test"])

    folder, _ = run(tiny_config(f"output_dir={home / 'source'}", "seed=7"), command=["test"])
    (weights,) = (folder / "checkpoints").glob("best*")
    scratch = [one("strategy=full", f"seed={seed}")[1] for seed in (0, 1)]
    file = ("weights=file", f"weights.path={weights}")
    whole = [one("strategy=full", f"seed={seed}", *file)[1] for seed in (0, 1)]
    probe = one("strategy=linear_probe", *file)[1]
    sha256 = whole[0].weights["file_sha256"]
    fingerprint = str(scratch[0].data["fingerprint"])
    candidates = (
        candidate("ours", "test_resnet.r160_in1k", sha256=sha256, scores={"logme": 2.0, "static": 1000.0}),
        candidate("random", "test_resnet.r160_in1k"),
        candidate("vit", "test_vit.r160_in1k"),
    )
    yield Trained(outputs, fingerprint, scratch[0], probe, ranking_of(candidates, fingerprint))
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def results(trained: Trained, change: dict[str, dict[str, float]] | None = None) -> list[Result]:
    """What is there; with `change`, metrics of `source strategy seed` replaced."""
    found, _ = find_results([trained.outputs])
    changed = []
    for one in found:
        key = f"{one.config['weights']['source']} {one.config['strategy']['name']} {one.seed}"
        changed.append(replace(one, metrics={**one.metrics, **(change or {}).get(key, {})}))
    return changed


def test_runs_are_matched_by_backbone_and_weights(trained: Trained) -> None:
    found = measured_of(trained.ranking, [trained.outputs])
    assert [one.name for one in found.measured] == ["ours", "random"]
    assert "not trained, left out: vit." in found.notes
    assert any(
        " stands for ours (best of 2 by val/accuracy_micro); also there: strategy=" in n for n in found.notes
    )
    assert found.metric == "test/accuracy_micro"
    random = {one.name: one for one in found.measured}["random"]
    by_hand = [r.metrics["test/accuracy_micro"] for r in results(trained) if r.is_scratch]
    assert random.mean == pytest.approx(sum(by_hand) / 2)  # type: ignore[arg-type]
    assert set(random.repeats) == {0, 1}
    other = candidate("ours", "test_resnet.r160_in1k", sha256="0" * 64)
    with pytest.raises(RecordError, match=r"no run with .* is of a candidate \(ours\); the runs on digits are of"):
        measured_of(ranking_of((other,), trained.fingerprint), [trained.outputs])


@pytest.mark.parametrize(("better", "strategy"), [("full", "full"), ("linear_probe", "linear_probe")])
def test_validation_chooses_the_arm_and_never_the_test(trained: Trained, better: str, strategy: str) -> None:
    worse = {"val/accuracy_micro": 0.1, "test/accuracy_micro": 0.99}
    good = {"val/accuracy_micro": 0.9, "test/accuracy_micro": 0.2}
    change = {
        f"file {name} {seed}": good if name == better else worse
        for name in ("full", "linear_probe")
        for seed in (0, 1)
    }
    (setting,) = settings(results(trained, change))
    arm = best_arm(trained.ranking.candidates[0], setting)
    assert arm is not None
    assert (arm.strategy, arm.by) == (strategy, "best of 2 by val/accuracy_micro")
    assert arm.mean == pytest.approx(0.2)
    assert arm.label == f"strategy={strategy}"
    assert arm.others == tuple({"strategy=full", "strategy=linear_probe"} - {arm.label})


def with_pool(result: Result, pool: str, value: float) -> Result:
    """The same run with another head.pool, and what it measured."""
    assert result.record is not None
    head = {**result.record.config["head"], "pool": pool}
    config = {**result.record.config, "head": head}
    record = replace(result.record, config=config)
    metrics = {**result.metrics, "test/accuracy_micro": value}
    return replace(
        result, id=f"{result.id}-{pool}", arm=f"{result.arm}-{pool}", config=config, record=record, metrics=metrics
    )


def test_candidates_that_differ_in_their_pooling_have_their_own_runs(trained: Trained) -> None:
    plain = trained.ranking.candidates[0]
    own = replace(
        plain, name="ours max", overrides=("backbone.name=test_resnet", "head.pool='max'", "weights=file")
    )
    found = [one for one in results(trained) if one.config["weights"]["source"] == "file"]
    (alone,) = settings(found)
    (both,) = settings([*found, *(with_pool(one, "max", 0.3) for one in found)])
    pair = (plain, own)
    assert best_arm(own, alone, pair) is None
    for setting in (alone, both):
        arm = best_arm(plain, setting, pair)
        assert arm is not None
        assert len(arm.others) == 1  # strategies, and not the other's runs
        assert 0.3 not in arm.repeats.values()
    arm = best_arm(own, both, pair)
    assert arm is not None
    assert set(arm.repeats.values()) == {0.3}
    auto = replace(own, overrides=("head.pool=auto",))
    assert best_arm(auto, alone, pair) is not None


def test_candidates_that_differ_in_the_seed_alone_have_their_own_runs(trained: Trained) -> None:
    zero, one, two = (candidate(f"seed={seed}", "test_resnet", overrides=(f"seed={seed}",)) for seed in range(3))
    two, one = (replace(c, weights={**c.weights, "seed": seed}) for seed, c in ((2, two), (1, one)))
    by_seed = {r.seed: r.metrics["test/accuracy_micro"] for r in results(trained) if r.is_scratch}
    measured = measured_of(ranking_of((zero, one, two), trained.fingerprint), [trained.outputs])
    assert {m.name: m.repeats for m in measured.measured} == {f"seed={s}": {s: by_seed[s]} for s in (0, 1)}
    assert "not trained, left out: seed=2." in measured.notes
    # of one candidate they are repeats, whatever its seed
    (alone,) = measured_of(ranking_of((two,), trained.fingerprint), [trained.outputs]).measured
    assert alone.repeats == by_seed
    assert "2 of 3 candidates" in static_scores((zero, one, two), [trained.outputs])[0]


def test_another_metric_and_its_direction(trained: Trained) -> None:
    found = measured_of(trained.ranking, [trained.outputs], metric="test/log_loss")
    assert found.lower_is_better
    assert found.measured[1].mean == pytest.approx(
        sum(r.metrics["test/log_loss"] for r in results(trained) if r.is_scratch) / 2  # type: ignore[misc]
    )
    with pytest.raises(RecordError, match=r"--metric test/log_los: none of these runs has it\. Did you mean"):
        measured_of(trained.ranking, [trained.outputs], metric="test/log_los")


def test_runs_on_other_data_do_not_count(trained: Trained) -> None:
    other = ranking_of(trained.ranking.candidates, "f" * 64)
    with pytest.raises(RecordError, match=r"is on the ranking's data set, digits \(ffffffff\); there are runs on"):
        measured_of(other, [trained.outputs])
    fewer = ranking_of(trained.ranking.candidates, trained.fingerprint, images=60)
    assert "trained on 100 images; the ranking was made of 60." in measured_of(fewer, [trained.outputs]).notes


def test_results_elsewhere_make_the_static_baseline(trained: Trained) -> None:
    # the same runs by two paths are one data set
    words, scores = static_scores(trained.ranking.candidates, [trained.outputs, trained.outputs / "runs"])
    assert words == "mean over 1 other data set (covers 2 of 3 candidates)"
    assert sorted(scores) == ["ours", "random"]
    assert sorted(scores.values()) == pytest.approx([-1, 1])
    # of the ranking's own data set they would be the answer
    words, scores = static_scores(trained.ranking.candidates, [trained.outputs], fingerprint=trained.fingerprint)
    assert words == "number of parameters (the results elsewhere cover 0 of 3 candidates)"
    assert scores == dict.fromkeys(("ours", "random", "vit"), 1000.0)


@pytest.mark.parametrize(
    ("gains", "warning", "verdict"),
    [
        ((0.10, 0.105), None, "confirmed"),
        ((0.10, 0.105), "far", "refuted"),
        ((-0.10, -0.105), None, "refuted"),
        ((-0.10, -0.105), "far", "confirmed"),
        ((0.10, -0.12), "far", "undecided"),
        ((0.10, -0.12), None, "undecided"),
    ],
)
def test_warnings_meet_the_measured_gain(
    trained: Trained, gains: tuple[float, float], warning: str | None, verdict: str
) -> None:
    metric = "test/accuracy_micro"
    change = {f"scratch full {seed}": {metric: 0.5, "val/accuracy_micro": 0.5} for seed in (0, 1)}
    change |= {f"file full {s}": {metric: 0.5 + gain, "val/accuracy_micro": 1.0} for s, gain in enumerate(gains)}
    found = results(trained, change)
    (setting,) = settings(found)
    warned = dataclasses.replace(
        trained.ranking.candidates[0], warning=warning, gain={"value": 0.1, "low": 0.0, "high": 0.2}
    )
    arm = best_arm(warned, setting)
    assert arm is not None
    (one,), notes = verdicts_of([warned, trained.ranking.candidates[1]], {"ours": arm}, found, metric)
    assert notes == []
    assert one.verdict == verdict
    assert one.expected == Figure(0.1, 0.0, 0.2)
    assert one.gain is not None
    assert one.gain.value == pytest.approx(sum(gains) / 2)
    # Student's t with one degree of freedom: 12.706 s / sqrt(2)
    half = 12.7062047 * abs(gains[0] - gains[1]) / 2
    assert one.gain.high == pytest.approx(sum(gains) / 2 + half)
    assert verdict in one.words


def test_a_loss_that_fell_is_a_gain(trained: Trained) -> None:
    metric = "test/log_loss"
    change = {f"scratch full {seed}": {metric: 2.0} for seed in (0, 1)}
    change |= {f"file full {seed}": {metric: 1.0 + seed / 100, "val/log_loss": 0.1} for seed in (0, 1)}
    found = results(trained, change)
    (setting,) = settings(found, metric=metric)
    arm = best_arm(trained.ranking.candidates[0], setting)
    assert arm is not None
    (one,), _ = verdicts_of(trained.ranking.candidates[:1], {"ours": arm}, found, metric)
    assert (one.verdict, one.gain.value) == ("confirmed", pytest.approx(0.995))  # type: ignore[union-attr]


def test_it_is_shown_and_drawn(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(trained.ranking, [trained.outputs], metric=None, how="table", plot=tmp_path / "a.svg") == 0
    text = capsys.readouterr().out
    assert "digits: 2 candidates, test/accuracy_micro" in text
    assert "static*" in text
    assert "no intervals: fewer than 5 candidates" in text
    assert "the static baseline to hold it against has no order (all candidates alike)" in text
    assert "Transfer against training from scratch:" in text
    assert "What was measured" in text
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    show(trained.ranking, [trained.outputs], metric=None, how="json", plot=None, elsewhere=[trained.outputs])
    plain = json.loads(capsys.readouterr().out)
    # the ranking's own runs are no results elsewhere
    assert plain["static"] == "number of parameters (the results elsewhere cover 0 of 3 candidates)"
    assert [one["candidate"] for one in plain["verdicts"]] == ["ours"]


def test_a_table_may_have_trained_them(trained: Trained, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(
        "dataset,model,seed,accuracy\ndigits,ours,0,0.5\ndigits,ours,1,0.7\ndigits,vit,0,0.9\nx,ours,0,1\n"
    )
    found = against_ranking(trained.ranking, [table], metric=None)
    (of,) = found.datasets
    assert [(one.name, one.mean, len(one.repeats)) for one in of.measured] == [("ours", 0.6, 2), ("vit", 0.9, 1)]
    assert of.scores == {"logme": (2.0, 1.0), "static": (1000.0, 1000.0)}
    table.write_text("dataset,model,accuracy\nx,ours,1\ny,ours,1\n")
    with pytest.raises(RecordError, match="has no rows on digits; its data sets are x, y"):
        against_ranking(trained.ranking, [table], metric=None)
    table.write_text("model,accuracy\nother,1\n")
    with pytest.raises(
        RecordError, match=r"no row on data is of a candidate \(ours, random, vit\); its models are"
    ):
        against_ranking(trained.ranking, [table], metric=None)
