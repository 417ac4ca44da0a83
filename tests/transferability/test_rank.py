"""Ranking whole: real candidates on real images, against what their models say when asked directly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tests.conftest import RunTiny
from tests.test_experiment import write_two_colours

import headstart
from headstart.cli import main
from headstart.errors import ConfigError, HeadstartError, WeightsError
from headstart.rehearsal import Rehearsal
from headstart.transferability.candidates import find_candidates
from headstart.transferability.examine import config_of, examine
from headstart.transferability.ranking import Ranking, read_ranking
from headstart.transferability.scores import SCORES

DATA = ("data=digits", "data.image_size=32", "data.train_size=120", "trainer.threads=1")
ON = (*DATA, "weights=scratch")


def rank(*backbones: str, on: tuple[str, ...] = ON, **options: object) -> Ranking:
    return headstart.rank(list(backbones), list(on), **{"draws": 10, "scores": ["logme", "centroids"], **options})  # type: ignore[arg-type]


def test_scores_are_of_the_features_that_the_model_gives() -> None:
    """The training images, as they are evaluated, through timm's own model with the same weights, in one batch."""
    (candidate,) = find_candidates(["test_resnet"], shared=ON)
    examined = examine(config_of(candidate, ON, ()), Rehearsal(runs=True), with_source=False)
    data, backbone = examined.prepared.data, examined.prepared.built.model.backbone
    model = timm.create_model("test_resnet", num_classes=0)
    model.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        features = model.eval()(data.sample("train", 120)).numpy()
    assert np.allclose(examined.examples.features, features, atol=1e-4 * np.abs(features).max())
    assert examined.parameters == sum(parameter.numel() for parameter in model.parameters())
    ranking = rank("test_resnet", scores=["logme", "knn", "centroids"])
    for name in ("logme", "knn", "centroids"):
        expected = SCORES[name].compute(examined.examples).value
        assert ranking.candidates[0].scores[name] == pytest.approx(expected, abs=1e-9), name


def test_the_order_the_places_and_the_static_baseline() -> None:
    ranking = rank("test_resnet", "test_vit", "test_resnet seed=1")
    by = [one.scores["logme"] for one in ranking.candidates]
    assert by == sorted(by, reverse=True)
    assert (ranking.by, ranking.images, ranking.outputs) == ("logme", 120, 10)
    for one in ranking.candidates:
        low, high = one.intervals["logme"]
        assert low <= one.scores["logme"] <= high
        assert 1 <= one.ranks["logme"][0] <= one.ranks["logme"][1] <= 3
        assert one.scores["static"] == one.parameters
        assert one.images_per_second > 0
        assert one.memory > 4 * one.parameters
    assert ranking.static == "number of parameters"
    first, second = (one for one in ranking.candidates if one.backbone.startswith("test_resnet"))
    assert {first.weights["seed"], second.weights["seed"]} == {0, 1}
    assert first.scores["logme"] != second.scores["logme"]
    other = rank("test_resnet", "test_vit", by="static")
    sizes = [one.parameters for one in other.candidates]
    assert sizes == sorted(sizes, reverse=True)


def test_features_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rank("test_vit")
    from headstart.features import bank

    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("features were computed again")

    monkeypatch.setattr(bank, "extract", never)
    again = rank("test_vit")
    assert again.candidates[0].scores == first.candidates[0].scores
    assert again.candidates[0].intervals == first.candidates[0].intervals


def test_a_candidate_without_weights_is_left_out_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DATA, "backbones=[test_resnet.r160_in1k,'test_vit weights=scratch']"]
    assert main(["rank", *words, "--bootstrap", "0", "--scores", "centroids"]) == 3
    said = capsys.readouterr()
    assert "left out: test_resnet.r160_in1k: weights=pretrained: " in said.err
    (folder,) = Path("outputs/rankings").iterdir()
    ranking = read_ranking(folder)
    assert [one.name for one in ranking.candidates] == ["test_vit weights=scratch"]
    assert list(ranking.left_out) == ["test_resnet.r160_in1k"]
    with pytest.raises(WeightsError, match="is not in the cache"):
        rank("test_resnet.r160_in1k", on=DATA)


def test_a_backbone_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.transferability import examine as module

    timed = module._timed
    counts: list[int] = []

    def fails(prepared: Any, count: int) -> float:
        counts.append(count)
        if prepared.config.backbone.name.startswith("test_vit"):
            raise RuntimeError("expected a square image\nand so on")
        if count > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return timed(prepared, count)

    monkeypatch.setattr(module, "_timed", fails)
    ranking = rank("test_resnet", "test_vit", "test_resnet seed=1")
    assert counts == [32, 16, 8, 32, 32, 16, 8]
    assert ranking.left_out == {"test_vit": "RuntimeError: expected a square image"}
    assert len(ranking.candidates) == 2
    assert all(one.images_per_second > 0 for one in ranking.candidates)


def test_what_was_ranked_before_an_interrupt_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.transferability import rank as module

    real, seen = module.examine, []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(module, "examine", interrupted)
    assert main(["rank", *ON, "backbones=[test_resnet,test_vit,test_convnext]", "--scores", "logme"]) == 130
    (folder,) = Path("outputs/rankings").iterdir()
    ranking = read_ranking(folder)
    assert [one.name for one in ranking.candidates] == ["test_resnet"]
    assert ranking.left_out == {"test_vit": "interrupted", "test_convnext": "interrupted"}


def test_the_order_goes_by_another_score_where_none_has_the_one_that_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    torch.save(model.state_dict(), "headless.pth")
    words = [
        "backbones=['test_vit weights=file weights.path=headless.pth']",
        "--scores",
        "centroids",
        "--by",
        "leep",
    ]
    assert main(["rank", *DATA, *words]) == 3
    assert "ordered by centroids, not by leep: " in capsys.readouterr().err
    (folder,) = Path("outputs/rankings").iterdir()
    assert read_ranking(folder).by == "centroids"


def test_a_candidates_weights_take_the_place_of_everybodys() -> None:
    torch.save(timm.create_model("test_vit").state_dict(), "some weights,1.pth")
    on = (*DATA, "weights=file", "weights.path='some weights,1.pth'")
    ranking = rank("test_vit", on=on, controls=True, scores=["linear_probe"])
    assert {one.weights["source"] for one in ranking.candidates} == {"file", "scratch"}


def test_rankings_lie_where_the_config_says() -> None:
    assert main(["rank", *ON, "backbones=[test_vit]", "--scores", "centroids", "output_dir='my results'"]) == 0
    assert len(list(Path("my results/rankings").iterdir())) == 1


def test_a_source_that_is_its_own_target(run_tiny: RunTiny) -> None:
    """Weights trained on these very images: the classifier agrees, the source is near, transfer is worth it."""
    folder, record = run_tiny("data.train_size=400", "trainer.max_epochs=8", "optimizer.lr=0.003")
    ranking = rank(
        str(folder), on=DATA, scores=["linear_probe", "leep", "nce", "logme"], by="leep", controls=True, draws=50
    )
    trained, random = ranking.candidates
    assert (trained.name, random.name) == (record.id, "test_resnet weights=scratch")
    assert trained.scores["leep"] > -1.5
    assert trained.scores["nce"] <= 0
    assert random.scores["leep"] is None
    assert "weights=scratch has none" in random.notes["leep"]
    assert trained.distance["origin"] == "digits"
    assert trained.distance["share"] is None  # digits are numbered, which names nothing
    assert trained.distance["frechet_relative"] < 0.2
    assert trained.gain is not None
    assert trained.gain["low"] > 0
    assert trained.warning is None
    assert random.gain is None


def test_weights_that_are_no_better_than_random_ones_are_warned_of() -> None:
    """A file with the very weights of the control: nothing is gained, in no draw."""
    control, *_ = find_candidates(["test_vit weights=scratch"], shared=DATA)
    examined = examine(config_of(control, DATA, ()), Rehearsal(runs=True), with_source=False)
    torch.save(examined.prepared.built.model.backbone.state_dict(), "same.pth")
    entry = "test_vit weights=file weights.path=same.pth"
    ranking = rank(entry, "test_vit weights=scratch", scores=["linear_probe"], draws=20)
    (one,) = [one for one in ranking.candidates if one.name == entry]
    assert one.gain == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert one.warning is not None
    assert one.warning.startswith(f"{entry}: transfer is likely to buy nothing: a linear probe is 0.")
    assert (
        "data.train_size=120 trainer.threads=1 backbone.name=test_vit weights=file weights.path=same.pth"
        in one.warning
    )
    assert "\n" not in one.warning


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backbones=[test_vit]", "--by", "leep"], "--by leep: needs the source's classifier, and weights=scratch has none"),
        (["backbones=[test_vit]", "--scores", "nce,leep"], "--scores nce: needs the source's classifier"),
        (["backbones=[test_vit]", "--scores", "logm"], r"scores: 'logm': there is no such score\. Did you mean 'logme'"),
        (["backbones=[test_vit]", "optimizer.lr=1"], r"optimizer\.lr=1: has no effect on a ranking; it is for the sweep"),
        (["backbones=[nosuch_*]"], r"nosuch_\*: matches no model"),
        (["backbones=[test_vit]", "data.classes=[0]"], "class"),
        (["backbones=[test_vit,test_resnet]", "data.positive=3"], r"data\.positive=3: is for two classes"),
        (["backbones=[test_vit]", "--top", "3"], "--top K and --then SWEEP go together"),
        (["backbones=[test_vit]", "--then", "nosuch", "--top", "1"], "--then nosuch: there is no such sweep"),
        (["backbones=[test_vit]", "--bootstrap", "-1"], "--bootstrap -1: must be at least 0"),
        (["backbones=[test_vit]", "--plot", "x.gif"], r"x\.gif"),
        (["backbones=[test_vit]", "--elsewhere", "nowhere"], "nowhere: there is no such file or folder"),
        (["backbones=[test_vit]", "--ranking", "x", "--against", "x"], "--ranking: is a ranking to judge"),
        (["backbones=[test_vit]", "loss.label_smoothing=0.1"], r"loss\.label_smoothing=0\.1: has no effect on a ranking"),
        (["backbones=[test_vit]", "data.augment=light"], r"data\.augment=light: has no effect on a ranking"),
        (["backbones=[test_vit]", "features.views=2"], r"features\.views=2: has no effect on a ranking"),
        (["backbones=[test_vit]", "--controls", "--bootstrap", "0"], "--controls: are for warnings"),
        (["backbones=[test_vit]", "--controls", "--scores", "knn"], "--controls: are for warnings"),
        (["backbones=[test_vit]", "--format", "json", "--against", "."], "--format json: is one document"),
    ],
)  # fmt: skip
def test_mistakes_are_a_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", *ON, *words]) == 2
    said_all = capsys.readouterr().err
    lines = [line for line in said_all.splitlines() if line.startswith("headstart: ")]
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines
    assert "left out" not in said_all
    assert not Path("outputs").exists()


def test_continuous_targets(tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    rows = ["image,age"]
    for i in range(60):
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{generator.normal():.4f}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    on = (
        "data=csv", f"data.path={tmp_path / 't.csv'}", "data.label_column=age", "data.task=regression",
        "weights=scratch", "data.image_size=32", "trainer.threads=1",
    )  # fmt: skip
    found = rank("test_vit", on=on, scores=[])
    assert set(found.candidates[0].scores) == {"logme", "linear_probe", "knn", "static"}
    with pytest.raises(ConfigError, match=r"hscore needs classes, and the targets are continuous"):
        rank("test_vit", on=on, scores=["hscore"])


def test_several_labels_and_two_classes(tmp_path: Path) -> None:
    write_two_colours(tmp_path / "set")
    on = ("data=hf", f"data.path={tmp_path / 'set'}", "data.test_size=0.3", "data.image_size=32", "weights=scratch")
    (one,) = rank("test_vit", on=on, scores=[]).candidates
    assert set(one.scores) == {"logme", "linear_probe", "knn", "static"}
    assert 0.5 < one.scores["linear_probe"] <= 1
    ranking = rank("test_vit", on=(*ON, "data.classes=[3,8]", "data.positive=3"), scores=[])
    assert (ranking.task, ranking.outputs) == ("binary", 2)
    assert set(ranking.candidates[0].scores) == {*SCORES, "static"}


def test_what_is_printed_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rank", *ON, "backbones=[test_resnet,test_vit]", "--bootstrap", "10"]
    assert main([*words, "--scores", "logme,knn"]) == 0
    said = capsys.readouterr()
    assert "digits: 120 training images, 10 outputs (multiclass)" in said.out
    assert "static: the number of parameters" in said.out
    assert "[2/2] test_vit" in said.err
    (folder,) = Path("outputs/rankings").iterdir()
    assert {path.name for path in folder.iterdir()} == {"ranking.json", "ranking.csv", "ranking.png"}
    assert main([*words, "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in plain["candidates"]} == {"test_resnet", "test_vit"}
    assert main([*words, "--format", "csv", "--plot", "here.svg"]) == 0
    assert capsys.readouterr().out.startswith("dataset,model,place,logme,")
    assert Path("here.svg").stat().st_size > 1000


def test_a_damaged_ranking_is_said() -> None:
    Path("ranking.json").write_text('{"schema": 1, "candidates": [{}]}')
    with pytest.raises(HeadstartError, match=r"ranking\.json: is damaged"):
        read_ranking(Path())
