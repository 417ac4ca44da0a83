"""A solved head: what is kept, what its rows say, and the refit on train and validation together."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from headstart.config.schema.head import LinearHeadConfig
from headstart.facts import Task
from headstart.features.solvers import Solved, solve
from headstart.features.solvers.choice import Candidate, Judge, choose
from headstart.features.solvers.likelihood import of_classes
from headstart.features.solvers.logistic import logistic_path
from headstart.features.solvers.outcomes import RARE
from headstart.models.heads import build_head
from headstart.training.metrics import evaluate

WIDTH = 8
PENALTIES = [1e-2, 1.0, 1e4]


def draw(count: int, *, seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    centres = torch.eye(classes, WIDTH) * 1.5
    return centres[targets] + torch.randn(count, WIDTH, generator=random), targets


def config(solver: str, **more: Any) -> LinearHeadConfig:
    own: dict[str, Any] = {"penalties": PENALTIES}
    if solver == "knn":
        own = {"neighbors": [1, 5, 20], "temperature": 0.07}
    return LinearHeadConfig(solver=solver, **{**own, **more})


def solved(solver: str, *, monitor: str = "val/accuracy_micro", refit: bool = False, **more: Any) -> Solved:
    head = build_head(config(solver), features=WIDTH, outputs=3)
    train, val = draw(90, seed=0), draw(60, seed=1)
    if refit:
        train = torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]])
    return solve(
        config(solver, **more), head, train=train, val=val, task="multiclass", monitor=monitor, refit=refit
    )


@pytest.mark.parametrize("solver", ["lbfgs", "ridge", "knn"])
def test_keeps_the_candidate_that_validation_likes_best(solver: str) -> None:
    found = solved(solver, monitor="val/log_loss")
    losses = [row["val/log_loss"] for row in found.rows]
    assert len(set(losses)) == 3
    assert found.best["value"] == min(losses)
    assert found.row == found.rows[found.best["step"] - 1]
    key = "neighbors" if solver == "knn" else "penalty"
    strengths = [row[key] for row in found.rows]
    assert strengths == sorted(strengths, reverse=True)
    assert found.about[key] == found.row[key]
    head, (features, targets) = build_head(config(solver), features=WIDTH, outputs=3), draw(60, seed=1)
    head.load_state_dict(found.state)
    with torch.no_grad():
        values = evaluate(head(features), targets, task="multiclass", split="val")
    assert values == {name: found.row[name] for name in values}


def test_of_equal_ones_the_strongest_is_kept() -> None:
    """Penalties so near to each other that their predictions are the same."""
    found = solved("lbfgs", penalties=[1.0, 1.001, 1.002])
    assert len({row["val/accuracy_micro"] for row in found.rows}) == 1
    assert found.about["penalty"] == 1.002


def test_a_metric_that_is_no_number_is_never_best() -> None:
    judge = Judge(torch.nn.Identity(), "multiclass", "val/auroc", None)
    assert not judge.better(float("nan"), 0.1)
    assert judge.better(0.1, float("nan"))
    assert Judge(torch.nn.Identity(), "multiclass", "val/log_loss", None).better(0.1, 0.2)
    assert not judge.better(0.1, 0.1)
    assert not Judge(torch.nn.Identity(), "multiclass", "val/log_loss", None).better(0.1, 0.1)


def test_no_candidate_is_a_fault() -> None:
    judge = Judge(torch.nn.Identity(), "multiclass", "val/auroc", None)
    none: list[Candidate] = []
    with pytest.raises(ValueError, match="no candidate"):
        choose(none, draw(4, seed=0), judge, about={})


@pytest.mark.parametrize("solver", ["lbfgs", "ridge", "knn"])
def test_refit_chooses_without_validation_images_and_fits_with_them(solver: str) -> None:
    alone, again = solved(solver, monitor="val/log_loss"), solved(solver, monitor="val/log_loss", refit=True)
    assert again.rows[:-1] == alone.rows
    assert again.best == alone.best
    last = again.rows[-1]
    assert again.row is last
    assert last["step"] == len(alone.rows) + 1
    assert not [name for name in last if name.startswith("val/")]
    assert last["fit/accuracy_micro"] > 0.5
    key = "neighbors" if solver == "knn" else "penalty"
    assert last[key] == alone.row[key]
    features = torch.cat([draw(90, seed=0)[0], draw(60, seed=1)[0]])
    if solver == "knn":
        assert again.state["0.bank"] == pytest.approx(F.normalize(features, dim=1))
        return
    assert not torch.equal(again.state["0.weight"], alone.state["0.weight"])
    if solver == "lbfgs":
        targets = torch.cat([draw(90, seed=0)[1], draw(60, seed=1)[1]])
        whole = of_classes(targets, 3, weights=None, smoothing=0.0)
        expected = next(logistic_path(features, whole, [last["penalty"]]))
        assert again.state["0.weight"] == pytest.approx(expected.weight.float())


def test_rows_say_how_well_the_training_images_are_fitted() -> None:
    found = solved("lbfgs")
    (features, targets), head = draw(90, seed=0), build_head(config("lbfgs"), features=WIDTH, outputs=3)
    head.load_state_dict(found.state)
    with torch.no_grad():
        loss = float(F.cross_entropy(head(features), targets))
    assert found.row["train/loss"] == pytest.approx(loss, abs=1e-6)
    norm = float(found.state["0.weight"].square().sum())
    assert found.row["train/objective"] == pytest.approx(loss + found.row["penalty"] * norm / 90, abs=1e-6)
    assert found.about["largest_gap"] == max(row["gap"] for row in found.rows) < 1e-4


def test_numbers_are_regressed_in_their_own_units() -> None:
    features = draw(90, seed=0)[0]
    targets = (features[:, :2] * torch.tensor([3.0, 50.0])) + torch.tensor([-4.0, 200.0])
    units = targets.mean(dim=0).tolist(), targets.std(dim=0).tolist()
    for solver, least in (("ridge", 0.999), ("knn", 0.3)):
        head = build_head(config(solver), features=WIDTH, outputs=2, units=units)
        found = solve(
            config(solver),
            head,
            train=(features[:60], targets[:60]),
            val=(features[60:], targets[60:]),
            task="regression",
            monitor="val/r2",
        )
        assert found.best["value"] > least
        head.load_state_dict(found.state)
        with torch.no_grad():
            said = head(features[60:])
        assert evaluate(said, targets[60:], task="regression", split="val")["val/r2"] == found.best["value"]


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_labels_have_a_threshold_that_validation_chooses(task: Task) -> None:
    features, targets = draw(120, seed=0, classes=4)
    targets = (targets == 0).long() if task == "binary" else F.one_hot(targets, 4).float()
    outputs = 1 if task == "binary" else 4
    for solver in ("lbfgs", "ridge", "knn"):
        head = build_head(config(solver), features=WIDTH, outputs=outputs)
        found = solve(
            config(solver),
            head,
            train=(features[:80], targets[:80]),
            val=(features[80:], targets[80:]),
            task=task,
            monitor="val/log_loss",
            threshold="validation",
        )
        assert found.threshold == found.row["val/threshold"] != 0.5
        fixed = solve(
            config(solver),
            head,
            train=(features[:80], targets[:80]),
            val=(features[80:], targets[80:]),
            task=task,
            monitor="val/log_loss",
            threshold=0.9,
        )
        assert fixed.threshold == 0.9
        name = "val/f1" if task == "binary" else "val/f1_micro"
        assert fixed.row[name] < found.row[name]


def test_a_class_without_training_images_is_all_but_ruled_out() -> None:
    features, targets = draw(90, seed=0)
    head = build_head(config("lbfgs"), features=WIDTH, outputs=5)
    targets = torch.tensor([0, 2, 4])[targets]
    val = features[:30], torch.arange(30) % 5
    found = solve(
        config("lbfgs", penalties=[1e-2]),
        head,
        train=(features, targets),
        val=val,
        task="multiclass",
        monitor="val/log_loss",
    )
    head.load_state_dict(found.state)
    absent = head.requires_grad_(False)(features).softmax(dim=1)[:, [1, 3]]
    assert float(absent.min()) > 0
    assert float(absent.amax(dim=0).min()) == pytest.approx(RARE, rel=0.01)


def test_a_label_that_all_images_have_is_certain() -> None:
    features, targets = draw(90, seed=0)
    labels = torch.stack([torch.ones(90), torch.zeros(90), (targets == 0).float()], dim=1)
    head = build_head(config("lbfgs"), features=WIDTH, outputs=3)
    found = solve(
        config("lbfgs"),
        head,
        train=(features, labels),
        val=(features, F.one_hot(targets, 3).float()),
        task="multilabel",
        monitor="val/log_loss",
    )
    head.load_state_dict(found.state)
    said = head(features).sigmoid()
    assert said[:, :2].mean(dim=0).tolist() == pytest.approx([1 - RARE, RARE], abs=1e-7)


def test_seen_is_told_of_each_candidate() -> None:
    told: list[int] = []
    head = build_head(config("ridge"), features=WIDTH, outputs=3)
    solve(
        config("ridge"),
        head,
        train=draw(30, seed=0),
        val=draw(30, seed=1),
        task="multiclass",
        monitor="val/auroc",
        seen=told.append,
    )
    assert told == [1, 2, 3]


def test_the_head_itself_keeps_its_numbers() -> None:
    head = build_head(config("lbfgs"), features=WIDTH, outputs=3)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    train, val = draw(30, seed=0), draw(30, seed=1)
    solve(config("lbfgs"), head, train=train, val=val, task="multiclass", monitor="val/auroc")
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_class_weights_reach_the_fit() -> None:
    head, train, val = build_head(config("lbfgs"), features=WIDTH, outputs=3), draw(90, seed=0), draw(60, seed=1)
    shares = []
    for weights in (None, torch.tensor([10.0, 1.0, 1.0])):
        found = solve(
            config("lbfgs"),
            head,
            train=train,
            val=val,
            task="multiclass",
            monitor="val/log_loss",
            weights=weights,
        )
        head.load_state_dict(found.state)
        shares.append(int((cast(torch.Tensor, head(val[0])).argmax(dim=1) == 0).sum()))
    assert shares[1] > shares[0] + 5
